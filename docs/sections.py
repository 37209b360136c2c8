"""Writes sections.js, what docs/search.js searches: the title, the text and the search words of each section.

Search words are those that readers type and that the text has no use for. They stand below a title:

    <!-- search: CFG, guidance scale -->
"""

import json
import re
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from docutils.nodes import Element, Node, Text, document, raw, section
from sphinx.addnodes import desc
from sphinx.application import Sphinx

SEARCH_WORDS = re.compile(r"<!-- search: (.*)-->", re.DOTALL)


class Section(NamedTuple):
    """A section of a page, or a name that the reference describes."""

    page: str
    anchor: str  # "" for the page itself
    title: str
    words: str
    text: str


def gather_text(nodes: Sequence[Node]) -> str:
    """Returns the text of nodes, without that of sections and descriptions among or below them."""
    parts = [
        node.astext() if isinstance(node, Text) else gather_text(node.children)
        for node in nodes
        if not isinstance(node, section | desc | raw)
    ]
    return " ".join(parts)


def list_sections(page: str, tree: document) -> Iterator[Section]:
    """Yields the page, then its sections in their order."""
    anchor_of_page = tree.next_node(section)["ids"][0]
    for node in tree.findall(lambda node: isinstance(node, section | desc)):
        assert isinstance(node, Element)
        head, *body = node.children
        ids = node["ids"] if isinstance(node, section) else head.get("ids", [])
        if ids:  # a description without one is that of a name which is described elsewhere
            title = head.astext() if isinstance(node, section) else ids[0]
            comments = [SEARCH_WORDS.match(part.astext()) for part in body if isinstance(part, raw)]
            words = " ".join(match[1] for match in comments if match)
            yield Section(page, "" if ids[0] == anchor_of_page else ids[0], title, words, gather_text(body))


def write_sections(app: Sphinx, error: Exception | None) -> None:
    """Writes the sections of all pages but those whose front matter says `nosearch`."""
    if error is None and app.builder.format == "html":
        pages = [page for page in sorted(app.env.found_docs) if "nosearch" not in app.env.metadata[page]]
        rows = [row for page in pages for row in list_sections(page, app.env.get_doctree(page))]
        (app.outdir / "sections.js").write_text(f"Search.setIndex({json.dumps(rows, ensure_ascii=False)});\n")


def setup(app: Sphinx) -> None:
    app.connect("build-finished", write_sections)
