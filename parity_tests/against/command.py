"""`python -m parity_tests --against FILE`."""

import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import jax

from parity_tests.against import comparing, losses, samples, schedules, table
from parity_tests.against.comparing import Finding
from parity_tests.against.loading import Refused, load
from parity_tests.against.program import Program, read
from parity_tests.against.signatures import CONSTRUCTORS, FUNCTIONS, SCHEDULES
from parity_tests.tables import layout

DTYPES = ("float64", "float32")
CHECKS = {  # of a program
    "alpha": schedules.check_alpha,
    "alpha_derivative": schedules.check_derivative,
    "alpha_bar": schedules.check_alpha_bar,
    "loss": losses.check_loss,
    "sample": samples.check_sample,
}
DOUBLE_ONLY = ("alpha_bar", "sample")


def describe_assumed(program: Program) -> str:
    """Says which schedule is taken for a loss and a sampler, as the file has none."""
    name, _, formula = program.assumed.partition(" = ")
    taking = " and ".join(name for name in ("loss", "sample") if name in program.functions)
    argument = "T" if program.T else "t"
    return f"the file has no {name}: {name}({argument}) = {formula} is taken for {taking}"


def against(path: Path, dtypes: Sequence[str], markdown: bool, every: bool) -> int:
    """Prints the table of a file; 0 if all agrees, 1 if something differs, 2 if nothing could be compared."""
    try:
        module, functions, notes = load(path)
        program = read(module, functions, path)
    except Refused as error:
        print(error, file=sys.stderr)
        return 2
    if program.assumed and program.functions.keys() & {"loss", "sample"}:
        notes.append(describe_assumed(program))
    findings = []
    with jax.default_device(jax.devices("cpu")[0]):
        for name, f in functions.items():
            process = (
                program.schedule if name in ("alpha", "alpha_derivative", "alpha_bar") else program.noise
            )
            for dtype in dtypes:
                if name in FUNCTIONS:
                    findings += comparing.findings(FUNCTIONS[name], f, dtype, path)
                elif name not in DOUBLE_ONLY or dtype == "float64":
                    findings += comparing.guarded(
                        Finding(name, process, dtype, "value", ""), path, partial(CHECKS[name], program)
                    )

    compared = {finding.function for finding in findings}
    float64_only = []
    not_called = []
    for name in functions:
        if name in compared:
            continue
        if name in (*SCHEDULES, *CONSTRUCTORS, *DOUBLE_ONLY) and "float64" not in dtypes:
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
