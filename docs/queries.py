"""Reads queries.txt: what readers type into the search of the site, and the pages that answer it."""

from collections.abc import Mapping
from pathlib import Path

QUERIES = Path(__file__).with_name("queries.txt")


def read_queries() -> dict[str, list[str]]:
    """Returns the pages that answer each query, as page or page#anchor."""
    lines = QUERIES.read_text().splitlines()
    rows = [line.split(" | ") for line in lines if line and not line.startswith("#")]
    return {query: pages.split() for query, pages in rows}


def list_unanswered(first_hits: Mapping[str, str]) -> list[str]:
    """Returns a line for each query whose first hit is no page that answers it."""
    queries = read_queries()
    print(f"{len(queries)} searches")
    return [
        f"the search for {query!r} leads to {first_hits[query] or 'nothing'}, not to {' or '.join(pages)}"
        for query, pages in queries.items()
        if not any(f"{first_hits[query]}#".startswith(f"{page}#") for page in pages)
    ]
