"""Chooses samplers by the words of a command line or a config, and says in words which one it is."""

import dataclasses
import difflib
import inspect
import re
from collections.abc import Mapping
from typing import Any, NamedTuple

from d3pm_jax.checks import declared
from d3pm_jax.errors import one_line
from d3pm_jax.sampling import SAMPLERS, Sampler, Shaping

Number = int | float

# What every sampler may have besides its own fields: those of `Shaping` that are numbers.
SHAPING_FIELDS = {"temperature": float, "top_k": int, "top_p": float, "top_p_below": float}
# "What it does: which processes (paper)."
DOCSTRING = re.compile(r"(?P<action>.*): (?P<processes>[^:]*) \((?P<paper>[^()]*)\)\.")


class Choice(NamedTuple):
    """Holds a sampler, and the words that chose it."""

    sampler: Sampler
    name: str
    fields: dict[str, Number]  # that are not at their defaults

    @property
    def options(self) -> dict[str, str | Number]:
        """Returns what tells it apart in names of files, see `record.file_suffix`."""
        return {"sampler": self.name, **self.fields}


@declared()
def choose_sampler(name: str, fields: Mapping[str, str | Number] | None = None) -> Choice:
    """Returns the sampler of a name.

        choose_sampler("maskgit", {"rows": 8, "temperature": 0.9}).sampler

    Args:
        name: one of `sampling.named.SAMPLERS`.
        fields: numbers, or words for them, in place of the defaults: the sampler's own, or of every sampler
            `SHAPING_FIELDS`. A name may have hyphens for its underscores.

    Raises:
        ValueError: there is no sampler of this name, it has no such field, or a value cannot be used.
    """
    if name not in SAMPLERS:
        near = difflib.get_close_matches(name.replace("-", "_")[:100], SAMPLERS, cutoff=0.5)
        question = f"did you mean {' or '.join(near)}? " if near else ""
        raise ValueError(
            f"sampler = {one_line(repr(name), 80)}: there is none of this name; {question}"
            f"`d3pm sample --sampler help` lists all"
        )
    defaults = default_fields(name) | {field: getattr(Shaping(), field) for field in SHAPING_FIELDS}
    numbers = dict(defaults)
    for written_name, value in (fields or {}).items():
        field = written_name.replace("-", "_")
        if field not in defaults:
            choices = ", ".join(defaults)
            raise ValueError(
                f"sampler.{one_line(written_name, 80)}: {name} has no such field; it has {choices}"
            )
        number_type = SHAPING_FIELDS.get(field) or type(defaults[field])
        numbers[field] = _parse_number(name, field, value, number_type)
    # In the order of the defaults, whatever that of the words is.
    changed = {field: number for field, number in numbers.items() if number != defaults[field]}
    slots = {field: number for field, number in changed.items() if field not in SHAPING_FIELDS}
    shaping = {field: number for field, number in changed.items() if field in SHAPING_FIELDS}
    return Choice(dataclasses.replace(SAMPLERS[name](**slots), shaping=Shaping(**shaping)), name, changed)


def _parse_number(name: str, field: str, value: str | Number, number_type: type) -> Number:
    """Returns the number that a value stands for.

    Raises:
        ValueError: it stands for none, or the field takes none.
    """
    if number_type is bool:
        word = str(value).lower()
        if word not in ("true", "false"):
            raise ValueError(f"sampler.{field} = {one_line(repr(value), 80)}: it must be true or false")
        return word == "true"
    if number_type not in (int, float):
        raise ValueError(
            f"sampler.{field}: it is not a number, so set it in Python, as sampling.named.{name}({field}=..)"
        )
    expected = "a whole number" if number_type is int else "a number"
    try:
        number = number_type(value)
    except (TypeError, ValueError, OverflowError):
        number = None
    # As a word "2.5" is no int, but as a float it would be cut down to one.
    is_cut = not isinstance(value, str) and number != value
    if number is None or is_cut or isinstance(value, bool):
        raise ValueError(f"sampler.{field} = {one_line(repr(value), 80)}: it must be {expected}")
    return number


def default_fields(name: str) -> dict[str, Any]:
    """Returns the fields of a named sampler by name, each with its default."""
    return {field.name: field.default for field in inspect.signature(SAMPLERS[name]).parameters.values()}


def describe_samplers() -> str:
    """Returns the table of all samplers: name, what it does, for which processes, paper, and fields."""
    lines = []
    for name, make in SAMPLERS.items():
        parts = DOCSTRING.fullmatch(inspect.getdoc(make) or "")
        if parts is not None:
            lines.append(f"{name:<22}{parts['action']}")
            lines.append(f"{'':22}for: {parts['processes']}; {parts['paper']}")
        else:
            lines.append(name)  # python -OO has no docstrings
        fields = ", ".join(f"{field} = {default}" for field, default in default_fields(name).items())
        if fields:
            lines.append(f"{'':22}fields: {fields}")
    shaping = ", ".join(f"{field} = {getattr(Shaping(), field)}" for field in SHAPING_FIELDS)
    lines.append(f"{'of every sampler':<22}fields: {shaping}")
    return "\n".join(lines)


def describe_sampler(sampler: Sampler) -> str:
    """Names the slots of a sampler that are not at their defaults, with all of their numbers."""
    slots = [slot for slot in dataclasses.fields(Sampler) if getattr(sampler, slot.name) != slot.default]
    texts = [f"{slot.name} = {_describe_slot(getattr(sampler, slot.name))}" for slot in slots]
    return ", ".join(texts) or "ancestral"


def _describe_slot(value: Any) -> str:
    if dataclasses.is_dataclass(value):
        fields = [f"{f.name}={_describe_slot(getattr(value, f.name))}" for f in dataclasses.fields(value)]
        return f"{type(value).__name__}({', '.join(fields)})"
    # The text of a function, or of an object without one of its own, has its address in memory, which is
    # another one each time.
    if hasattr(value, "__qualname__"):
        return value.__qualname__
    if type(value).__repr__ is object.__repr__:
        return type(value).__name__
    return repr(value)
