"""The reference of the site has each public name once, and the page of flat names has each flat name once."""

import collections
import re
from pathlib import Path

from docs.public_names import exported, home, module_of, public_modules, public_objects
from docs.queries import read_queries

REFERENCE = Path(__file__).parents[1] / "docs" / "reference"
OTHERS = {"index", "flat", "torch_ref"}
ENTRY = re.compile(r"^\.\. (?:py:|auto)(module|data|exception|class|function):: (\S+)$", re.M)


def read_entries(page: Path) -> list[tuple[str, str]]:
    """Returns the module and the name of each entry."""
    module, entries = "", []
    for kind, name in ENTRY.findall(page.read_text()):
        if kind == "module":
            module = name
        else:
            entries.append((module, name))
    return entries


def test_the_reference_has_each_public_name_once():
    pages = [page for page in REFERENCE.glob("*.rst") if page.stem not in OTHERS]
    entries = [entry for page in pages for entry in read_entries(page)]
    times = collections.Counter(home(*entry) for entry in entries)
    assert {x for x, n in times.items() if n > 1} == set()
    assert set(times) == public_objects("d3pm_jax")
    assert {(module, name) for module, name in entries if name not in exported(module)} == set()


def test_flat_names_lead_to_the_entries_of_their_homes():
    links = re.findall(r":py:(?:func|class):`(\w+) <([\w.]+)\.(\w+)>`", (REFERENCE / "flat.rst").read_text())
    assert sorted(name for name, _, _ in links) == sorted(exported("d3pm_jax"))
    for name, module, function in links:
        assert home(module, function) == home("d3pm_jax", name)


def test_the_page_of_the_twin_has_each_of_its_modules():
    entries = ENTRY.findall((REFERENCE / "torch_ref.rst").read_text())
    described = [name for kind, name in entries if kind == "module"]
    offered = {m for m in public_modules("torch_ref") if any(not module_of(m, name) for name in exported(m))}
    assert sorted(described) == sorted(offered)


def test_the_pages_that_answer_searches_exist():
    pages = {answer.partition("#")[0] for answers in read_queries().values() for answer in answers}
    docs = REFERENCE.parent
    assert [page for page in pages if not list(docs.glob(f"{page}.*"))] == []
