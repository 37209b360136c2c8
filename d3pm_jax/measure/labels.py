"""Writes how well a classifier of noised examples tells their labels, and formats it as a table."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from d3pm_jax.evaluation.bound import format_with_error
from d3pm_jax.measure import record
from d3pm_jax.measure.bounds import COMPARED, describe_protocol
from d3pm_jax.measure.record import Record
from d3pm_jax.parts.build import Parts
from d3pm_jax.storage import names

ROWS = 11  # of a table by time, at most


def write_labels(
    parts: Parts,
    workdir: Path,
    examples: Mapping[str, np.ndarray],
    result: Mapping[str, Any],
    suffix: str = "",
) -> tuple[Path, str]:
    """Writes the figures of a classifier on examples to the folder of its run.

    Args:
        parts: of the run.
        workdir: of the run.
        examples: that they were computed on.
        result: of `measure.bounds.compute_bound`.
        suffix: of the name of the file, of `record.file_suffix`.

    Returns:
        The path of the file, and words about the figures that it replaces, see `record.write_record`.
    """
    protocol = describe_protocol(parts, examples, result["seed"], result.get("calls"))
    path = workdir / f"{names.ACCURACY}{suffix}.json"
    return path, record.write_record(path, LABELS, result, protocol)


def format_labels(result: Mapping[str, Any]) -> list[str]:
    """Formats the figures of a classifier at some times as lines of a table."""
    lines = ["    t  cross entropy  accuracy"]
    times = result["times"]
    chosen = np.unique(np.linspace(0, len(times) - 1, min(len(times), ROWS)).round().astype(int))
    for i in chosen.tolist():
        nats = result["cross_entropy_by_step"][i]
        accuracy = result["accuracy_by_step"][i]
        lines.append(f"{times[i]:5d}  {nats:8.3f} nats  {accuracy:8.3f}")
    return lines


def format_accuracy(result: Mapping[str, Any]) -> str:
    """Formats the means over all times of a classifier as a line."""
    accuracy = format_with_error(result["accuracy"], result["accuracy_standard_error"], 3)
    nats = format_with_error(result["cross_entropy"], result["cross_entropy_standard_error"], 3)
    return f"{accuracy}, cross entropy: {nats} nats, over t = 0..{result['times'][-1]}"


def _from_keys(content: dict[str, Any]) -> tuple[Any, ...]:
    """Returns the protocol, the values and the arrays of the figures from the keys of their file."""
    protocol = {
        "N": content["examples"],
        "step": content["step"],
        "seed": content["seed"],
        "calls": content.get("calls"),
    }
    return protocol, {"labels": record.take_figures(content)}, {"labels": record.take_arrays(content)}


def _check_labels(labels: Record) -> None:
    """Raises where a step or how many examples are missing, or a figure is no number."""
    if type(labels.protocol["step"]) is not int or type(labels.protocol["N"]) is not int:
        raise ValueError("it names no step, or not how many examples")
    figures = labels.values["labels"]
    record.check_numbers(figures[name].value for name in ("cross_entropy", "accuracy"))


LABELS = record.Format(
    COMPARED,
    ("step", "examples"),
    _from_keys,
    "{path} is damaged ({why}): delete it, `d3pm eval` writes it again",
    _check_labels,
)
