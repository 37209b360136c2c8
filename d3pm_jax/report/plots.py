"""Draws curves of several runs as SVG, in colours that the style of the page decides."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from d3pm_jax.measure.record import LARGE
from d3pm_jax.show.markup import Html, tag

COLOURS = 8  # .run-0, ..., .run-7 of the style
WIDTH, HEIGHT = 340.0, 210.0
LEFT, RIGHT, TOP, BOTTOM = 52.0, 10.0, 8.0, 38.0  # what is around the curves
POINTS = 500  # at most so many of a curve are drawn
SPREAD = 20.0  # largest over smallest value from which on an axis is logarithmic
ROUND = (1, 2, 2.5, 5, 10)  # times a power of 10, what is between two numbers on an axis
MARKED = 30  # up to so many points of a curve have a dot


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


def plot(title: str, xlabel: str, curves: Sequence[Curve], log_x: bool = False) -> Html | None:
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
    y = _axis(everything[:, 1], _far_apart(everything[:, 1]), HEIGHT - BOTTOM, TOP)
    lines = [part for run, points in shown for part in _line(run, points, x, y)]
    label = tag("text", xlabel, x=(LEFT + WIDTH - RIGHT) / 2, y=HEIGHT - 4, text_anchor="middle")
    picture = tag(
        "svg",
        *_grid(x, y),
        label,
        *lines,
        class_="plot",
        viewBox=f"0 0 {WIDTH:g} {HEIGHT:g}",
        role="img",
        aria_label=f"{title}, by {xlabel}",
    )
    return tag("figure", tag("figcaption", title), picture)


def legend(names: Sequence[str]) -> Html | None:
    """Returns which colour is which run's, where there are several."""
    lines = [tag("li", name, class_=colour(i)) for i, name in enumerate(names)]
    return tag("ul", *lines, class_="legend") if len(names) > 1 else None


def colour(run: int) -> str:
    """Returns the class of the style that has the colour of a run."""
    return f"run-{run}"


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


def _far_apart(values: np.ndarray) -> bool:
    return bool(values.min() > 1 / LARGE and values.max() / values.min() > SPREAD)


def _axis(values: np.ndarray, log: bool, start: float, stop: float) -> Axis:
    low, high = float(values.min()), float(values.max())
    if low == high:
        low, high = (low / 2, high * 2) if log else (low - (abs(low) or 1) / 2, high + (abs(high) or 1) / 2)
    margin = 0.04 if start > stop else 0.0  # above and below, not beside
    if log:
        ratio = (high / low) ** margin
        return Axis(low / ratio, high * ratio, True, start, stop)
    return Axis(low - margin * (high - low), high + margin * (high - low), False, start, stop)


def _grid(x: Axis, y: Axis) -> list[Html]:
    """Draws the lines of round numbers, and the numbers."""
    across, down = x.ticks(), y.ticks()
    moves = [f"M{x.place(v):.1f} {TOP:g}V{HEIGHT - BOTTOM:g}" for v in across]
    moves += [f"M{LEFT:g} {y.place(v):.1f}H{WIDTH - RIGHT:g}" for v in down]
    numbers = [tag("text", f"{v:g}", x=LEFT - 6, y=y.place(v) + 4, text_anchor="end") for v in down]
    for v in across:
        place = min(x.place(v), WIDTH - RIGHT - 3.5 * len(f"{v:g}") + 6)  # the last one stays on the paper
        text = tag("text", f"{v:g}", x=place, y=HEIGHT - BOTTOM + 16, text_anchor="middle")
        numbers.append(text)
    return [tag("path", d="".join(moves), class_="grid"), *numbers]


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
    kind = colour(run)
    dots = placed if len(placed) <= MARKED else []
    marks = [tag("circle", cx=a, cy=b, r=2.2, class_=f"point {kind}") for a, b in dots]
    return [tag("path", d=path, class_=f"curve {kind}"), *marks]
