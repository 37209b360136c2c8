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
    findings = []
    with jax.default_device(jax.devices("cpu")[0]):
        for name, f in functions.items():
            for dtype in dtypes:
                findings += comparing.findings(FUNCTIONS[name], f, dtype, path)

    compared = {finding.function for finding in findings}
    float64_only = []
    not_called = []
    for name in functions:
        if name in compared:
            continue
        if name in (*SCHEDULES, *CONSTRUCTORS) and "float64" not in dtypes:
            float64_only.append(name)
        else:
            not_called.append(name)
    if float64_only:
        notes.append(f"{', '.join(float64_only)}: made in float64, not compared in {', '.join(dtypes)}")
    if not_called:
        notes.append(f"{', '.join(not_called)}: not called, no call has all of the arguments")

    print("\n\n".join([layout(table.rows(findings, every), markdown), *notes, *table.sentences(findings)]))
    if table.differing(findings):
        return 1
    if any(finding.size for finding in findings):
        return 0
    return 2
