"""Everything that is compared, and the report of it as text."""

import platform
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
import torch

from parity_tests import networks, procedures, run
from parity_tests.compare import Row
from parity_tests.pairs import PAIRS
from parity_tests.procedures import Outcome
from parity_tests.tables import layout

DTYPES = ("float64", "float32", "bfloat16")
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
SHOWN = (1, 2, 5, 10, 20, 50)  # the steps of a drift that the text has


class Report(NamedTuple):
    """What was compared, where, and what a lower precision of matrix products cost."""

    facts: dict[str, str]
    rows: list[Row]
    outcomes: list[Outcome]
    costs: list[Row]
    matmul: str | None  # the precision that costs are of


def collect(dtypes: Sequence[str], device: Any, matmul: str | None) -> Report:
    """Every pair, network and procedure in these float types, JAX on this device.

    Networks and procedures have matrix products of the highest precision, whatever the device has by
    default; with matmul, they run with that as well. Kernels are left to themselves: they pin their own.
    """
    rows, outcomes, costs = [], [], []
    with jax.default_device(device):
        for dtype in dtypes:
            found = list(_outcomes(dtype))
            rows += [*_kernels(dtype), *(row for x in found for row in x.rows)]
            outcomes += found
        if matmul:
            found = [procedures.cost(setting, matmul) for setting in procedures.SETTINGS]
            costs = [*networks.cost(matmul), *(row for x in found for row in x.rows)]
            outcomes += found
    return Report(facts(device), rows, outcomes, costs, matmul)


def _kernels(dtype: str) -> Iterator[Row]:
    """Of the kernels and, but for bfloat16, of the networks."""
    for name in PAIRS:
        if dtype in run.dtypes(name):
            found = list(run.rows(name, dtype))
            assert found, f"{name} has no case in {dtype}"
            yield from found
    if dtype != "bfloat16":
        yield from networks.rows(dtype)


def _outcomes(dtype: str) -> Iterator[Outcome]:
    if dtype != "bfloat16":
        yield from (procedures.outcome(setting, dtype) for setting in procedures.SETTINGS)


def facts(device: Any) -> dict[str, str]:
    """Versions and machines."""
    return {
        "jax": jax.__version__,
        "torch": torch.__version__,
        "numpy": np.__version__,
        "python": platform.python_version(),
        "JAX on": device.device_kind,
        "torch on": f"cpu, {platform.machine()}",
    }


def failed(rows: Sequence[Row]) -> list[Row]:
    return [row for row in rows if not row.ok]


def summary(report: Report) -> list[str]:
    """How it went, in sentences."""
    count, bad = len(report.rows), len(failed(report.rows))
    lines = [", ".join(f"{k} {v}" for k, v in report.facts.items()), f"{count:,} comparisons, {bad} failed"]
    if report.rows:
        row = max(report.rows, key=lambda row: row.used)
        lines.append(
            f"most of a tolerance used: {row.used:.0%}, {row.pair}, {row.dtype}, {row.what}, {row.case}"
        )
    return lines + ([price(report)] if report.matmul else [])


def price(report: Report) -> str:
    """What the other precision of matrix products costs, in a sentence."""
    largest = max((row.scaled for row in report.costs), default=0.0)
    if not any(row.absolute for row in report.costs):
        return f"matmul precision {report.matmul} gives the same bits as highest on this device"
    return f"matmul precision {report.matmul} differs from highest by up to {largest:.2g} of the scale"


def text(report: Report, markdown: bool, every: bool) -> str:
    """The tables and the sentences."""
    rows = [*report.rows, *report.costs]
    table = [HEAD, *([line(row, 1) for row in rows] if every else worst(rows))]
    parts = [layout(table, markdown)]
    if report.outcomes:
        parts.append(layout(drifts(report.outcomes), markdown))
    return "\n\n".join([*parts, ("\n\n" if markdown else "\n").join(summary(report))])


def drifts(outcomes: Sequence[Outcome]) -> list[tuple[str, ...]]:
    """The largest difference of the parameters after some of the steps of training."""
    lines = [("drift in training", "comparison", *(f"step {n}" for n in SHOWN))]
    for outcome in outcomes:
        for who, y in outcome.drift.items():
            lines.append((outcome.title, who, *(f"{y[n - 1]:.2g}" if n <= len(y) else "" for n in SHOWN)))
    return lines


def worst(rows: Sequence[Row]) -> list[tuple[str, ...]]:
    """One line for each kind of comparison: the largest differences in it."""
    return [line(row, count) for row, count in kinds(rows)]


def kinds(rows: Sequence[Row]) -> Iterator[tuple[Row, int]]:
    """For each kind of comparison the worst row, with the largest differences of all, and how many it has."""
    groups: dict[tuple[str, str, str], list[Row]] = {}
    for row in rows:
        groups.setdefault((row.pair, row.dtype, row.what), []).append(row)
    pairs = list(dict.fromkeys(row.pair for row in rows))
    for some in sorted(groups.values(), key=lambda some: pairs.index(some[0].pair)):
        largest = {name: max(getattr(r, name) for r in some) for name in ("absolute", "relative", "ulp")}
        yield max(some, key=lambda row: (row.used, row.scaled))._replace(**largest), len(some)


def line(row: Row, count: int) -> tuple[str, ...]:
    """A row of the report in words."""
    numbers = (row.absolute, row.relative, row.ulp, row.scaled, row.tolerance)
    verdict = "ok" if row.ok else "FAIL"
    return (row.pair, row.dtype, row.what, str(count), *(f"{x:.2g}" for x in numbers), verdict, case(row))


def case(row: Row) -> str:
    """Where it was, and for what failed both numbers or the reason."""
    return row.case if row.ok else f"{row.case}: {row.note or row.numbers}"
