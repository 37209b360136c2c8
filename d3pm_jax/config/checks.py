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

# The library counts in int32.
LARGEST_INT = 2**31 - 1
# Every t and every category goes through float32 somewhere, which holds each whole number up to this one.
LARGEST_SIZE = 2**24


class Allowed(NamedTuple):
    """Restricts a field to some values of its type, in words for messages and as a function."""

    words: str
    """what follows the type in a message, such as "in 1..5" """
    test: Callable[[Any], bool]
    """returns whether a value of the type is allowed"""


def integers_from(least: int, most: int = LARGEST_INT) -> Allowed:
    """Allows the whole numbers least, .., most."""
    return Allowed(f"in {least}..{most}", lambda x: least <= x <= most)


class Free:
    """Marks a field that may change when a run is resumed, as `Annotated[int, Free]` does."""


class IsPath:
    """Marks a field that holds the path of a file, which a config file may give from its own folder."""


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
# float32 can divide by the length of an interval like this, and the result is finite.
Interval = Annotated[tuple[float, float], RISING]
NotNegative = Annotated[float, Allowed("of at least 0", lambda x: x >= 0)]
NonEmptyStr = Annotated[
    str, Allowed("of one non-empty line", lambda x: not set(x) & {"\0", "\n", "\r"} and x != "")
]
FilePath = Annotated[NonEmptyStr, IsPath]
# For tuples.
NOT_EMPTY = Allowed("of at least one", bool)


class CheckedPart:
    """Base of the parts of a config that check more than the types of their fields."""

    def check(self) -> None:
        """Raises ValueError for a field that cannot be used."""


def undefined_method(part: Any, method: str) -> UserError:
    """Returns the error for a base class to raise where a class does not define one of its methods."""
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
        field_name = f"{name}.{field.name}" if name else field.name
        value = getattr(part, field.name)
        hint = hints.get(field.name, Any)
        if not (matches_hint(value, hint) and _finite(value)):
            text = _shorten_value(value)
            cure = _cure(value) or cure_for_choice(value, get_args(hint))
            raise ValueError(f"{field_name} = {text}: it must be {describe_hint(hint)}{cure}")

        items = value if isinstance(value, tuple) else (value,)
        for item in items:
            if dataclasses.is_dataclass(item) and not isinstance(item, type):
                check_fields(field_name, item)


def _shorten_value(value: Any) -> str:
    """Returns the repr of a value in at most 80 characters."""
    try:
        return one_line(repr(value), 80)
    except ValueError:
        # Python refuses to print an int of more than some thousand digits.
        return "a whole number of very many digits"


def list_paths(part: Any) -> dict[str, str]:
    """Returns the values of the fields of a part that are marked with `IsPath`, by name."""
    paths: dict[str, str] = {}
    for name, hint in _hints_with_marks(type(part)).items():
        value = getattr(part, name, None)
        if isinstance(value, str) and _has_mark(hint, IsPath):
            paths[name] = value
    return paths


def _has_mark(hint: Any, mark: type) -> bool:
    """Says whether an annotation, or one of the choices that it gives, has a mark."""
    args = get_args(hint)
    return mark in args or any(_has_mark(arg, mark) for arg in args)


class FreeFields:
    """Class attribute with the names of the `Free` fields; a class may set the attribute itself."""

    def __get__(self, instance: Any, owner: type) -> tuple[str, ...]:
        return free_fields(owner)


def free_fields(cls: type) -> tuple[str, ...]:
    """Lists the fields that a class, or one that it derives from, marks as `Free`."""
    # A class may declare a field of its base again, without the mark. Then it is still free: every class of
    # the line counts. A dict keeps the order, and each name once.
    names: dict[str, None] = {}
    for base in reversed(cls.__mro__):
        for name, hint in _hints_with_marks(base).items():
            if Free in get_args(hint):
                names[name] = None
    return tuple(names)


@functools.cache
def hints_of(cls: type) -> dict[str, Any]:
    """Returns the annotations of the fields of a class, without `Free`.

    There are none where they name what cannot be found.
    """
    hints = _hints_with_marks(cls)
    for name, hint in hints.items():
        if get_origin(hint) is not Annotated:
            continue
        hints[name], *marks = get_args(hint)
        for mark in marks:
            if mark is not Free:
                hints[name] = Annotated[hints[name], mark]
    return hints


def _hints_with_marks(cls: type) -> dict[str, Any]:
    """Returns the annotations of the fields of a class, or none where they cannot be evaluated."""
    try:
        return get_type_hints(cls, include_extras=True)
    except Exception:
        # An annotation in quotes is evaluated here, and may raise anything.
        return {}


def matches_hint(value: Any, hint: Any) -> bool:
    """Says whether a value is what an annotation says; True for an annotation that is not understood."""
    origin = get_origin(hint)
    args = get_args(hint)
    if origin is Annotated:
        marks = [mark for mark in args[1:] if isinstance(mark, Allowed)]
        return matches_hint(value, args[0]) and all(mark.test(value) for mark in marks)
    if origin in (Union, UnionType):
        return any(matches_hint(value, choice) for choice in args)
    if origin is Literal:
        # True == 1 in Python, so the types are compared too.
        return any(type(value) is type(choice) and value == choice for choice in args)
    if origin is tuple:
        if type(value) is not tuple:
            return False
        if args[1:] == (...,):
            return all(matches_hint(item, args[0]) for item in value)
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


_TYPE_NAMES = {
    int: "a whole number",
    float: "a finite number",
    bool: "True or False",
    str: "a text",
    tuple: "a tuple",
    None: "None",
    NoneType: "None",
}


def describe_hint(hint: Any, suffix: str = "") -> str:
    """Says in words what an annotation allows: "a whole number in 1..5", where " in 1..5" is the suffix.

    The suffix holds the words of `Allowed`, which follow those of the type.
    """
    origin = get_origin(hint)
    args = get_args(hint)
    if origin is Annotated:
        limits = [f" {mark.words}" for mark in args[1:] if isinstance(mark, Allowed)]
        return describe_hint(args[0], "".join(limits))
    if origin in (Union, UnionType):
        return " or ".join(map(describe_hint, args)) + suffix
    if origin is Literal:
        return " or ".join(map(repr, args)) + suffix
    if origin is tuple:
        items = [describe_hint(arg) for arg in args if arg is not ...]
        if ... in args:
            return f"a tuple{suffix}, each {items[0]}"
        return f"a tuple{suffix} ({', '.join(items)})"
    if dataclasses.is_dataclass(hint):
        return f"a part, {hint.__name__}{suffix}"  # pyright: ignore[reportAttributeAccessIssue]
    # Of an annotation that is not understood this is all that is checked.
    return _TYPE_NAMES.get(hint, "made of finite numbers") + suffix


def _cure(value: Any) -> str:
    """Says how to convert a value that is nearly right, for the end of a message; "" for any other."""
    if hasattr(value, "tolist"):
        if getattr(value, "ndim", 0):
            return ", not an array: write tuple(x.tolist())"
        return f", of Python's own type: write {type(value.tolist()).__name__}(...)"
    if isinstance(value, list):
        return ", not a list: write (...,)"
    return ""


# Names of before, which files of users may import.
Part = CheckedPart
Range = Interval
at_least = integers_from
fits = matches_hint
in_words = describe_hint
undefined = undefined_method
