"""Formats how well a classifier of noised examples tells their labels, and checks what a file says of it."""

import numpy as np

from d3pm_jax.measure import record
from d3pm_jax.measure.record import Record
from d3pm_jax.storage import names

ROWS = 11  # of a table by time, at most


def format_labels(result: Record) -> list[str]:
    """Formats the figures of a classifier at some times as lines of a table."""
    lines = ["    t  cross entropy  accuracy"]
    times = result["times"]
    chosen = np.unique(np.linspace(0, len(times) - 1, min(len(times), ROWS)).round().astype(int))
    for i in chosen.tolist():
        nats = result["cross_entropy_by_step"][i]
        accuracy = result["accuracy_by_step"][i]
        lines.append(f"{times[i]:5d}  {nats:8.3f} nats  {accuracy:8.3f}")
    return lines


def format_accuracy(result: Record) -> str:
    """Formats the means over all times of a classifier as a line."""
    accuracy = record.format_figure(result, "accuracy")
    cross_entropy = record.format_with_unit(result, "cross_entropy")
    return f"{accuracy}, cross entropy: {cross_entropy}, over t = 0..{result['times'][-1]}"


def _check_labels(labels: Record) -> None:
    """Raises where a step or how many examples are missing, or a figure is no number."""
    record.check_protocol(labels)
    record.check_figures(labels, ("cross_entropy", "accuracy"))


LABELS = record.Format(names.ACCURACY, record.OF_EXAMPLES, record.REPLACED, record.DAMAGED, _check_labels)
