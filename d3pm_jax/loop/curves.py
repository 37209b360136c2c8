"""Draws the curves of a training."""

from pathlib import Path

from d3pm_jax import show
from d3pm_jax.loop import metrics

LABELS = {"bound_bits_per_dim": "bound [bits/dim]", "ce": "cross entropy [nats]", "loss": "loss [nats]"}


def save_curves(workdir: Path, process: str) -> Path | None:
    """Draws the curves of a run's metrics, and says where; None where there are no metrics.

    Args:
        workdir: of the run.
        process: the name of its process, for the caption.
    """
    rows = metrics.read(workdir)
    if not rows:
        return None
    path = workdir / "loss.png"
    curves = {label: [row[name] for row in rows] for name, label in LABELS.items()}
    caption = f"{workdir.resolve().name}: {process}"
    show.save_curves(path, [row["step"] for row in rows], curves, "step", caption=caption)
    return path
