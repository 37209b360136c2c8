"""Defines the record of a measurement: its figures, and the protocol that they were measured by."""

import contextlib
import json
import math
import re
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, NamedTuple

from d3pm_jax.config import Allowed, checks_arguments
from d3pm_jax.errors import UserError, one_line
from d3pm_jax.evaluation.bound import format_with_error
from d3pm_jax.files import read_json, write_text

LARGE = 1e100  # no figure is as large

# Default values of options, which the names of files leave out. All other options have the default None.
DEFAULTS = {"grid": "even", "seed": 0}


class Figure(NamedTuple):
    """Says how a figure is written, and where its standard error stands."""

    unit: str
    decimals: int
    error: str  # the key of its standard error


# The figures that have a standard error, by their keys in a result.
FIGURES = {
    "bits_per_dim": Figure("bits/dim", 3, "standard_error"),
    "elbo_bits_per_dim": Figure("bits/dim", 3, "elbo_standard_error"),
    "nats": Figure("nats", 2, "nats_standard_error"),
    "difference": Figure("nats", 3, "difference_error"),
    "cross_entropy": Figure("nats", 3, "cross_entropy_standard_error"),
    "accuracy": Figure("", 3, "accuracy_standard_error"),
}


class Format(NamedTuple):
    """Defines how results of one sort are stored in files, and which of them can be compared.

    The defaults are those of figures of examples.
    """

    name: str  # what the names of the files begin with
    check: Callable[["Record"], None]  # raises ValueError, TypeError, LookupError or AttributeError
    compared: tuple[str, ...] = ("N", "examples", "inputs")
    """entries of the protocol that comparable figures have in common"""
    replaced: tuple[str, ...] = ("step", "examples")
    """keys that a message names of a file whose place a new one takes"""
    damaged: str = "{path} is damaged ({why}): delete it, `d3pm eval` writes it again"
    """the message about a damaged file"""


class Record(dict[str, Any]):
    """Holds one measured result: its figures by name, and the protocol that they were measured by.

        record["bits_per_dim"], record.protocol["seed"]

    These keys are what its file holds, where a number that is not finite is null, and read as None. What `|`
    and `copy` return has no protocol to ask for: it is a plain dict of the keys.
    """

    def __init__(self, file_format: Format, content: Mapping[str, Any], path: Path | None = None) -> None:
        """Makes the record of a result from its keys.

        Args:
            file_format: of results of its sort.
            content: its keys: the figures, and "protocol".
            path: of the file that it was read from; None where it was measured just now.
        """
        super().__init__(content)
        self.format = file_format
        self.path = path

    @property
    def file(self) -> Path:
        """Returns the file that it was read from. Raises ValueError for one that was measured just now."""
        if self.path is None:
            raise ValueError("the record was not read from a file: write it, and read it back")
        return self.path

    @property
    def protocol(self) -> Mapping[str, Any]:
        """Returns all that the figures depend on; of drawn samples, which have no figures, all keys."""
        return self.get("protocol", self)


AnyRecord = Annotated[
    Any, Allowed("a Record, as run.evaluate() returns", lambda value: isinstance(value, Record))
]


@checks_arguments
def list_incomparable(a: AnyRecord, b: AnyRecord) -> list[str]:
    """Lists the entries of the protocols by which two results cannot be compared; empty where they can.

    For results of two sorts it is "format" alone: an exact likelihood, whose order is fixed, is that of
    another model than the bound.
    """
    if a.format.name != b.format.name:
        return ["format"]
    return [name for name in a.format.compared if a.protocol.get(name) != b.protocol.get(name)]


def read_record(path: Path, file_format: Format) -> Record:
    """Reads a result.

    Raises:
        UserError: the file is damaged.
    """
    try:
        result = Record(file_format, read_json(path), path)
        file_format.check(result)
    except (ValueError, TypeError, LookupError, AttributeError) as error:
        raise damaged_error(path, file_format, error) from error
    return result


def read_records(workdir: Path, file_format: Format) -> list[Record]:
    """Reads all results of one sort in the folder of a run.

    Raises:
        UserError: a file is damaged.
    """
    name = re.compile(rf"{file_format.name}(_.*)?\.json")
    paths = [path for path in sorted(workdir.glob("*.json")) if name.fullmatch(path.name)]
    return [read_record(path, file_format) for path in paths]


def damaged_error(path: Path, file_format: Format, error: Exception) -> UserError:
    """Makes the error that names a damaged file, and what to do about it."""
    return UserError(file_format.damaged.format(path=path, why=one_line(error)))


def write_record(result: Record, workdir: Path, suffix: str = "") -> tuple[Path, str]:
    """Writes a result to the folder of a run as JSON, with null for numbers that are not finite.

    Args:
        result: to write.
        workdir: of the run.
        suffix: of the name of the file, of `file_suffix`.

    Returns:
        The path of the file, and words about the result that it replaces, if that was of something else:
        ", replaces that of step 1600".
    """
    path = workdir / f"{result.format.name}{suffix}.json"
    # The file that is replaced is read first. It may be missing or damaged, which is no error here.
    earlier: dict[str, Any] = {}
    with contextlib.suppress(OSError, ValueError, TypeError):
        earlier = dict(read_json(path))

    # JSON has no infinite numbers and no NaN. Writing and reading the keys turns them into None.
    finite = json.loads(json.dumps(result), parse_constant=lambda name: None)
    write_text(path, json.dumps(finite, indent=1, allow_nan=False))

    named_keys = [name for name in result.format.replaced if name in earlier]
    differences = [f"{name} {earlier[name]}" for name in named_keys if earlier[name] != finite.get(name)]
    if not differences:
        return path, ""
    return path, f", replaces that of {', '.join(differences)}"


def file_suffix(**options: Any) -> str:
    """Returns the suffix of file names for options: "_steps10_seed1"; "" where all have their defaults."""
    # The default of an option without an entry in DEFAULTS is None, which no name of a file tells.
    changed = [name for name, value in options.items() if value is not None and value != DEFAULTS.get(name)]
    return "".join(f"_{name}{options[name]}" for name in changed)


def format_figure(row: Mapping[str, Any], name: str, sign: str = "+-") -> str:
    """Formats a figure of `FIGURES` with its standard error: "2.316 +- 0.011".

    Args:
        row: of figures by their keys; "-" stands for one that it has not.
        name: of the figure.
        sign: between the figure and its error.
    """
    if name not in row:
        return "-"
    if row[name] is None or not math.isfinite(row[name]):
        return "infinite"
    figure = FIGURES[name]
    return format_with_error(row[name], row.get(figure.error), figure.decimals, sign)


def format_with_unit(row: Mapping[str, Any], name: str) -> str:
    """Formats a figure of `FIGURES` with its standard error and its unit: "2.316 +- 0.011 bits/dim"."""
    return f"{format_figure(row, name)} {FIGURES[name].unit}"


def format_drawn(row: Mapping[str, Any]) -> str:
    """Formats bits and nats with their errors over examples, and that over draws of orders, if any."""
    words = f"{format_with_unit(row, 'bits_per_dim')}, {format_with_unit(row, 'nats')}"
    if row.get("nats_draws_error") is None:
        return words
    return f"{words} (over examples; the choice of orders adds +- {row['nats_draws_error']:.2f} nats)"


def format_baseline(baseline: float | Mapping[str, Any]) -> str:
    """Formats what a `Kind.baselines` reaches: bits per dimension, or nats with their standard error."""
    if isinstance(baseline, Mapping):
        return format_with_unit(baseline, "nats")
    return f"{baseline:.3f} bits/dim"


def check_protocol(result: Record) -> None:
    """Raises where a result does not say its step or number of examples, or its times are no list."""
    protocol = result["protocol"]
    if type(protocol["step"]) is not int or type(protocol["N"]) is not int:
        raise ValueError("it names no step, or not how many examples")
    if not isinstance(result.get("times", []), list):
        raise ValueError("its times are no list")
    calls = result.get("calls")
    if calls is not None and type(calls) is not int:
        raise ValueError("its calls are no whole number")


def check_figures(row: Mapping[str, Any], needed: Iterable[str]) -> None:
    """Raises where a row lacks a figure of `FIGURES` that is needed, or one or its error is no number."""
    check_numbers(row[name] for name in needed)
    for name, figure in FIGURES.items():
        check_numbers((row.get(name), row.get(figure.error)))


def check_numbers(values: Iterable[Any]) -> None:
    """Raises ValueError where a figure is neither None nor a number below LARGE."""
    for value in values:
        is_number = type(value) in (int, float) and abs(value) < LARGE
        if value is not None and not is_number:
            raise ValueError("a figure is no number")
