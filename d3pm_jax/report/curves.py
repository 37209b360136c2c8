"""Draws curves of several runs as SVG, in colours that the style of the page decides.

They are of the metrics in training, and of the terms of bounds by t.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from d3pm_jax.measure.record import LARGE, list_incomparable
from d3pm_jax.report.folder import Reported
from d3pm_jax.show.markup import Html, join_html, note_missing, tag

COLOURS = 8  # .run-0, ..., .run-7 of the style
WIDTH, HEIGHT = 340.0, 210.0
LEFT, RIGHT, TOP, BOTTOM = 52.0, 10.0, 8.0, 38.0  # what is around the curves
POINTS = 500  # at most so many of a curve are drawn
SPREAD = 20.0  # largest over smallest value from which on an axis is logarithmic
ROUND = (1, 2, 2.5, 5, 10)  # times a power of 10, what is between two numbers on an axis
MARKED = 30  # up to so many points of a curve have a dot

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


class Curve(NamedTuple):
    """Holds what a run has to draw, x increasing."""

    run: int
    x: Sequence[float]
    y: Sequence[float | None]


class Axis(NamedTuple):
    """Holds a scale: where on the paper a number lies."""

    low: float
    high: float
    log: bool
    start: float  # of the paper
    stop: float

    def place(self, x: float) -> float:
        """Returns where x lies on the paper."""
        low, high, x = (math.log(v) if self.log else v for v in (self.low, self.high, x))
        return self.start + (x - low) / (high - low) * (self.stop - self.start)

    def ticks(self) -> list[float]:
        """Lists the round numbers on the axis, a few."""
        from matplotlib.ticker import LogLocator, MaxNLocator  # takes long

        between = (1, 2, 5) if self.log and self.high / self.low < 50 else (1,)
        locator = LogLocator(subs=between, numticks=6) if self.log else MaxNLocator(5, steps=ROUND)
        found = [float(x) for x in locator.tick_values(self.low, self.high)]
        slack = 1e-9 * (self.high - self.low)
        return [x for x in found if self.low - slack <= x <= self.high + slack]


def draw_plot(title: str, xlabel: str, curves: Sequence[Curve], log_x: bool = False) -> Html | None:
    """Returns a figure of curves; None where there is nothing to draw.

    The vertical axis is logarithmic where all values are positive and far apart.

    Args:
        title: what is drawn, with its unit.
        xlabel: of the horizontal axis.
        curves: at most one for each run.
        log_x: whether the horizontal axis is logarithmic: then what has x = 0 is left out.
    """
    shown = [(c.run, points) for c in curves if np.isfinite(points := _points(c, log_x)).all(1).any()]
    if not shown:
        return None
    everything = np.concatenate([points[np.isfinite(points[:, 1])] for _, points in shown])
    x = _axis(everything[:, 0] if log_x else np.append(everything[:, 0], 0), log_x, LEFT, WIDTH - RIGHT)
    low, high = everything[:, 1].min(), everything[:, 1].max()
    far_apart = bool(low > 1 / LARGE and high / low > SPREAD)
    y = _axis(everything[:, 1], far_apart, HEIGHT - BOTTOM, TOP)
    lines = [part for run, points in shown for part in _line(run, points, x, y)]
    # round numbers and their lines
    across, down = x.ticks(), y.ticks()
    moves = [f"M{x.place(v):.1f} {TOP:g}V{HEIGHT - BOTTOM:g}" for v in across]
    moves += [f"M{LEFT:g} {y.place(v):.1f}H{WIDTH - RIGHT:g}" for v in down]
    numbers = [tag("text", f"{v:g}", x=LEFT - 6, y=y.place(v) + 4, text_anchor="end") for v in down]
    for v in across:
        place = min(x.place(v), WIDTH - RIGHT - 3.5 * len(f"{v:g}") + 6)  # the last one stays on the paper
        numbers.append(tag("text", f"{v:g}", x=place, y=HEIGHT - BOTTOM + 16, text_anchor="middle"))
    label = tag("text", xlabel, x=(LEFT + WIDTH - RIGHT) / 2, y=HEIGHT - 4, text_anchor="middle")
    picture = tag(
        "svg",
        tag("path", d="".join(moves), class_="grid"),
        *numbers,
        label,
        *lines,
        class_="plot",
        viewBox=f"0 0 {WIDTH:g} {HEIGHT:g}",
        role="img",
        aria_label=f"{title}, by {xlabel}",
    )
    return tag("figure", tag("figcaption", title), picture)


def draw_legend(names: Sequence[str]) -> Html | None:
    """Returns which colour is which run's, where there are several."""
    lines = [tag("li", name, class_=f"run-{i}") for i, name in enumerate(names)]
    return tag("ul", *lines, class_="legend") if len(names) > 1 else None


def _points(curve: Curve, log_x: bool) -> np.ndarray:
    """Returns the points of a curve [N, 2], thinned out where there are many, y NaN where it breaks off."""
    pairs = [
        (a, math.nan if b is None or not abs(b) < LARGE else b)
        for a, b in zip(curve.x, curve.y, strict=True)
        if a < LARGE and (a > 0 or not log_x)
    ]
    points = np.asarray(pairs, float).reshape(-1, 2)
    if len(points) <= POINTS:
        return points
    even = np.linspace(0, len(points) - 1, POINTS).round().astype(int)
    return points[np.union1d(even, np.flatnonzero(np.isnan(points[:, 1])))]


def _axis(values: np.ndarray, log: bool, start: float, stop: float) -> Axis:
    low, high = float(values.min()), float(values.max())
    if low == high:
        low, high = (low / 2, high * 2) if log else (low - (abs(low) or 1) / 2, high + (abs(high) or 1) / 2)
    margin = 0.04 if start > stop else 0.0  # above and below, not beside
    if log:
        ratio = (high / low) ** margin
        return Axis(low / ratio, high * ratio, True, start, stop)
    return Axis(low - margin * (high - low), high + margin * (high - low), False, start, stop)


def _line(run: int, points: np.ndarray, x: Axis, y: Axis) -> list[Html]:
    """Draws a curve, broken off where y is NaN; up to `MARKED` points have a dot."""
    placed, path, command = [], "", "M"
    for a, b in points.tolist():
        if math.isnan(b):
            command = "M"
            continue
        placed.append((x.place(a), y.place(b)))
        path += "{}{:.1f} {:.1f}".format(command, *placed[-1])
        command = "L"
    dots = placed if len(placed) <= MARKED else []
    marks = [tag("circle", cx=a, cy=b, r=2.2, class_=f"point run-{run}") for a, b in dots]
    return [tag("path", d=path, class_=f"curve run-{run}"), *marks]


def plot_metrics(runs: Sequence[Reported]) -> Html:
    """Returns a plot for each metric, all runs in it."""
    known = {name: None for each in runs for row in each.metrics for name in row if name != "step"}
    names = [*(name for name in TITLES if name in known), *(name for name in known if name not in TITLES)]
    found = []
    for name in names:
        lines = []
        for i, each in enumerate(runs):
            rows = [row for row in each.metrics if name in row]
            lines.append(Curve(i, [row["step"] for row in rows], [row[name] for row in rows]))
        found.append(draw_plot(TITLES.get(name, name), "step", lines))
    notes = [
        note_missing(f"{each.name} has no curves, as its metrics.jsonl is empty or missing", each.resume)
        for each in runs
        if not each.metrics
    ]
    return join_html(_panels(found), *notes)


def plot_terms(runs: Sequence[Reported]) -> Html:
    """Returns the terms of the bounds by t, and their sums from t up to T."""
    single, summed, notes = [], [], []
    for i, each in enumerate(runs):
        arrays = {} if each.bound is None else each.bound.arrays["bound"]
        if not arrays.get("steps"):
            notes.append(note_missing(f"The terms of {each.name} by t are not known", each.evaluate()))
            continue
        times, steps = arrays["times"], arrays["steps"]
        single.append(Curve(i, times, steps))
        finite = np.array([np.nan if x is None else x for x in steps])
        summed.append(Curve(i, times, np.cumsum(finite[::-1])[::-1].tolist()))
        infinite = [str(t) for t, x in zip(times, steps, strict=True) if x is None]
        if infinite:  # which no curve can show
            shown = ", ".join(infinite[:LISTED])
            shown += f" and {len(infinite) - LISTED} more" if len(infinite) > LISTED else ""
            words = f"The term of {each.name} is infinite at t = {shown}, and so is the sum from every t "
            notes.append(tag("p", f"{words}up to that.", class_="soft"))
    found = [
        draw_plot("term of the bound at t [bits/dim]", "t", single),
        draw_plot("sum of the terms from t up to T [bits/dim]", "t", summed),
        draw_plot("bound with fewer steps [bits/dim]", "steps of the process", _by_steps(runs), log_x=True),
    ]
    return join_html(_panels(found), *notes)


def _by_steps(runs: Sequence[Reported]) -> list[Curve]:
    """Returns the bound by the number of steps of an even grid, where several were measured alike."""
    found = []
    for i, each in enumerate(runs):
        best: dict[int, float | None] = {}
        for bound in each.bounds if each.bound else []:
            # a bound that differs in the number of steps of an even grid alone, but for the seed
            same = bound.protocol["step"] == each.run.step and not list_incomparable(each.bounds[0], bound)
            if same and str(bound.protocol.get("grid", "even")).startswith("even"):
                steps = len(bound.arrays["bound"]["times"])
                best.setdefault(steps, bound.values["bound"]["bits_per_dim"].value)
        if len(best) > 1:
            found.append(Curve(i, sorted(best), [best[n] for n in sorted(best)]))
    return found


def _panels(found: Sequence[Html | None]) -> Html | None:
    shown = [panel for panel in found if panel is not None]
    return tag("div", *shown, class_="panels") if shown else None
