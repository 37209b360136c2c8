"""`python -m parity_tests --against FILE`."""

import sys
from collections.abc import Sequence
from pathlib import Path

from parity_tests.against import comparing, table
from parity_tests.against.loading import Refused, load
from parity_tests.against.signatures import FUNCTIONS
from parity_tests.report import layout

DTYPES = ("float64", "float32")


def against(path: Path, dtypes: Sequence[str], markdown: bool, every: bool) -> int:
    """Prints the table of a file; the exit status."""
    try:
        functions = load(path)
    except Refused as error:
        print(error, file=sys.stderr)
        return 2
    found = [
        finding
        for name, f in functions.items()
        for dtype in dtypes
        for finding in comparing.findings(FUNCTIONS[name], f, dtype, path)
    ]
    print(layout(table.rows(found, every), markdown))
    print("\n" + "\n".join(table.sentences(found)))
    return 0 if all(x.ok for x in found) else 1
