"""Checks the built site: it has every public name, loads nothing from other hosts, and its search answers.

The queries are those of queries.txt. They are asked where there is Node; `make docs-browser` asks them too.
"""

import re
import shutil
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

from public_names import ROOT, home, public_objects, statements
from queries import list_unanswered, read_queries
from sphinx.util.inventory import InventoryFile

LOADED = {"src", "srcset", "data", "poster"}


class Loads(HTMLParser):
    """Collects the addresses of what a browser loads with a page: scripts, styles, fonts, images."""

    def __init__(self, page: Path):
        super().__init__()
        self.addresses: list[str] = []
        self.feed(page.read_text())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        for name, value in attrs:
            if name in LOADED or (tag, name) in (("link", "href"), ("use", "href")):
                self.addresses.append(value or "")


def is_elsewhere(address: str) -> bool:
    return re.match(r"(https?:)?//", address) is not None


def list_loads(site: Path) -> list[str]:
    """Returns what pages and styles load from other hosts, each with its file."""
    pages = {page: Loads(page).addresses for page in site.rglob("*.html")}
    styles = {
        style: re.findall(r"""(?:url\(|@import )["']?([^"')]+)""", style.read_text())
        for style in site.rglob("*.css")
    }
    files = {**pages, **styles}
    print(f"{len(pages)} pages, {sum(map(len, files.values()))} addresses that are loaded")
    return [
        f"{file.relative_to(site)} loads {x}" for file, xs in files.items() for x in xs if is_elsewhere(x)
    ]


def list_missing(site: Path) -> list[str]:
    """Returns the public objects of which no name is in the inventory."""
    inventory = InventoryFile.loads((site / "objects.inv").read_bytes(), uri="").data
    names = {name for kind, entries in inventory.items() if kind.startswith("py:") for name in entries}
    described = {home(*name.rsplit(".", 1)) for name in names if statements(name.rpartition(".")[0])}
    public = public_objects("d3pm_jax") | public_objects("torch_ref")
    print(f"{len(public)} public objects, {len(names)} names in the inventory")
    return [f"{module}.{name} is missing" for module, name in sorted(public - described)]


def search(site: Path) -> list[str]:
    """Returns the queries that are not answered by the first hit."""
    node = shutil.which("node")
    if node is None:
        print("no searches: there is no Node")
        return []
    command = [node, ROOT / "docs" / "run_search.js", site, "1"]
    queries = list(read_queries())
    asked = subprocess.run(command, input="\n".join(queries), capture_output=True, text=True, check=True)
    return list_unanswered(dict(zip(queries, asked.stdout.splitlines(), strict=True)))


if __name__ == "__main__":
    site = Path(sys.argv[1])
    defects = list_loads(site) + list_missing(site) + search(site)
    sys.exit("\n".join(defects) or 0)
