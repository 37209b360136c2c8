"""Everything that is compared, and the report of it as text."""

import platform
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import numpy as np
import torch

from parity_tests import coupling_flow, networks, procedures, run, workers
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
DRIFT_STEPS = (1, 2, 5, 10, 20, 50)  # the steps of a drift that the text has


class Report(NamedTuple):
    """The comparisons, the machine, and the cost of a lower precision of matrix products."""

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
    results = workers.compute(_parts(dtypes, matmul), device)

    rows = []
    outcomes = []
    for dtype in dtypes:
        for name in PAIRS:
            rows += results["kernel", name].get(dtype, [])
        if dtype == "bfloat16":
            continue
        for name in networks.CASES:
            rows += results["network", name, dtype]
        for setting in procedures.SETTINGS:
            outcome = results["procedure", setting, dtype]
            rows += outcome.rows
            outcomes.append(outcome)
        outcome = results["flow", dtype]
        rows += outcome.rows
        outcomes.append(outcome)

    costs = []
    if matmul:
        costs += results["cost", "networks"]
        for setting in procedures.SETTINGS:
            outcome = results["cost", setting]
            costs += outcome.rows
            outcomes.append(outcome)
    return Report(facts(device), rows, outcomes, costs, matmul)


def _parts(dtypes: Sequence[str], matmul: str | None) -> dict[tuple, Callable[[], Any]]:
    """The function that computes each part of the report.

    The longest come first: while one process finishes the last of them, the others have enough short ones.
    """
    wide = [dtype for dtype in dtypes if dtype != "bfloat16"]
    parts: dict[tuple, Callable[[], Any]] = {}
    for setting in procedures.SETTINGS:
        if matmul:
            parts["cost", setting] = partial(procedures.cost, setting, matmul)
        for dtype in wide:
            parts["procedure", setting, dtype] = partial(procedures.outcome, setting, dtype)
    for dtype in wide:
        parts["flow", dtype] = partial(coupling_flow.outcome, dtype)
    if matmul:
        parts["cost", "networks"] = partial(_list_costs, matmul)
    for name in networks.CASES:
        for dtype in wide:
            parts["network", name, dtype] = partial(_list_network_rows, name, dtype)
    for name in PAIRS:
        parts["kernel", name] = partial(_list_kernel_rows, name, dtypes)
    return parts


def _list_kernel_rows(name: str, dtypes: Sequence[str]) -> dict[str, list[Row]]:
    """The rows of one pair in each float type.

    All types are one part, because the program of float64 is also what the others are held to.
    """
    rows = {}
    for dtype in dtypes:
        if dtype in run.dtypes(name):
            rows[dtype] = list(run.rows(name, dtype))
            assert rows[dtype], f"{name} has no case in {dtype}"
    return rows


def _list_network_rows(name: str, dtype: str) -> list[Row]:
    return list(networks.rows(dtype, name))


def _list_costs(matmul: str) -> list[Row]:
    return list(networks.cost(matmul))


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
    """The rows that differ by more than their tolerance, or that could not be compared."""
    return [row for row in rows if not row.ok]


def summary(report: Report) -> list[str]:
    """How many comparisons there were and how many failed, in sentences."""
    lines = [
        ", ".join(f"{name} {fact}" for name, fact in report.facts.items()),
        f"{len(report.rows):,} comparisons, {len(failed(report.rows))} failed",
    ]
    if report.rows:
        row = max(report.rows, key=lambda row: row.used)
        lines.append(
            f"most of a tolerance used: {row.used:.0%}, {row.pair}, {row.dtype}, {row.comparison}, {row.case}"
        )
    if report.matmul:
        lines.append(describe_cost(report))
    return lines


def describe_cost(report: Report) -> str:
    """Says in a sentence by how much the other precision of matrix products differs."""
    largest = max((row.scaled for row in report.costs), default=0.0)
    if not any(row.absolute for row in report.costs):
        return f"matmul precision {report.matmul} gives the same bits as highest on this device"
    return f"matmul precision {report.matmul} differs from highest by up to {largest:.2g} of the scale"


def text(report: Report, markdown: bool, every: bool) -> str:
    """The tables and the sentences."""
    rows = [*report.rows, *report.costs]
    counted = [(row, 1) for row in rows]
    if not every:
        counted = worst_rows(rows)
    parts = [layout([HEAD, *(line(row, count) for row, count in counted)], markdown)]
    if report.outcomes:
        parts.append(layout(drifts(report.outcomes), markdown))

    # A paragraph of Markdown ends with an empty line only.
    between = "\n\n" if markdown else "\n"
    parts.append(between.join(summary(report)))
    return "\n\n".join(parts)


def drifts(outcomes: Sequence[Outcome]) -> list[tuple[str, ...]]:
    """The largest difference of the parameters after some of the steps of training."""
    lines = [("drift in training", "comparison", *(f"step {n}" for n in DRIFT_STEPS))]
    for outcome in outcomes:
        for comparison, drift in outcome.drift.items():
            cells = []
            for n in DRIFT_STEPS:
                cells.append(f"{drift[n - 1]:.2g}" if n <= len(drift) else "")
            lines.append((outcome.title, comparison, *cells))
    return lines


def worst_rows(rows: Sequence[Row]) -> Iterator[tuple[Row, int]]:
    """For each kind of comparison the worst row, with the largest differences of all, and how many it has."""
    groups: dict[tuple[str, str, str], list[Row]] = {}
    for row in rows:
        groups.setdefault((row.pair, row.dtype, row.comparison), []).append(row)
    pairs = list(dict.fromkeys(row.pair for row in rows))
    for group in sorted(groups.values(), key=lambda group: pairs.index(group[0].pair)):
        worst = max(group, key=lambda row: (row.used, row.scaled))
        worst = worst._replace(
            absolute=max(row.absolute for row in group),
            relative=max(row.relative for row in group),
            ulp=max(row.ulp for row in group),
        )
        yield worst, len(group)


def line(row: Row, count: int) -> tuple[str, ...]:
    """A row of the report in words."""
    sizes = (row.absolute, row.relative, row.ulp, row.scaled, row.tolerance)
    numbers = [f"{x:.2g}" for x in sizes]
    verdict = "ok" if row.ok else "FAIL"
    return (row.pair, row.dtype, row.comparison, str(count), *numbers, verdict, describe_case(row))


def describe_case(row: Row) -> str:
    """The name of the case; of a comparison that failed also both numbers, or the reason."""
    if row.ok:
        return row.case
    return f"{row.case}: {row.note or row.numbers}"
