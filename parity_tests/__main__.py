"""Print the parity report; exit with status 1 when a comparison fails."""

import argparse
import sys
from collections.abc import Iterator, Sequence
from itertools import groupby

from parity_tests import networks
from parity_tests.compare import Row
from parity_tests.pairs import PAIRS
from parity_tests.run import rows

HEAD: tuple[str, ...] = (
    "pair",
    "dtype",
    "comparison",
    "rows",
    "absolute",
    "relative",
    "ULP",
    "scaled",
    "tolerance",
    "",
    "worst",
)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m parity_tests", description=__doc__)
    parser.add_argument(
        "--dtype", choices=("float64", "float32"), action="append", help="only this float type"
    )
    parser.add_argument("--markdown", action="store_true", help="print a Markdown table")
    parser.add_argument(
        "--all", action="store_true", help="print every comparison, not the worst of each kind"
    )
    args = parser.parse_args()
    ok = True
    table = [HEAD]
    for found in _reports(args.dtype or ("float64", "float32")):
        ok = ok and all(row.ok for row in found)
        table += [line(row, 1) for row in found] if args.all else worst(found)
    print(layout(table, args.markdown))
    return 0 if ok else 1


def _reports(dtypes: Sequence[str]) -> Iterator[list[Row]]:
    """The rows of each pair in each float type, then those of the networks."""
    for name, pair in PAIRS.items():
        yield from (list(rows(name, dtype)) for dtype in dtypes if dtype in pair.dtypes)
    for dtype in dtypes:
        yield from (list(found) for _, found in groupby(networks.rows(dtype), key=lambda row: row.pair))


def worst(found: list[Row]) -> list[tuple[str, ...]]:
    """One line for each kind of comparison: the largest differences in it."""
    lines = []
    for what in dict.fromkeys(row.what for row in found):
        some = [row for row in found if row.what == what]
        row = max(some, key=lambda row: row.used)
        largest = {name: max(getattr(r, name) for r in some) for name in ("absolute", "relative", "ulp")}
        lines.append(line(row._replace(**largest), len(some)))
    return lines


def line(row: Row, count: int) -> tuple[str, ...]:
    """A row of the report in words."""
    numbers = (row.absolute, row.relative, row.ulp, row.scaled, row.tolerance)
    verdict = "ok" if row.ok else "FAIL"
    case = f"{row.case}: {row.note}" if row.note else row.case
    return (row.pair, row.dtype, row.what, str(count), *(f"{x:.2g}" for x in numbers), verdict, case)


def layout(table: list[tuple[str, ...]], markdown: bool) -> str:
    """The table in columns, or in Markdown."""
    if markdown:
        lines = [" | ".join(cells) for cells in table]
        return "\n".join([lines[0], " | ".join(["---"] * len(HEAD)), *lines[1:]])
    widths = [max(len(cells[i]) for cells in table) for i in range(len(HEAD))]
    return "\n".join("  ".join(map(str.ljust, cells, widths)).rstrip() for cells in table)


if __name__ == "__main__":
    sys.exit(main())
