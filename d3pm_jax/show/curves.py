"""Draws curves as PNG files."""

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from d3pm_jax.show.figures import plain, save_figure

Numbers = Sequence[Any] | np.ndarray
Line = tuple[Numbers, Mapping[str, Numbers]]  # x, and y in each panel


def save_curves(
    path: Path,
    x: Numbers,
    curves: Mapping[str, Numbers],
    xlabel: str,
    log: Collection[str] = (),
    caption: str = "",
) -> None:
    """Writes one panel per curve below a caption, on one horizontal axis; those in log are logarithmic."""
    save_lines(path, {"": (x, curves)}, xlabel, log, caption)


def save_lines(
    path: Path, lines: Mapping[str, Line], xlabel: str, log: Collection[str] = (), caption: str = ""
) -> None:
    """Writes the panels of `save_curves` with several lines in each, and a legend of their names.

    Args:
        path: of the PNG file.
        lines: by name ("" for none), x and the curves over it; the first one says which panels there are.
        xlabel: what x is.
        log: the panels that are logarithmic.
        caption: a line of text above all.

    Raises:
        ValueError: there is no line, or one has other panels, or curves of another length than its x.
    """
    from matplotlib.figure import Figure  # takes long

    panels = _panels(lines)
    legend = len(lines) if any(lines) else 0
    figure = Figure(figsize=(8, 2.6 * len(panels) + 0.25 * legend), layout="constrained")
    axes = figure.subplots(len(panels), 1, sharex=True, squeeze=False)[:, 0]
    for axis, panel in zip(axes, panels, strict=True):
        for x, curves in lines.values():
            axis.plot(x, curves[panel], marker="." if len(x) < 40 else None)
        axis.set_ylabel(plain(panel))
        if panel in log:
            axis.set_yscale("log")
        axis.grid(alpha=0.3)
    axes[-1].set_xlabel(plain(xlabel))
    figure.suptitle(plain(caption))
    if legend:
        figure.legend(axes[0].get_lines(), list(map(plain, lines)), loc="outside lower center")
    save_figure(path, figure)


def _panels(lines: Mapping[str, Line]) -> list[str]:
    """Returns the names of the panels; raises ValueError where lines do not fit them."""
    if not lines:
        raise ValueError("lines = {}, there is nothing to draw: pass at least one, by its name")
    panels = list(next(iter(lines.values()))[1])
    for name, (x, curves) in lines.items():
        lengths = {panel: len(y) for panel, y in curves.items()}
        if lengths != dict.fromkeys(panels, len(x)):
            raise ValueError(
                f"{name or 'x'} has {len(x)} points and curves of {lengths}: "
                f"give each of {panels} a number for each point"
            )
    return panels
