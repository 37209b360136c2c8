"""Holds what was measured: by which protocol, figures with unit and error, arrays; writes and reads it."""

import contextlib
import dataclasses
import json
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from d3pm_jax.beliefs import join_first_step
from d3pm_jax.errors import UserError, one_line
from d3pm_jax.files import read_json, write_text

KEY = "record"  # in every file of results, beside the keys that were there before there were Records
LARGE = 1e100  # what no figure is
UNITS = {
    "bits_per_dim": "bits/dim",
    "reconstruction": "bits/dim",
    "prior": "bits/dim",
    "nats": "nats",
    "bits_per_char": "bits/char",
    "longest_copy": "characters",
}
ERRORS = {"bits_per_dim": "standard_error", "nats": "nats_standard_error"}  # which key has a figure's error
NO_FIGURES = (*ERRORS.values(), "step", "examples", "seed", "limit", "calls")  # numbers, but not measured
DEFAULTS = {"grid": "even", "seed": 0}  # of options that are in the names of files; of all others None


@dataclasses.dataclass(frozen=True)
class Value:
    """Holds a figure."""

    value: Any  # a number, or a text; None where it is infinite, or of too few samples
    unit: str = ""
    error: float | None = None  # standard error, where it is known


class Format(NamedTuple):
    """Says how results of one sort stand in their files, and which of them compare."""

    compared: tuple[str, ...]  # entries of the protocol that figures have to have in common
    replaced: tuple[str, ...]  # keys that are told of a file whose place a new one takes
    from_keys: Callable[[dict[str, Any]], Any]  # the keys of a file -> protocol, values, arrays
    damaged: str  # what is said of a damaged file, with {path} and {why}
    check: Callable[[Any], Any] = lambda record: None  # raises ValueError, TypeError or LookupError of one


@dataclasses.dataclass(frozen=True)
class Record:
    """Holds one measured result."""

    format: Format
    path: Path
    protocol: Mapping[str, Any]  # all that it depends on
    values: Mapping[str, Mapping[str, Value]]  # by what they are of and their names
    arrays: Mapping[str, Mapping[str, Any]]  # the same

    @property
    def figures(self) -> dict[str, dict[str, Any]]:
        """Returns the values alone, without units and errors."""
        return {of: {name: figure.value for name, figure in row.items()} for of, row in self.values.items()}


def list_incomparable(a: Record, b: Record) -> list[str]:
    """Lists the entries by which figures of two results are not comparable; none where they are."""
    return [name for name in a.format.compared if a.protocol.get(name) != b.protocol.get(name)]


def parse_record(file_format: Format, path: Path, content: dict[str, Any]) -> Record:
    """Makes the Record of what a file holds: its own, or in a file of an older run that of its keys."""
    if KEY not in content:
        protocol, values, arrays = file_format.from_keys(content)
        return Record(file_format, path, _join_first_step(protocol), values, arrays)
    kept = content[KEY]
    values = {name: _row_from_json(row) for name, row in kept["values"].items()}
    return Record(file_format, path, _join_first_step(kept["protocol"]), values, dict(kept["arrays"]))


def _join_first_step(protocol: Mapping[str, Any]) -> dict[str, Any]:
    """Returns a protocol without `first_step`, which older versions had beside `belief`."""
    if "first_step" not in protocol:
        return dict(protocol)
    others = {name: value for name, value in protocol.items() if name != "first_step"}
    belief = protocol.get("belief", "d3pm")
    return others | {"belief": join_first_step(belief, protocol["first_step"])}


def read_record(path: Path, file_format: Format) -> Record:
    """Reads a result.

    Raises:
        UserError: the file is damaged.
    """
    try:
        found = parse_record(file_format, path, read_json(path))
        file_format.check(found)
    except (ValueError, TypeError, LookupError, AttributeError) as error:
        raise damaged_error(path, file_format, error) from error
    return found


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
        protocol: what it depends on, where its keys do not say that.

    Returns:
        Words about the result that it replaces, if that was of something else: ", replaces that of step
        1600".
    """
    before: Any = {}
    with contextlib.suppress(OSError, ValueError):
        before = read_json(path)
    # JSON has no numbers that are not finite: they become null
    finite = json.loads(json.dumps(dict(content)), parse_constant=lambda name: None)
    found = parse_record(file_format, path, finite)
    kept = {
        "protocol": {**found.protocol, **(protocol or {})},
        "values": {name: _row_to_json(row) for name, row in found.values.items()},
        "arrays": found.arrays,
    }
    write_text(path, json.dumps(finite | {KEY: kept}, indent=1, allow_nan=False))
    known = [name for name in file_format.replaced if isinstance(before, dict) and name in before]
    differ = [f"{name} {before[name]}" for name in known if before[name] != finite.get(name)]
    return f", replaces that of {', '.join(differ)}" if differ else ""


def file_suffix(**options: Any) -> str:
    """Returns what names of files get of the options that were given: "_steps10_seed1"; "" without any."""
    given = {name: x for name, x in options.items() if x is not None and x != DEFAULTS.get(name)}
    return "".join(f"_{name}{value}" for name, value in given.items())


def take_figures(row: Mapping[str, Any], unit: str = "") -> dict[str, Value]:
    """Returns what keys hold of single figures, each with its error, and its unit where it is no other."""
    return {
        name: Value(value, UNITS.get(name, unit), row.get(ERRORS.get(name, "")))
        for name, value in row.items()
        if name not in NO_FIGURES and not isinstance(value, list | dict)
    }


def take_arrays(row: Mapping[str, Any]) -> dict[str, list[Any]]:
    """Returns what keys hold of arrays."""
    return {name: value for name, value in row.items() if isinstance(value, list)}


def check_numbers(values: Iterable[Any]) -> None:
    """Raises ValueError where a figure is neither a number, of a size that figures have, nor None."""
    for x in values:
        if x is not None and not (type(x) in (int, float) and abs(x) < LARGE):
            raise ValueError("a figure is no number")


def _row_to_json(row: Mapping[str, Value]) -> dict[str, Any]:
    return {name: dataclasses.asdict(value) for name, value in row.items()}


def _row_from_json(row: Mapping[str, Any]) -> dict[str, Value]:
    return {name: Value(**value) for name, value in row.items()}
