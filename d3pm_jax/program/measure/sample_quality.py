"""Measures the quality of samples of a run against its training split, by the figures of its kind of data.

A protocol describes how figures were measured. Each protocol has a file in the folder of the run.
"""

import dataclasses
import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from d3pm_jax.config import (
    AnyPath,
    Count,
    Seed,
    check_fields,
    check_instance,
    checks_arguments,
    describe_sampler,
)
from d3pm_jax.errors import UserError
from d3pm_jax.files import hash_arrays
from d3pm_jax.keys import make_key
from d3pm_jax.kinds import SHIPPED, Measured, QualityTable, Reference, image
from d3pm_jax.program.measure import record, samples
from d3pm_jax.program.parts.build import Parts, describe_conditions
from d3pm_jax.program.parts.draw import Draw
from d3pm_jax.program.parts.reading import open_whole
from d3pm_jax.program.parts.recipe import require
from d3pm_jax.program.storage import names

CALLS = "calls_per_sample"  # the figure of samples of a sampler


@dataclasses.dataclass(frozen=True)
class Protocol:
    """Describes all that a figure of sample quality depends on."""

    N: int  # samples
    split: str  # of the data, which they are compared with
    reference: str  # its number of examples and their hash
    features: str  # in which they are compared, and the hash of their weights
    step: int  # of the checkpoint
    steps: int  # of the reverse chain
    grid: str  # which steps of the process these are
    sampler: str  # how a step is taken
    classes: str  # of the samples, where the network takes labels
    ema: float  # decay of the averaged weights
    belief: str  # what the logits are
    dtype: str  # of the network
    seed: int  # of the noise
    conditions: str = "none"  # of the samples, where the network takes them


class SampleQuality(NamedTuple):
    """Holds the figures of samples with their protocol, and the samples themselves."""

    record: record.Record  # "figures" of "samples", and for comparison of other examples, by their name
    samples: np.ndarray  # int32 [N, *S]
    measured: Measured

    @property
    def figures(self) -> dict[str, dict[str, Any]]:
        """Returns rows of figures by what was compared with the reference, "samples" first."""
        return self.record["figures"]

    @property
    def nearest(self) -> np.ndarray | None:
        """Returns the training example nearest to each sample, where these are known."""
        return self.measured.nearest


@checks_arguments
def prepare_reference(
    parts: Parts, workdir: Path, num: Count, batch_size: Count = 128, inception: AnyPath | None = None
) -> Reference:
    """Prepares the comparison of samples with the training split, and measures what they compete with.

    Args:
        parts: of the run.
        workdir: its folder.
        num: how many samples.
        batch_size: examples at a time.
        inception: a file of weights of Inception, in whose features images are compared; without, these are
            those of a classifier of the data.

    Raises:
        UserError: there are too few samples or examples, or no way to measure such data.
    """
    parts.kind.check_quality(num, inception)
    test = open_whole(parts, workdir, "test")
    train = open_whole(parts, workdir, "train")
    reference = parts.kind.prepare_quality(train, test, num, batch_size, inception)
    for name, row in reference.figures.items():
        if "n" not in row:
            kind = type(parts.kind).__name__
            raise UserError(f"the figures of {name!r} by {kind}.prepare_quality have no 'n': add how many")
    return reference


@checks_arguments
def measure_quality(
    parts: Parts,
    reference: Reference,
    num: Count,
    draw: Draw = Draw(),
    seed: Seed = 0,
    batch_size: Count = 128,
    progress: Callable[[int], Any] = lambda done: None,
) -> SampleQuality:
    """Draws samples and compares them with the training split.

    Args:
        parts: of the run.
        reference: of `prepare_reference`, for the same data and number.
        num: how many samples.
        draw: by which sampler; where the network takes conditions, with those of test examples and their
            labels, of `samples.choose_inputs`.
        seed: of their noise.
        batch_size: samples at a time.
        progress: is called with the number of samples that are done.

    Raises:
        UserError: the sampler is not for this run, or samples have categories that the data has not, or
            features that are not finite.
    """
    check_instance("reference", reference, Reference, "pass what run.prepare_quality(num) returns")
    sampler = samples.choose_sampler_of(parts, draw.sampler)
    drawn = samples.draw_samples(parts, make_key(seed), num, draw, batch_size=batch_size, progress=progress)
    x = drawn.x0
    # The kind of the data knows no other categories than those of the data. A sample with the mask in it
    # would be compared as if it were a level of grey or a symbol.
    categories = parts.description.categories
    if x.max() >= categories:
        raise UserError(
            f"a sample holds {x.max()}, but the data has {categories} categories: train with "
            f"process.K = {categories}, or an extra mask that the head forbids"
        )
    measured = reference.measure(x)
    figures = measured.figures
    sampler_name = require(parts.recipe.draw, "samples", parts.config).name
    if sampler is not None:
        sampler_name = describe_sampler(sampler)
        figures = {**figures, CALLS: float(np.mean(drawn.calls))}
    classes = "none"
    if draw.label is not None:
        classes = "those of the conditions"
    elif parts.recipe.classes is not None:
        classes = f"sample i is of class i modulo {parts.recipe.classes}"
    conditions = "none"
    if draw.condition is not None:
        digest = hash_arrays(draw.condition)
        conditions = f"sample i has that of test example i modulo {len(draw.condition)}, sha256 {digest}"
    if draw.padding is not None:
        conditions = f"sample i is padded as test example i modulo {len(draw.padding)}"
    protocol = Protocol(
        N=num,
        split=getattr(parts.config.data, "train_split", "train"),
        reference=reference.compared,
        features=reference.features,
        sampler=sampler_name,
        classes=classes,
        conditions=conditions,
        seed=seed,
        **describe_conditions(parts),
    )
    rows = {"samples": figures, **reference.figures}
    return SampleQuality(make_record(rows, protocol, parts.kind.name), x, measured)


def make_record(rows: Mapping[str, Mapping[str, Any]], protocol: Protocol, kind: str) -> record.Record:
    """Makes the record of figures of samples.

    Args:
        rows: of figures, by what was compared with the reference, "samples" first.
        protocol: that they were measured by.
        kind: the name of the kind of the data.
    """
    return record.Record(QUALITY, {"kind": kind, "protocol": dataclasses.asdict(protocol), "figures": rows})


@checks_arguments
def write_quality(quality: record.AnyRecord, workdir: AnyPath) -> Path:
    """Writes figures to the file of their protocol in the folder of a run, and returns its path.

    The name of the file has the sizes of the protocol, and a hash of all of it.
    """
    protocol = quality.protocol
    digest = hashlib.sha256(json.dumps(protocol, sort_keys=True).encode()).hexdigest()[:8]
    # A flow draws samples without steps.
    steps = ""
    if protocol["steps"]:
        steps = f"_steps{protocol['steps']}"
    suffix = f"_n{protocol['N']}{steps}_seed{protocol['seed']}_{digest}"
    path, _ = record.write_record(quality, Path(workdir), suffix)
    return path


@checks_arguments
def read_quality(workdirs: Sequence[AnyPath]) -> list[record.Record]:
    """Reads all figures of sample quality of runs.

    Raises:
        UserError: a file of them is damaged.
    """
    return [quality for workdir in workdirs for quality in record.read_records(Path(workdir), QUALITY)]


def _check_quality(quality: record.Record) -> None:
    """Raises where the protocol lacks an entry, or a row lacks a figure that the table of its kind shows."""
    check_fields("protocol", Protocol(**quality["protocol"]))
    shipped = _shipped_table(quality)
    rows = quality["figures"]
    # There is always a row "samples".
    for row in (rows["samples"], *rows.values()):
        if shipped is None:
            names = _number_names(row)
        else:
            names = list(shipped.columns)
        record.check_numbers(row[name] for name in names)
        if type(row["n"]) is not int:
            raise ValueError("a figure is no number")


QUALITY = record.Format(
    name=names.QUALITY,
    compared=("N", "split", "reference", "features"),
    replaced=(),
    damaged="{path} is damaged ({why}): delete it and measure again",
    check=_check_quality,
)


def find_table(quality: record.Record, user_table: QualityTable | None = None) -> QualityTable:
    """Returns the table that shows figures: that of the shipped kind of their data, or a user's.

    Args:
        quality: figures of samples.
        user_table: of a user's kind; without it a table of all numbers by their names.
    """
    shipped = _shipped_table(quality)
    if shipped is not None:
        return shipped
    if user_table is not None:
        return user_table
    columns = {name: name for name in _number_names(quality["figures"]["samples"])}
    return QualityTable(columns, (), ("n", "n"), "")


def _shipped_table(quality: record.Record) -> QualityTable | None:
    """Returns the table of the shipped kind that figures are of; None for a user's kind."""
    tables = {cls.name: cls.quality for cls in SHIPPED}
    return tables.get(quality["kind"])


def _number_names(row: Mapping[str, Any]) -> list[str]:
    """Returns the names of the figures of a row that are numbers, but for n."""
    return [name for name, value in row.items() if name != "n" and not isinstance(value, str | list | dict)]


@checks_arguments
def format_quality(results: Sequence[record.AnyRecord], user_table: QualityTable | None = None) -> list[str]:
    """Writes figures side by side as lines of text, one for each file, and marks those that do not compare.

    What the samples compete with, such as the test split, is listed once for each reference.

    Args:
        results: figures of samples, of `read_quality`.
        user_table: of a user's kind of data, see `find_table`.
    """
    check_instance("user_table", user_table, QualityTable | None, "pass the kinds.QualityTable of a kind")
    columns = image.QUALITY.columns
    if results:
        columns = find_table(results[0], user_table).columns
    titles = "  ".join(f"{title:>7}" for title in columns.values())
    lines = [f"{'':<44} {'N':>6} {'steps':>5} {titles}"]
    references: list[record.Record] = []  # the first result of each reference
    for result in results:
        head = "-"  # of what was measured just now
        if result.path is not None:
            head = f"{result.path.parent.name}/{result.path.stem}"
        line = _format_line(head, result, "samples", columns)
        calls = result["figures"]["samples"].get(CALLS)
        if calls is not None:
            line += f"  {calls:.4g} calls, {result.protocol['sampler']}"
        differences = record.list_incomparable(results[0], result)
        if differences:
            line += f"  NOT COMPARABLE with the first line: other {', '.join(differences)}"
        lines.append(line)

        if all(record.list_incomparable(reference, result) for reference in references):
            references.append(result)
            for name in result["figures"]:
                if name != "samples":
                    lines.append(_format_line(f"  {name}", result, name, columns))
    return lines


def _format_line(head: str, result: record.Record, name: str, title_by_key: Mapping[str, str]) -> str:
    """Formats a row of a result behind its head, to stand below the titles of the columns."""
    row = result["figures"][name]
    n = row["n"]
    steps = ""
    if name == "samples":
        steps = result.protocol["steps"] or "-"
    cells = [f"{_format_cell(row, key):>{max(7, len(title))}}" for key, title in title_by_key.items()]
    mark = ""
    if n != result.protocol["N"]:
        mark = "  NOT COMPARABLE with the samples: other N"
    return f"{head:<44} {n:>6} {steps:>5} {'  '.join(cells)}{mark}"


def _format_cell(row: Mapping[str, Any], key: str) -> str:
    """Formats a figure; "-" where the row has no such figure, such as one of another kind of data."""
    if key not in row:
        return "-"
    if row[key] is None:
        return "too few"
    if isinstance(row[key], int):
        return f"{row[key]:,}"
    return f"{row[key]:.3f}"
