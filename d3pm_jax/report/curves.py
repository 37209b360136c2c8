"""Draws curves of several runs as SVG, in colours that the style of the page decides.

They are of the metrics in training, and of the terms of bounds by t.
"""

import itertools
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from d3pm_jax.program.measure.record import LARGE, list_incomparable
from d3pm_jax.report.folder import Reported
from d3pm_jax.show.markup import Html, join_html, note_missing, tag

COLOURS = 8  # .run-0, ..., .run-7 of the style
# The size of a plot, and what is left around its curves for numbers and labels.
WIDTH = 340.0
HEIGHT = 210.0
LEFT = 52.0
RIGHT = 10.0
TOP = 8.0
BOTTOM = 38.0
POINTS = 500  # of a curve that are drawn, at most
SPREAD = 20.0  # largest over smallest value from which on an axis is logarithmic
ROUND = (1, 2, 2.5, 5, 10)  # times a power of 10, the distances between numbers on an axis
MARKED = 30  # points that a curve may have for each of them to have a dot
LISTED = 5  # infinite terms, at most
# Titles of the metrics, the most telling first.
TITLES = {
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
    """Holds a curve of a run, x increasing; y is None where it has no finite value."""

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
        if self.log:
            share = (math.log(x) - math.log(self.low)) / (math.log(self.high) - math.log(self.low))
        else:
            share = (x - self.low) / (self.high - self.low)
        return self.start + share * (self.stop - self.start)

    def list_ticks(self) -> list[float]:
        """Lists a few round numbers on the axis."""
        # Matplotlib is imported where it is needed, as it takes long.
        from matplotlib.ticker import LogLocator, MaxNLocator

        if self.log:
            # Between two powers of 10 the powers alone would give only one or two numbers.
            multiples = (1, 2, 5) if self.high / self.low < 50 else (1,)
            locator = LogLocator(subs=multiples, numticks=6)
        else:
            locator = MaxNLocator(5, steps=ROUND)

        # Locators go beyond the ends of the axis, and may miss an end by the last bit.
        slack = 1e-9 * (self.high - self.low)
        ticks = [float(x) for x in locator.tick_values(self.low, self.high)]
        return [x for x in ticks if self.low - slack <= x <= self.high + slack]


def draw_plot(title: str, xlabel: str, curves: Sequence[Curve], log_x: bool = False) -> Html | None:
    """Draws a figure of curves; returns None where there is nothing to draw.

    The vertical axis is logarithmic where all values are positive and far apart.

    Args:
        title: what is drawn, with its unit.
        xlabel: of the horizontal axis.
        curves: at most one for each run.
        log_x: whether the horizontal axis is logarithmic: then what has x = 0 is left out.
    """
    points_by_run: list[tuple[int, np.ndarray]] = []
    for curve in curves:
        points = _select_points(curve, log_x)  # [N, 2]
        if np.isfinite(points).all(1).any():
            points_by_run.append((curve.run, points))
    if not points_by_run:
        return None

    finite = np.concatenate([points[np.isfinite(points[:, 1])] for _, points in points_by_run])  # [M, 2]
    x_values = finite[:, 0]
    y_values = finite[:, 1]
    if not log_x:
        x_values = np.append(x_values, 0)
    x_axis = _fit_axis(x_values, log_x, LEFT, WIDTH - RIGHT)
    lowest = y_values.min()
    far_apart = bool(lowest > 1 / LARGE and y_values.max() / lowest > SPREAD)
    y_axis = _fit_axis(y_values, far_apart, HEIGHT - BOTTOM, TOP)

    gridlines = ""
    x_numbers = []
    y_numbers = []
    for tick in x_axis.list_ticks():
        text = f"{tick:g}"
        gridlines += f"M{x_axis.place(tick):.1f} {TOP:g}V{HEIGHT - BOTTOM:g}"
        # The number at the right end is moved to the left, so that it stays on the paper.
        centre = min(x_axis.place(tick), WIDTH - RIGHT - 3.5 * len(text) + 6)
        x_numbers.append(tag("text", text, x=centre, y=HEIGHT - BOTTOM + 16, text_anchor="middle"))
    for tick in y_axis.list_ticks():
        gridlines += f"M{LEFT:g} {y_axis.place(tick):.1f}H{WIDTH - RIGHT:g}"
        y_numbers.append(tag("text", f"{tick:g}", x=LEFT - 6, y=y_axis.place(tick) + 4, text_anchor="end"))

    lines = [line for run, points in points_by_run for line in _draw_line(run, points, x_axis, y_axis)]
    label = tag("text", xlabel, x=(LEFT + WIDTH - RIGHT) / 2, y=HEIGHT - 4, text_anchor="middle")
    picture = tag(
        "svg",
        tag("path", d=gridlines, class_="grid"),
        *y_numbers,
        *x_numbers,
        label,
        *lines,
        class_="plot",
        viewBox=f"0 0 {WIDTH:g} {HEIGHT:g}",
        role="img",
        aria_label=f"{title}, by {xlabel}",
    )
    return tag("figure", tag("figcaption", title), picture)


def draw_legend(names: Sequence[str]) -> Html | None:
    """Draws which colour is which run's, where there are several runs."""
    if len(names) < 2:
        return None
    lines = [tag("li", name, class_=f"run-{i}") for i, name in enumerate(names)]
    return tag("ul", *lines, class_="legend")


def _select_points(curve: Curve, log_x: bool) -> np.ndarray:
    """Selects the points of a curve to draw [N, 2], at most about `POINTS`; y is NaN where it breaks off."""
    pairs = []
    for x, y in zip(curve.x, curve.y, strict=True):
        can_be_placed = x < LARGE and (x > 0 or not log_x)
        if not can_be_placed:
            continue
        if y is None or not abs(y) < LARGE:
            y = math.nan
        pairs.append((x, y))
    points = np.asarray(pairs, float).reshape(-1, 2)
    if len(points) <= POINTS:
        return points

    # All gaps stay, as a curve that is drawn across one would hide a value that is infinite.
    even = np.linspace(0, len(points) - 1, POINTS).round().astype(int)
    gaps = np.flatnonzero(np.isnan(points[:, 1]))
    return points[np.union1d(even, gaps)]


def _fit_axis(values: np.ndarray, log: bool, start: float, stop: float) -> Axis:
    """Fits an axis to values, with a margin above and below, but none beside."""
    low = float(values.min())
    high = float(values.max())
    if low == high and log:
        low = low / 2
        high = high * 2
    elif low == high:
        half = (abs(low) or 1) / 2
        low = low - half
        high = high + half

    # A vertical axis runs down the paper, from a larger coordinate to a smaller one.
    margin = 0.04 if start > stop else 0.0
    if log:
        ratio = (high / low) ** margin
        return Axis(low / ratio, high * ratio, True, start, stop)
    return Axis(low - margin * (high - low), high + margin * (high - low), False, start, stop)


def _draw_line(run: int, points: np.ndarray, x_axis: Axis, y_axis: Axis) -> list[Html]:
    """Draws a curve, broken off where y is NaN; up to `MARKED` points have a dot."""
    placed = []
    path = ""
    command = "M"  # of SVG: M moves to a point, L draws a line to it
    for x, y in points.tolist():
        if math.isnan(y):
            command = "M"
            continue
        place = x_axis.place(x), y_axis.place(y)
        placed.append(place)
        path += "{}{:.1f} {:.1f}".format(command, *place)
        command = "L"

    parts = [tag("path", d=path, class_=f"curve run-{run}")]
    if len(placed) <= MARKED:
        parts += [tag("circle", cx=x, cy=y, r=2.2, class_=f"point run-{run}") for x, y in placed]
    return parts


def plot_metrics(runs: Sequence[Reported]) -> Html:
    """Draws a plot for each metric, all runs in it."""
    logged = list_names(row for reported in runs for row in reported.metrics)
    names = [name for name in TITLES if name in logged]
    names += [name for name in logged if name not in (*TITLES, "step")]

    plots = []
    for name in names:
        curves = []
        for i, reported in enumerate(runs):
            rows = [row for row in reported.metrics if name in row]
            curves.append(Curve(i, [row["step"] for row in rows], [row[name] for row in rows]))
        plots.append(draw_plot(TITLES.get(name, name), "step", curves))

    notes = [_note_no_curves(reported) for reported in runs if not reported.metrics]
    return join_html(_place_panels(plots), *notes)


def list_names(rows: Iterable[Mapping[str, object]]) -> list[str]:
    """Lists the names that are in any of the rows, each once, in the order in which they first come."""
    # A dictionary without values is a set that keeps its order.
    return list(dict.fromkeys(itertools.chain.from_iterable(rows)))


def _note_no_curves(reported: Reported) -> Html:
    """Says that a run has no curves, and which command gives them, if one does."""
    if reported.is_imported:
        return note_missing(f"{reported.name} has no curves: its weights were imported, and not trained here")
    text = f"{reported.name} has no curves, as its metrics.jsonl is empty or missing"
    if reported.is_finished:
        return note_missing(f"{text}, and its training is finished")
    return note_missing(text, reported.resume)


def plot_terms(runs: Sequence[Reported]) -> Html:
    """Draws the terms of the bounds by t, and their sums from t up to T."""
    term_curves = []
    sum_curves = []
    notes = []
    for i, reported in enumerate(runs):
        # The bound of a flow is no sum over t.
        has_other_bound = reported.bound is not None and not reported.bound["times"]
        if has_other_bound or not reported.draws_samples:
            continue
        if reported.bound is None or not reported.bound.get("steps"):
            text = f"The terms of {reported.name} by t are not known"
            notes.append(note_missing(text, reported.evaluate()))
            continue
        times = reported.bound["times"]
        terms = reported.bound["steps"]  # a term that is infinite is None
        term_curves.append(Curve(i, times, terms))
        finite = np.array(terms, np.float64)  # [n], NaN where a term is infinite
        sum_curves.append(Curve(i, times, np.cumsum(finite[::-1])[::-1].tolist()))

        # A curve cannot show infinite terms, so a sentence says at which t they are.
        infinite = [str(t) for t, term in zip(times, terms, strict=True) if term is None]
        if infinite:
            listed = ", ".join(infinite[:LISTED])
            if len(infinite) > LISTED:
                listed += f" and {len(infinite) - LISTED} more"
            words = (
                f"The term of {reported.name} is infinite at t = {listed}, and so is the sum from every t "
            )
            notes.append(tag("p", f"{words}up to that.", class_="soft"))

    plots = [
        draw_plot("term of the bound at t [bits/dim]", "t", term_curves),
        draw_plot("sum of the terms from t up to T [bits/dim]", "t", sum_curves),
        draw_plot(
            "bound with fewer steps [bits/dim]", "steps of the process", _curves_by_steps(runs), log_x=True
        ),
    ]
    return join_html(_place_panels(plots), *notes)


def _curves_by_steps(runs: Sequence[Reported]) -> list[Curve]:
    """Returns the bound by the number of steps of an even grid, where several were measured alike.

    The steps are those of the process. A bound that is not finite is None, as it is null in its file.
    """
    curves = []
    for i, reported in enumerate(runs):
        if reported.bound is None:
            continue
        bits_by_num_steps: dict[int, float | None] = {}
        for bound in reported.bounds:
            # The bounds of a curve differ in the number of steps alone, and perhaps in the seed.
            is_of_checkpoint = bound.protocol["step"] == reported.run.step
            is_even = str(bound.protocol.get("grid", "even")).startswith("even")
            if is_of_checkpoint and is_even and not list_incomparable(reported.bounds[0], bound):
                num_steps = len(bound["times"])
                # The first bound counts, as the most complete ones come first.
                bits_by_num_steps.setdefault(num_steps, bound["bits_per_dim"])
        if len(bits_by_num_steps) > 1:
            measured = sorted(bits_by_num_steps)
            curves.append(Curve(i, measured, [bits_by_num_steps[num_steps] for num_steps in measured]))
    return curves


def _place_panels(plots: Sequence[Html | None]) -> Html | None:
    """Places plots side by side; None stands for a plot that has nothing to draw."""
    panels = [plot for plot in plots if plot is not None]
    if not panels:
        return None
    return tag("div", *panels, class_="panels")
