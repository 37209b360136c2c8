"""Defines the record of a measurement: its protocol, its figures with units and errors, and its arrays."""

import contextlib
import dataclasses
import json
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from d3pm_jax.errors import UserError, one_line
from d3pm_jax.files import read_json, write_text

# The key of the record in a file of results, beside the keys that scripts read.
KEY = "record"
LARGE = 1e100  # no figure is as large
UNITS = {
    "bits_per_dim": "bits/dim",
    "elbo_bits_per_dim": "bits/dim",
    "reconstruction": "bits/dim",
    "prior": "bits/dim",
    "nats": "nats",
    "nats_above_exact": "nats",
    "entropy": "nats",
    "bits_per_char": "bits/char",
    "longest_copy": "characters",
    "cross_entropy": "nats",
}
ERRORS = {  # the keys of standard errors
    "bits_per_dim": "standard_error",
    "elbo_bits_per_dim": "elbo_standard_error",
    "nats": "nats_standard_error",
    "cross_entropy": "cross_entropy_standard_error",
    "accuracy": "accuracy_standard_error",
}
NO_FIGURES = (*ERRORS.values(), "step", "examples", "seed", "limit", "calls")  # numbers, but not measured

# Default values of options, which the names of files leave out. All other options have the default None.
DEFAULTS = {"grid": "even", "seed": 0}


@dataclasses.dataclass(frozen=True)
class Value:
    """Holds a figure."""

    value: Any  # a number, or a text; None where it is infinite, or of too few samples
    unit: str = ""
    error: float | None = None  # standard error, where it is known


class Format(NamedTuple):
    """Defines how results of one sort are stored in files, and which of them can be compared."""

    compared: tuple[str, ...]  # entries of the protocol that comparable figures have in common
    replaced: tuple[str, ...]  # keys that a message names of a file whose place a new one takes
    from_keys: Callable[[dict[str, Any]], Any]  # the other keys of a file -> protocol, values, arrays
    damaged: str  # the message about a damaged file, with {path} and {why}
    check: Callable[[Any], Any] = lambda record: None  # raises ValueError, TypeError or LookupError


@dataclasses.dataclass(frozen=True)
class Record:
    """Holds one measured result."""

    format: Format
    path: Path
    protocol: Mapping[str, Any]  # all that it depends on
    values: Mapping[str, Mapping[str, Value]]  # by what was measured, such as "samples", and by their names
    arrays: Mapping[str, Mapping[str, Any]]  # likewise

    @property
    def figures(self) -> dict[str, dict[str, Any]]:
        """Returns the values alone, without units and errors."""
        return {subject: _numbers_of_row(row) for subject, row in self.values.items()}


def list_incomparable(a: Record, b: Record) -> list[str]:
    """Lists the entries of the protocols by which two results cannot be compared; empty where they can."""
    return [name for name in a.format.compared if a.protocol.get(name) != b.protocol.get(name)]


def make_record(file_format: Format, path: Path, content: dict[str, Any]) -> Record:
    """Makes the Record of a result from the keys of its file."""
    return Record(file_format, path, *file_format.from_keys(content))


def read_record(path: Path, file_format: Format) -> Record:
    """Reads a result.

    Raises:
        UserError: the file is damaged.
    """
    try:
        stored = read_json(path)[KEY]
        values = {subject: _row_from_json(row) for subject, row in stored["values"].items()}
        record = Record(file_format, path, dict(stored["protocol"]), values, dict(stored["arrays"]))
        file_format.check(record)
    except (ValueError, TypeError, LookupError, AttributeError) as error:
        raise damaged_error(path, file_format, error) from error
    return record


def damaged_error(path: Path, file_format: Format, error: Exception) -> UserError:
    """Makes the error that names a damaged file, and what to do about it."""
    return UserError(file_format.damaged.format(path=path, why=one_line(error)))


def write_record(
    path: Path, file_format: Format, content: Mapping[str, Any], protocol: Mapping[str, Any] | None = None
) -> str:
    """Writes a result and its Record as JSON, with null for numbers that are not finite.

    Args:
        path: of the file.
        file_format: of the result.
        content: its keys.
        protocol: entries to add to those of its keys.

    Returns:
        Words about the result that it replaces, if that was of something else: ", replaces that of step
        1600".
    """
    # The file that is replaced is read first. It may be missing or damaged, which is no error here.
    replaced: Any = {}
    with contextlib.suppress(OSError, ValueError):
        replaced = read_json(path)
    if not isinstance(replaced, dict):
        replaced = {}

    # JSON has no infinite numbers and no NaN. Writing and reading the content turns them into None.
    finite = json.loads(json.dumps(dict(content)), parse_constant=lambda name: None)
    record = make_record(file_format, path, finite)
    stored = {
        "protocol": {**record.protocol, **(protocol or {})},
        "values": {subject: _row_to_json(row) for subject, row in record.values.items()},
        "arrays": record.arrays,
    }
    write_text(path, json.dumps(finite | {KEY: stored}, indent=1, allow_nan=False))

    differences = []
    for name in file_format.replaced:
        if name in replaced and replaced[name] != finite.get(name):
            differences.append(f"{name} {replaced[name]}")
    if not differences:
        return ""
    return f", replaces that of {', '.join(differences)}"


def file_suffix(**options: Any) -> str:
    """Returns the suffix of file names for options: "_steps10_seed1"; "" where all have their defaults."""
    suffix = ""
    for name, value in options.items():
        if value is not None and value != DEFAULTS.get(name):
            suffix += f"_{name}{value}"
    return suffix


def take_figures(row: Mapping[str, Any], unit: str = "") -> dict[str, Value]:
    """Returns the single figures among the keys of a file, each with its standard error and its unit.

    Args:
        row: the keys.
        unit: of figures that `UNITS` does not name.
    """
    figures = {}
    for name, value in row.items():
        if name not in NO_FIGURES and not isinstance(value, list | dict):
            error = row.get(ERRORS.get(name, ""))
            figures[name] = Value(value, UNITS.get(name, unit), error)
    return figures


def take_arrays(row: Mapping[str, Any]) -> dict[str, list[Any]]:
    """Returns the arrays among the keys of a file."""
    return {name: value for name, value in row.items() if isinstance(value, list)}


def check_numbers(values: Iterable[Any]) -> None:
    """Raises ValueError where a figure is neither None nor a number below LARGE."""
    for value in values:
        if value is None:
            continue
        if type(value) not in (int, float) or not abs(value) < LARGE:
            raise ValueError("a figure is no number")


def _numbers_of_row(row: Mapping[str, Value]) -> dict[str, Any]:
    return {name: figure.value for name, figure in row.items()}


def _row_to_json(row: Mapping[str, Value]) -> dict[str, Any]:
    return {name: dataclasses.asdict(value) for name, value in row.items()}


def _row_from_json(row: Mapping[str, Any]) -> dict[str, Value]:
    return {name: Value(**value) for name, value in row.items()}
