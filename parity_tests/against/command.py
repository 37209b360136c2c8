"""`python -m parity_tests --against FILE`."""

import sys
from collections.abc import Sequence
from pathlib import Path

import jax

from parity_tests.against import comparing, table
from parity_tests.against.loading import Refused, load
from parity_tests.against.signatures import CONSTRUCTORS, FUNCTIONS, SCHEDULES
from parity_tests.tables import layout

DTYPES = ("float64", "float32")


def against(path: Path, dtypes: Sequence[str], markdown: bool, every: bool) -> int:
    """Prints the table of a file; 0 if all agrees, 1 if something differs, 2 if nothing could be compared."""
    try:
        functions, notes = load(path)
    except Refused as error:
        print(error, file=sys.stderr)
        return 2
    with jax.default_device(jax.devices("cpu")[0]):
        found = [
            finding
            for name, f in functions.items()
            for dtype in dtypes
            for finding in comparing.findings(FUNCTIONS[name], f, dtype, path)
        ]
    alone = [name for name in functions if name not in {x.function for x in found}]
    made = [name for name in alone if name in (*SCHEDULES, *CONSTRUCTORS) and "float64" not in dtypes]
    if made:
        notes.append(f"{', '.join(made)}: made in float64, not compared in {', '.join(dtypes)}")
    if others := [name for name in alone if name not in made]:
        notes.append(f"{', '.join(others)}: not called, no call has all of the arguments")
    print("\n\n".join([layout(table.rows(found, every), markdown), *notes, *table.sentences(found)]))
    return 1 if table.bad(found) else 0 if any(x.size for x in found) else 2
