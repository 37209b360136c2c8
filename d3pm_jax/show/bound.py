"""Draws the terms of bounds."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from d3pm_jax.show.curves import Line, save_lines

TERM = "term of the bound\n[bits/dim]"
SUM = "sum from t to T\n[bits/dim]"


def save_bound_terms(path: Path, bounds: Mapping[str, Mapping[str, Any]], caption: str = "") -> None:
    """Writes the term of the bound at every t, and the sum of those from t to T, a line for each run.

    With fewer steps a term stands for more of the process: then compare the sums.

    Args:
        path: of the PNG file.
        bounds: by the name of the run, what `eval.json` holds or `runs.Run.evaluate` returns: `steps` [n],
            the terms in bits/dim, and `times` [n], the t of each, increasing to T. A term that is infinite
            (null in a file) is left out. Where T differs all are drawn over t / T.
        caption: a line of text above.

    Raises:
        ValueError: there is no bound, or one without terms or with another number of times.
    """
    terms = {name: _terms(name, bound) for name, bound in bounds.items()}
    same = len({times[-1] for times, _ in terms.values()}) == 1
    lines: dict[str, Line] = {
        name: (times if same else times / times[-1], {TERM: steps, SUM: np.cumsum(steps[::-1])[::-1]})
        for name, (times, steps) in terms.items()
    }
    save_lines(path, lines, "t" if same else "t / T", caption=caption)


def _terms(name: str, bound: Mapping[str, Any]) -> tuple[np.ndarray, np.ndarray]:
    """Returns the times and the terms of a bound, float64 [n]."""
    if "steps" not in bound or "times" not in bound:
        raise ValueError(
            f"bound {name!r} has {sorted(bound)}, not steps and times: evaluate it without --calls, which "
            f"estimates the sum alone"
        )
    times, steps = (np.asarray(bound[x], np.float64) for x in ("times", "steps"))
    if steps.ndim != 1 or not len(steps) or times.shape != steps.shape:
        raise ValueError(
            f"bound {name!r} has steps of shape {steps.shape} and times of shape {times.shape}: "
            f"give at least one term, and the t of each"
        )
    return times, steps
