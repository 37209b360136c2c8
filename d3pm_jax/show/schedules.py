"""Draws what forward processes do to one element."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from d3pm_jax.evaluation.process_effect import categories, effect, weight
from d3pm_jax.processes import Process
from d3pm_jax.processes.base import check_elementwise
from d3pm_jax.show.curves import Line, save_lines

SHOWN = 100  # steps in the picture
WEIGHT = "weight in the bound\n[nats per nat of CE]"


def save_schedules(
    path: Path, processes: Mapping[str, Process], levels: Mapping[str, int] | None = None, caption: str = ""
) -> None:
    """Writes what processes do to one element at each t, a line for each, with uniform p(x_0).

    Three panels: how often x_t is still x_0, the part of the information I(x_t; x_0) that is left, and the
    weight of the cross entropy in the bound. Where T differs all are drawn over t / T.

    Args:
        path: of the PNG file.
        processes: by name.
        levels: by the same name, how many categories the data has, 0..levels - 1, where that is less than K:
            with an extra mask.
        caption: a line of text above.

    Raises:
        ValueError: there is no process, one goes by the position of its elements, or levels are of no process
            or not in 2..K.
    """
    levels = {} if levels is None else levels
    unknown = sorted(levels.keys() - processes.keys())
    if unknown:
        raise ValueError(f"levels of {unknown}, which is no process: name those of {sorted(processes)}")
    same = len({process.T for process in processes.values()}) == 1
    lines = {
        name: _line(process, levels.get(name, process.K), 1 if same else process.T)
        for name, process in processes.items()
    }
    save_lines(path, lines, "t" if same else "t / T", (WEIGHT,), caption)


def _line(process: Process, levels: int, unit: int) -> Line:
    """Returns t in a unit, and what is drawn over it."""
    check_elementwise(process, "save_schedules draws")
    x0, half = categories(process.K, levels), SHOWN // 2
    shown = (*np.geomspace(1, process.T, half), *np.linspace(1, process.T, half))  # early steps matter most
    ts = sorted({round(t) for t in shown})
    at = {t: effect(process, x0, t) for t in sorted({s for t in ts for s in (t - 1, t)})}
    return np.array(ts) / unit, {
        "x_t is still x_0\n[probability]": [at[t].kept for t in ts],
        "information left\nI(x_t; x_0) / H(x_0)": [1 - at[t].lost for t in ts],
        WEIGHT: [weight(at[t - 1], at[t]) for t in ts],
    }
