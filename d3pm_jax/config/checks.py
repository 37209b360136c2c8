"""Checks the fields of parts against their annotations; a message names the field as the command line does.

An annotation says the type of a field, and `Annotated[type, Allowed(...)]` which values of that type are
allowed. Annotations that are not understood, in parts of the user's own, allow everything that is finite.
"""

import dataclasses
import functools
import math
from collections.abc import Callable
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, NamedTuple, Union, get_args, get_origin, get_type_hints

from d3pm_jax.checks.former import cure_for_choice
from d3pm_jax.errors import UserError, one_line

LARGEST_INT = 2**31 - 1  # of int32, in which the library counts
LARGEST_SIZE = 2**24  # every t or category up to it is a float32


class Allowed(NamedTuple):
    """Says which values of its type a field may have, in words that follow the type, and as a function."""

    words: str
    test: Callable[[Any], bool]


def integers_from(least: int, most: int = LARGEST_INT) -> Allowed:
    """Allows least..most."""
    return Allowed(f"in {least}..{most}", lambda x: least <= x <= most)


class Free:
    """Marks a field that may change when a run is resumed, as `Annotated[int, Free]` does."""


Natural = Annotated[int, integers_from(0)]
Seed = Annotated[int, integers_from(0, 2**32 - 1)]
Count = Annotated[int, integers_from(1)]
Size = Annotated[int, integers_from(1, LARGEST_SIZE)]
Categories = Annotated[int, integers_from(2, LARGEST_SIZE)]
UnitInterval = Annotated[float, Allowed("in [0, 1)", lambda x: 0 <= x < 1)]
Probability = Annotated[float, Allowed("in [0, 1]", lambda x: 0 <= x <= 1)]
Positive = Annotated[float, Allowed("above 0", lambda x: x > 0)]
Epsilon = Annotated[float, Allowed("above 0, at most 1", lambda x: 0 < x <= 1)]
RISING = Allowed("whose second number is larger by 1e-30..1e30", lambda x: 1e-30 <= x[1] - x[0] <= 1e30)
Interval = Annotated[tuple[float, float], RISING]  # float32 can divide by its length
NotNegative = Annotated[float, Allowed("of at least 0", lambda x: x >= 0)]
NonEmptyStr = Annotated[
    str, Allowed("of one non-empty line", lambda x: not set(x) & {"\0", "\n", "\r"} and x != "")
]
NOT_EMPTY = Allowed("of at least one", bool)  # of tuples


class CheckedPart:
    """Holds what the parts of a config share that check themselves."""

    def check(self) -> None:
        """Raises ValueError for a field that cannot be used."""


def undefined_method(part: Any, method: str) -> UserError:
    """Returns what to raise in a base: the class of a part does not define one of its methods."""
    return UserError(f"{type(part).__name__} defines no {method}: write that method in the class")


def check_fields(name: str, part: Any) -> None:
    """Compares the fields of a part, and of the parts in it, with their annotations.

    Args:
        name: of the part, such as "process.beta"; "" for a whole config.
        part: a dataclass.

    Raises:
        ValueError: naming the field, its value, and what is allowed.
    """
    hints = hints_of(type(part))
    for field in dataclasses.fields(part):
        full = f"{name}.{field.name}" if name else field.name
        value = getattr(part, field.name)
        hint = hints.get(field.name, Any)
        if not (matches_hint(value, hint) and _finite(value)):
            try:
                shown = one_line(repr(value), 80)
            except ValueError:  # an int of more digits than Python prints
                shown = "a whole number of very many digits"
            cure = _cure(value) or cure_for_choice(value, get_args(hint))
            raise ValueError(f"{full} = {shown}: it must be {describe_hint(hint)}{cure}")
        for inner in value if isinstance(value, tuple) else (value,):
            if dataclasses.is_dataclass(inner) and not isinstance(inner, type):
                check_fields(full, inner)


class FreeFields:
    """Gives the names of the `Free` fields of a class, as an attribute that a class may set itself."""

    def __get__(self, instance: Any, owner: type) -> tuple[str, ...]:
        return free_fields(owner)


def free_fields(cls: type) -> tuple[str, ...]:
    """Lists the fields that a class, or one that it derives from, marks as `Free`."""
    hints = [item for base in reversed(cls.__mro__) for item in _marked_hints(base).items()]
    return tuple(dict.fromkeys(name for name, hint in hints if Free in get_args(hint)))


@functools.cache
def hints_of(cls: type) -> dict[str, Any]:
    """Returns the annotations of the fields of a class, without `Free`.

    There are none where they name what cannot be found.
    """
    hints = _marked_hints(cls)
    for name, hint in hints.items():
        if get_origin(hint) is Annotated:
            hints[name], *extras = get_args(hint)
            for extra in extras:
                if extra is not Free:
                    hints[name] = Annotated[hints[name], extra]
    return hints


def _marked_hints(cls: type) -> dict[str, Any]:
    try:
        return get_type_hints(cls, include_extras=True)
    except Exception:  # whatever an annotation in quotes does when it is evaluated
        return {}


def matches_hint(value: Any, hint: Any) -> bool:
    """Says whether a value is what an annotation says; True for one that is not understood."""
    origin, args = get_origin(hint), get_args(hint)
    if origin is Annotated:
        return matches_hint(value, args[0]) and all(x.test(value) for x in args[1:] if isinstance(x, Allowed))
    if origin in (Union, UnionType):
        return any(matches_hint(value, x) for x in args)
    if origin is Literal:
        return any(type(value) is type(x) and value == x for x in args)
    if origin is tuple:
        if type(value) is not tuple:
            return False
        if args[1:] == (...,):
            return all(matches_hint(x, args[0]) for x in value)
        return len(value) == len(args) and all(map(matches_hint, value, args))
    if hint is float:
        return type(value) in (float, int) and _finite(value)
    if hint in (int, bool, str, tuple, None, NoneType):
        return type(value) is (hint or NoneType)
    return not dataclasses.is_dataclass(hint) or isinstance(value, hint)  # pyright: ignore[reportArgumentType]


def _finite(value: Any) -> bool:
    """Says whether the numbers of a field are finite, and no larger than float64 holds."""
    if isinstance(value, tuple):
        return all(map(_finite, value))
    try:
        return not isinstance(value, int | float) or math.isfinite(value)
    except OverflowError:
        return False


_WORDS = {
    int: "a whole number",
    float: "a finite number",
    bool: "True or False",
    str: "a text",
    tuple: "a tuple",
    None: "None",
    NoneType: "None",
}


def describe_hint(hint: Any, more: str = "") -> str:
    """Says in words what an annotation allows; more is what is said of it beside its type."""
    origin, args = get_origin(hint), get_args(hint)
    if origin is Annotated:
        return describe_hint(args[0], "".join(f" {x.words}" for x in args[1:] if isinstance(x, Allowed)))
    if origin in (Union, UnionType):
        return " or ".join(map(describe_hint, args)) + more
    if origin is Literal:
        return " or ".join(map(repr, args)) + more
    if origin is tuple:
        each = [describe_hint(x) for x in args if x is not ...]
        return f"a tuple{more}, each {each[0]}" if ... in args else f"a tuple{more} ({', '.join(each)})"
    if dataclasses.is_dataclass(hint):
        return f"a part, {hint.__name__}{more}"  # pyright: ignore[reportAttributeAccessIssue]
    return _WORDS.get(hint, "made of finite numbers") + more


def _cure(value: Any) -> str:
    """Says how to convert what is nearly right."""
    if hasattr(value, "tolist"):
        if getattr(value, "ndim", 0):
            return ", not an array: write tuple(x.tolist())"
        return f", of Python's own type: write {type(value.tolist()).__name__}(...)"
    return ", not a list: write (...,)" if isinstance(value, list) else ""
