"""Shows how the metrics of runs went in training, and the terms of their bounds by t."""

from collections.abc import Iterator, Sequence

import numpy as np

from d3pm_jax.measure.record import Record, comparable
from d3pm_jax.report.folder import Reported
from d3pm_jax.report.plots import Curve, plot
from d3pm_jax.show.markup import (
    Html,
    join,
    missing,
    tag,
)

LISTED = 5  # infinite terms, at most
TITLES = {  # of the metrics, the most telling first
    "loss": "loss [nats per element]",
    "bound_bits_per_dim": "bound on train data [bits/dim]",
    "valid_bits_per_dim": "bound on held-out data [bits/dim]",
    "kl": "KL [nats per element]",
    "ce": "cross entropy [nats per element]",
    "grad_norm": "norm of the gradient",
    "skipped": "steps skipped, as they were not finite",
    "seconds_per_step": "seconds per step",
    "examples_per_second": "examples per second",
    "waiting": "share of the time that waits for data",
    "mfu": "model FLOP utilisation",
}


def training(runs: Sequence[Reported]) -> Html:
    """Returns a plot for each metric, all runs in it."""
    known = {name: None for each in runs for row in each.metrics for name in row if name != "step"}
    names = [*(name for name in TITLES if name in known), *(name for name in known if name not in TITLES)]
    found = [plot(TITLES.get(name, name), "step", _metric(runs, name)) for name in names]
    notes = [
        missing(f"{each.name} has no curves, as its metrics.jsonl is empty or missing", each.resume)
        for each in runs
        if not each.metrics
    ]
    return join(_panels(found), *notes)


def _metric(runs: Sequence[Reported], name: str) -> list[Curve]:
    found = []
    for i, each in enumerate(runs):
        rows = [row for row in each.metrics if name in row]
        found.append(Curve(i, [row["step"] for row in rows], [row[name] for row in rows]))
    return found


def terms(runs: Sequence[Reported]) -> Html:
    """Returns the terms of the bounds by t, and their sums from t up to T."""
    single, summed, notes = [], [], []
    for i, each in enumerate(runs):
        arrays = {} if each.bound is None else each.bound.arrays["bound"]
        if not arrays.get("steps"):
            notes.append(missing(f"The terms of {each.name} by t are not known", each.evaluate()))
            continue
        times, steps = arrays["times"], arrays["steps"]
        single.append(Curve(i, times, steps))
        finite = np.array([np.nan if x is None else x for x in steps])
        summed.append(Curve(i, times, np.cumsum(finite[::-1])[::-1].tolist()))
        notes += _infinite(each.name, [t for t, x in zip(times, steps, strict=True) if x is None])
    found = [
        plot("term of the bound at t [bits/dim]", "t", single),
        plot("sum of the terms from t up to T [bits/dim]", "t", summed),
        plot("bound with fewer steps [bits/dim]", "steps of the process", _by_steps(runs), log_x=True),
    ]
    return join(_panels(found), *notes)


def _infinite(name: str, times: Sequence[int]) -> Iterator[Html]:
    """Says which terms of a bound no curve can show."""
    if times:
        shown = ", ".join(map(str, times[:LISTED]))
        shown += f" and {len(times) - LISTED} more" if len(times) > LISTED else ""
        words = f"The term of {name} is infinite at t = {shown}, and so is the sum from every t up to that."
        yield tag("p", words, class_="soft")


def _by_steps(runs: Sequence[Reported]) -> list[Curve]:
    """Returns the bound by the number of steps of an even grid, where several were measured alike."""
    found = []
    for i, each in enumerate(runs):
        best: dict[int, float | None] = {}
        for bound in each.bounds if each.bound else []:
            if _measured_as(each.bounds[0], bound):
                steps = len(bound.arrays["bound"]["times"])
                best.setdefault(steps, bound.values["bound"]["bits_per_dim"].value)
        if len(best) > 1:
            found.append(Curve(i, sorted(best), [best[n] for n in sorted(best)]))
    return found


def _measured_as(first: Record, bound: Record) -> bool:
    """Tells whether bounds differ in the number of steps of an even grid alone, but for the seed."""
    same = first.protocol["step"] == bound.protocol["step"] and not comparable(first, bound)
    return same and str(bound.protocol.get("grid", "even")).startswith("even")


def _panels(found: Sequence[Html | None]) -> Html | None:
    shown = [panel for panel in found if panel is not None]
    return tag("div", *shown, class_="panels") if shown else None
