"""Draws curves as PNG files."""

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from d3pm_jax.files import replacing


def save_curves(
    path: Path,
    x: Sequence[Any],
    curves: Mapping[str, Sequence[Any] | np.ndarray],
    xlabel: str,
    log: Collection[str] = (),
    caption: str = "",
) -> None:
    """Writes one panel per curve below a caption, on one horizontal axis; those in log are logarithmic."""
    from matplotlib.figure import Figure  # takes long

    figure = Figure(figsize=(8, 2.6 * len(curves)), layout="constrained")
    axes = figure.subplots(len(curves), 1, sharex=True, squeeze=False)[:, 0]
    for axis, (name, y) in zip(axes, curves.items(), strict=True):
        axis.plot(x, y, marker="." if len(x) < 40 else None)
        axis.set_ylabel(name)
        if name in log:
            axis.set_yscale("log")
        axis.grid(alpha=0.3)
    axes[-1].set_xlabel(xlabel)
    figure.suptitle(caption)
    with replacing(path) as partial:
        figure.savefig(partial, dpi=120, format="png")
