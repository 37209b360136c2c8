"""Draws curves as PNG files: metrics, the terms of bounds, and what forward processes do to one element."""

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from d3pm_jax.evaluation.process_effect import compute_effect, cross_entropy_weight, spread_categories
from d3pm_jax.files import replacing
from d3pm_jax.processes import Process, check_same_for_all

TERM = "term of the bound\n[bits/dim]"
SUM = "sum from t to T\n[bits/dim]"
WEIGHT = "weight in the bound\n[nats per nat of CE]"
SHOWN = 100  # steps of a process in a picture, at most
Numbers = Sequence[Any] | np.ndarray
Line = tuple[Numbers, Mapping[str, Numbers]]  # the x of a line, and its y in each panel


def save_curves(
    path: Path,
    x: Numbers,
    curves: Mapping[str, Numbers],
    xlabel: str,
    log: Collection[str] = (),
    caption: str = "",
) -> None:
    """Writes one panel per curve below a caption, on one horizontal axis; curves in log have a log scale."""
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
    # Matplotlib is imported where it draws: it takes long, and most commands draw nothing.
    from matplotlib.figure import Figure

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

    entries = len(lines) if any(lines) else 0  # of the legend, which a single line without a name lacks
    figure = Figure(figsize=(8, 2.6 * len(panels) + 0.25 * entries), layout="constrained")
    axes = figure.subplots(len(panels), 1, sharex=True, squeeze=False)[:, 0]
    for axis, panel in zip(axes, panels, strict=True):
        for x, curves in lines.values():
            marker = "." if len(x) < 40 else None
            axis.plot(x, curves[panel], marker=marker)
        axis.set_ylabel(escape_text(panel))
        if panel in log:
            axis.set_yscale("log")
        axis.grid(alpha=0.3)
    axes[-1].set_xlabel(escape_text(xlabel))
    figure.suptitle(escape_text(caption))
    if entries:
        figure.legend(axes[0].get_lines(), list(map(escape_text, lines)), loc="outside lower center")
    save_figure(path, figure)


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
    lines: dict[str, Line] = {}
    for name, bound in bounds.items():
        if "steps" not in bound or "times" not in bound:
            raise ValueError(
                f"bound {name!r} has {sorted(bound)}, not steps and times: evaluate it without --calls, "
                "which estimates only the sum"
            )
        times = np.asarray(bound["times"], np.float64)  # [n]
        steps = np.asarray(bound["steps"], np.float64)
        if steps.ndim != 1 or not len(steps) or times.shape != steps.shape:
            raise ValueError(
                f"bound {name!r} has steps of shape {steps.shape} and times of shape {times.shape}: "
                f"give at least one term, and the t of each"
            )
        # Of processes with different numbers of steps the sums compare, and the terms do not.
        lines[name] = times, {TERM: steps, SUM: np.cumsum(steps[::-1])[::-1]}
    _save_over_t(path, lines, caption=caption)


def save_certificate(path: Path, certificate: Mapping[str, Any], caption: str = "") -> None:
    """Writes the rows of a certificate as points with standard errors, and beside them their differences.

    Args:
        path: of the PNG file.
        certificate: what `certificate.json` holds or `runs.Run.certify` returns.
        caption: a line of text above.
    """
    from matplotlib.figure import Figure

    rows = certificate["rows"]
    figure = Figure(figsize=(10, 1.6 + 0.35 * len(rows)), layout="constrained")
    left, right = figure.subplots(1, 2, sharey=True)
    reference = certificate["reference"]
    panels = (
        (left, "bits_per_dim", "standard_error", "bits/dim"),
        (right, "difference", "difference_error", f"nats per example above\n{reference}, paired"),
    )
    for axis, key, error_key, label in panels:
        # None, which stands for infinity in a file, is NaN here, and is not drawn.
        values = np.array([x[key] for x in rows], np.float64)
        errors = np.array([x[error_key] for x in rows], np.float64)
        values[~np.isfinite(values)] = np.nan
        axis.errorbar(values, np.arange(len(rows)), xerr=errors, fmt="o", capsize=3)
        axis.set_xlabel(escape_text(label))
        axis.grid(alpha=0.3)
    left.set_yticks(np.arange(len(rows)), [escape_text(row["name"]) for row in rows])
    left.invert_yaxis()
    figure.suptitle(escape_text(caption))
    save_figure(path, figure)


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
    levels = levels or {}
    unknown = sorted(levels.keys() - processes.keys())
    if unknown:
        raise ValueError(
            f"levels of {unknown}, which is not one of the processes: name one of {sorted(processes)}"
        )

    lines: dict[str, Line] = {}
    for name, process in processes.items():
        check_same_for_all(process, "save_schedules draws")
        x0 = spread_categories(process.K, levels.get(name, process.K))

        # Most happens at small t, so that half of the steps are spaced by ratio and half of them evenly.
        even = np.linspace(1, process.T, SHOWN // 2)
        by_ratio = np.geomspace(1, process.T, SHOWN // 2)
        ts = sorted({round(t) for t in [*by_ratio, *even]})

        # The weight at t compares the effect there with that at t - 1.
        before = {t - 1 for t in ts}
        effects = {t: compute_effect(process, x0, t) for t in sorted(before.union(ts))}
        panels = {
            "x_t is still x_0\n[probability]": [effects[t].unchanged for t in ts],
            "information left\nI(x_t; x_0) / H(x_0)": [1 - effects[t].lost for t in ts],
            WEIGHT: [cross_entropy_weight(effects[t - 1], effects[t]) for t in ts],
        }
        lines[name] = ts, panels
    _save_over_t(path, lines, (WEIGHT,), caption)


def _save_over_t(path: Path, lines: Mapping[str, Line], log: Collection[str] = (), caption: str = "") -> None:
    """Writes lines over t, each of which ends at its T, as `save_lines` does; over t / T where T differs."""
    label = "t"
    if len({x[-1] for x, _ in lines.values()}) > 1:
        label = "t / T"
        lines = {name: (np.divide(x, x[-1]), panels) for name, (x, panels) in lines.items()}
    save_lines(path, lines, label, log, caption)


def escape_text(text: str) -> str:
    """Escapes text for Matplotlib, so that "$" begins no formula; what cannot be encoded is "?"."""
    return text.replace("$", r"\$").encode("utf-8", "replace").decode()


def save_figure(path: Path, figure: Any) -> None:
    """Writes a figure of Matplotlib as a PNG file."""
    with replacing(path) as partial:
        figure.savefig(partial, dpi=120, format="png")
