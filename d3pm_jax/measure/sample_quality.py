"""Measures how good samples of a run are, beside its training split, as the kind of its data has it.

Each protocol, which says how figures were measured, has a file of its own in the folder of the run.
"""

import dataclasses
import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from d3pm_jax.config.checks import check_fields
from d3pm_jax.errors import UserError
from d3pm_jax.kinds import SHIPPED, Measured, QualityTable, Reference
from d3pm_jax.kinds.image import QUALITY as OF_IMAGES
from d3pm_jax.measure import record, samples
from d3pm_jax.measure.record import Record, Value
from d3pm_jax.parts.build import Parts, describe_conditions
from d3pm_jax.parts.reading import open_whole
from d3pm_jax.storage import names

COMPARED = ("N", "split", "reference", "features")  # which figures have to have in common
FILES = f"{names.QUALITY}_*.json"
KIND = "kind"  # in the protocol of a Record: which kind the data is of


@dataclasses.dataclass(frozen=True)
class Protocol:
    """Says all that a figure of sample quality depends on."""

    N: int  # samples
    split: str  # of the data, which they are compared with
    reference: str  # its number of examples and their hash
    features: str  # in which they are compared, and the hash of their weights
    step: int  # of the checkpoint
    steps: int  # of the reverse chain
    grid: str  # which steps of the process these are
    sampler: str  # how a step is taken
    classes: str  # which classes the network was told
    ema: float  # decay of the averaged weights
    belief: str  # what the logits are
    dtype: str  # of the network
    seed: int  # of the noise


class Quality(NamedTuple):
    """Holds what was measured."""

    figures: dict[str, dict[str, Any]]  # of "samples", and for comparison of other examples
    protocol: Protocol
    samples: np.ndarray  # int32 [N, *S]
    measured: Measured

    @property
    def nearest(self) -> np.ndarray | None:
        """Returns the training example nearest to each sample, where these are known."""
        return self.measured.nearest


def prepare_reference(
    parts: Parts, workdir: Path, num: int, batch_size: int = 128, inception: Path | None = None
) -> Reference:
    """Measures what samples are to be compared with, and learns the training split.

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
    test, train = open_whole(parts, workdir, "test"), open_whole(parts, workdir, "train")
    reference = parts.kind.prepare_quality(train, test, num, batch_size, inception)
    for name, row in reference.figures.items():
        if "n" not in row:
            kind = type(parts.kind).__name__
            raise UserError(f"the figures of {name!r} by {kind}.prepare_quality have no 'n': add how many")
    return reference


def measure_quality(
    parts: Parts,
    reference: Reference,
    num: int,
    seed: int = 0,
    batch_size: int = 128,
    progress: Callable[[int], Any] = lambda done: None,
) -> Quality:
    """Draws samples and compares them with the training split.

    Args:
        parts: of the run.
        reference: of `prepare`, for the same data and number.
        num: how many samples.
        seed: of their noise.
        batch_size: samples at a time.
        progress: is called with the number of samples that are done.

    Raises:
        UserError: samples have categories that the data has not, or features that are not finite.
    """
    x, _ = samples.draw_samples(parts, jax.random.key(seed), num, None, batch_size, (), progress)
    categories = parts.description.categories
    if x.max() >= categories:
        raise UserError(
            f"a sample holds {x.max()}, but the data has {categories} categories: forbid the mask, "
            f"head.forbid"
        )
    measured = reference.measure(x)
    classes = parts.classes
    protocol = Protocol(
        N=num,
        split=getattr(parts.config.data, "train_split", "train"),
        reference=reference.compared,
        features=reference.features,
        sampler="ancestral",
        classes="none" if classes is None else f"sample i is of class i modulo {classes}",
        seed=seed,
        **describe_conditions(parts),
    )
    return Quality({"samples": measured.figures, **reference.figures}, protocol, x, measured)


def list_differences(a: Protocol | Mapping[str, Any], b: Protocol | Mapping[str, Any]) -> list[str]:
    """Lists the entries by which figures of two protocols are not comparable; none where they are."""
    entries = [x if isinstance(x, Mapping) else dataclasses.asdict(x) for x in (a, b)]
    return [name for name in COMPARED if entries[0].get(name) != entries[1].get(name)]


def figures_file_name(protocol: Protocol) -> str:
    """Names the file of a protocol, by its sizes and a hash of all of it."""
    text = json.dumps(dataclasses.asdict(protocol), sort_keys=True)
    digest = hashlib.sha256(text.encode()).hexdigest()[:8]
    return f"{names.QUALITY}_n{protocol.N}_steps{protocol.steps}_seed{protocol.seed}_{digest}.json"


def write_figures(
    workdir: Path,
    figures: Mapping[str, Mapping[str, Any]],
    protocol: Protocol,
    kind: str | None = None,
) -> Path:
    """Writes figures to the file of their protocol in the folder of a run, and returns its path.

    Args:
        workdir: of the run.
        figures: by what was compared with the reference, "samples" among them.
        protocol: which they were measured by.
        kind: the name of the kind of the data.
    """
    path = workdir / figures_file_name(protocol)
    content = {"protocol": dataclasses.asdict(protocol), "figures": figures}
    record.write_record(path, QUALITY, content, None if kind is None else {KIND: kind})
    return path


def read_figures(workdirs: Sequence[Path]) -> list[Record]:
    """Reads all figures of sample quality of runs.

    Raises:
        UserError: a file of them is damaged.
    """
    paths = [path for workdir in workdirs for path in sorted(workdir.glob(FILES))]
    return [record.read_record(path, QUALITY) for path in paths]


def _from_keys(content: dict[str, Any]) -> tuple[Any, ...]:
    rows = content["figures"]
    rows = {"samples": rows["samples"], **rows}  # which come first
    values = {name: record.take_figures(row) for name, row in rows.items()}
    return dict(content["protocol"]), values, {name: record.take_arrays(row) for name, row in rows.items()}


def _check(found: Record) -> None:
    """Raises where the protocol lacks an entry, or a row a figure that tables of a shipped kind show."""
    entries = {name: value for name, value in found.protocol.items() if name != KIND}
    check_fields("protocol", Protocol(**entries))
    for row in (found.values["samples"], *found.values.values()):
        shipped = _shipped_table(found.protocol.get(KIND), row)
        columns = _numbers(row) if shipped is None else shipped.columns
        record.check_numbers(row[column].value for column in columns)
        if type(row["n"].value) is not int:
            raise ValueError("a figure is no number")


QUALITY = record.Format(
    COMPARED, (), _from_keys, "{path} is damaged ({why}): delete it and measure again", _check
)


def find_table(found: Record, own: QualityTable | None = None) -> QualityTable:
    """Returns how figures are shown: as the shipped kind has it that they are of, or as an own one.

    Args:
        found: the figures; in a file that names no kind they are of the one whose headline they have.
        own: of the kind of a run; without it figures of an own kind are called by their names.
    """
    shipped = _shipped_table(found.protocol.get(KIND), found.values["samples"])
    if shipped is not None:
        return shipped
    if own is not None:
        return own
    return QualityTable({name: name for name in _numbers(found.values["samples"])}, (), ("n", "n"), "")


def _shipped_table(name: str | None, row: Mapping[str, Value]) -> QualityTable | None:
    """Returns how the shipped kind of a row of figures shows them; None for a row of an own kind."""
    tables = {cls.name: cls.quality for cls in SHIPPED if cls.quality is not None}
    if name is not None:
        return tables.get(name)
    return next((shown for shown in tables.values() if shown.headline[0] in row), None)


def _numbers(row: Mapping[str, Value]) -> list[str]:
    return [name for name, figure in row.items() if name != "n" and not isinstance(figure.value, str)]


def format_table(found: Sequence[Record], own: QualityTable | None = None) -> list[str]:
    """Lists figures side by side, a line for each file, and says by what some are not comparable.

    What the samples are to be compared with, such as the test split, is listed once for each reference.
    """
    shown = (find_table(found[0], own) if found else OF_IMAGES).columns
    titles = "  ".join(f"{title:>7}" for title in shown.values())
    lines, firsts = [f"{'':<44} {'N':>6} {'steps':>5} {titles}"], []
    for one in found:
        lines.append(_line(f"{one.path.parent.name}/{one.path.stem}", one, "samples", shown))
        differ = record.list_incomparable(found[0], one)
        if differ:
            lines[-1] += f"  NOT COMPARABLE with the first line: other {', '.join(differ)}"
        if all(record.list_incomparable(first, one) for first in firsts):
            firsts.append(one)
            lines += [_line(f"  {name}", one, name, shown) for name in one.values if name != "samples"]
    return lines


def _line(title: str, one: Record, name: str, shown: Mapping[str, str]) -> str:
    row = one.values[name]
    n = row["n"].value
    steps = one.protocol["steps"] if name == "samples" else ""
    cells = "  ".join(f"{_cell(row.get(key)):>{max(7, len(said))}}" for key, said in shown.items())
    mark = "" if n == one.protocol["N"] else "  NOT COMPARABLE with the samples: other N"
    return f"{title:<44} {n:>6} {steps:>5} {cells}{mark}"


def _cell(figure: Value | None) -> str:
    """Returns a figure as text; "-" where it is one of other data."""
    if figure is None:
        return "-"
    if figure.value is None:
        return "too few"
    return f"{figure.value:,}" if isinstance(figure.value, int) else f"{figure.value:.3f}"


# What these functions were called before: a script may still ask `runs.protocol` for them by these names.
read = read_figures
write = write_figures
table = format_table
differing = list_differences
