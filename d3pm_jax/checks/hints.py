"""Checks plain values, such as sizes and names, against their annotations.

An annotation says the type of a value, and `Annotated[type, Allowed(...)]` which values of that type are
allowed. The fields of a config and the arguments of what it builds have the same annotations.
"""

import dataclasses
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, NamedTuple, Union, get_args, get_origin

import jax
import jax.core
import jax.numpy as jnp
import numpy as np

from d3pm_jax.checks.arrays import describe, shorten_value

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

    def __repr__(self) -> str:
        # The help of Python shows it in annotations, where the address of a function says nothing.
        return f"Allowed({self.words!r})"


def integers_from(least: int, most: int = LARGEST_INT) -> Allowed:
    """Allows the whole numbers least, .., most."""
    return Allowed(f"in {least}..{most}", lambda x: least <= x <= most)


def one_of(*options: str) -> Allowed:
    """Allows these texts."""
    return Allowed(f"out of {', '.join(map(repr, options))}", options.__contains__)


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
UpTo2 = Annotated[float, Allowed("above 0, at most 2", lambda x: 0 < x <= 2)]
UpTo5 = Annotated[float, Allowed("above 0, at most 5", lambda x: 0 < x <= 5)]
NotNegative = Annotated[float, Allowed("of at least 0", lambda x: x >= 0)]
NonEmptyStr = Annotated[
    str, Allowed("of one non-empty line", lambda x: not set(x) & {"\0", "\n", "\r"} and x != "")
]
# For tuples.
NOT_EMPTY = Allowed("of at least one", bool)


def _is_path(value: Any) -> bool:
    if isinstance(value, Path):
        value = str(value)
    return isinstance(value, str) and value != "" and "\0" not in value


def _is_float_type(value: Any) -> bool:
    if value is None:
        return True
    # NumPy would read many other values as types with fields.
    if not isinstance(value, str | type | np.dtype) and not hasattr(value, "dtype"):
        return False
    try:
        return jnp.issubdtype(jnp.dtype(value), jnp.floating)
    except (TypeError, ValueError):
        return False


# A name in the file system.
AnyPath = Annotated[Any, Allowed("a path, as a text or a pathlib.Path", _is_path)]
# The type that layers compute in.
FloatType = Annotated[Any, Allowed("a type of floats, such as jnp.bfloat16, or None", _is_float_type)]


def check_value(name: str, value: Any, hint: Any) -> Any:
    """Returns a value as plain numbers and tuples, if it is what an annotation says.

    Raises:
        TypeError: it is known only when a program runs.
        ValueError: it is something else.
    """
    if isinstance(value, jax.core.Tracer):
        raise TypeError(
            f"{name} is {describe(value)}, known only when a program runs: pass {describe_hint(hint)}"
        )
    plain = _to_plain(value)
    if not matches_hint(plain, hint):
        raise ValueError(f"{name} = {shorten_value(value)}: it must be {describe_hint(hint)}")
    return plain


def _to_plain(value: Any) -> Any:
    """Returns numbers of NumPy and of JAX as those of Python, and lists and arrays of them as tuples."""
    # Random keys are arrays too, but hold no numbers.
    is_array = isinstance(value, np.ndarray | np.generic | jax.Array)
    if is_array and not jnp.issubdtype(value.dtype, jax.dtypes.prng_key):
        value = value.tolist()
    if isinstance(value, list | tuple | range):
        return tuple(map(_to_plain, value))
    return value


def is_restricted(hint: Any) -> bool:
    """Says whether an annotation, or a part of it, restricts the values of a type."""
    return any(isinstance(part, Allowed) or is_restricted(part) for part in get_args(hint))


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
    if origin is Callable:
        return callable(value)
    if origin is Sequence:
        return matches_hint(value, tuple[args[0], ...])
    if origin is tuple:
        if type(value) is not tuple:
            return False
        if args[1:] == (...,):
            return all(matches_hint(item, args[0]) for item in value)
        return len(value) == len(args) and all(map(matches_hint, value, args))
    if hint is float:
        return type(value) in (float, int) and is_finite(value)
    if hint in (int, bool, str, tuple, None, NoneType):
        return type(value) is (hint or NoneType)
    return not dataclasses.is_dataclass(hint) or isinstance(value, hint)  # pyright: ignore[reportArgumentType]


def is_finite(value: Any) -> bool:
    """Says whether the numbers of a field are finite, and no larger than float64 holds."""
    if isinstance(value, tuple):
        return all(map(is_finite, value))
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
    Path: "a path",
    Callable: "a function",
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
    if origin is Sequence:
        return describe_hint(tuple[args[0], ...], suffix)
    if origin is tuple:
        items = [describe_hint(arg) for arg in args if arg is not ...]
        if ... in args:
            return f"a tuple{suffix}, each {items[0]}"
        return f"a tuple{suffix} ({', '.join(items)})"
    if dataclasses.is_dataclass(hint):
        return f"a part, {hint.__name__}{suffix}"  # pyright: ignore[reportAttributeAccessIssue]
    if hint is Any and suffix:
        # Such an annotation has all of its words in its `Allowed`.
        return suffix.strip()
    # Of an annotation that is not understood this is all that is checked.
    return _TYPE_NAMES.get(origin or hint, "made of finite numbers") + suffix


def name_conversion(value: Any, hint: Any) -> str:
    """Says how to convert a value that is nearly what an annotation says; "" for any other.

    It is the end of a message.
    """
    if isinstance(value, type) and dataclasses.is_dataclass(value):
        return f", not its class: write {value.__name__}(...)"
    is_of_user = not type(value).__module__.startswith("d3pm_jax.")
    if dataclasses.is_dataclass(hint) and is_of_user and dataclasses.is_dataclass(value):
        return f": derive {type(value).__name__} from d3pm_jax.config.{hint.__name__}"  # pyright: ignore[reportAttributeAccessIssue]
    if hasattr(value, "tolist"):
        allowed = describe_hint(hint)
        if getattr(value, "ndim", 0) and "a tuple" in allowed:
            return ", not an array: write tuple(x.tolist())"
        if getattr(value, "ndim", 0) and "a text" in allowed:
            return ", not an array: save it by numpy.save, and name the file"
        if getattr(value, "ndim", 0) and allowed == "a part, Data":
            return ", not an array: save it by numpy.save, and name the file in Arrays(...)"
        if getattr(value, "ndim", 0):
            return ", not an array"
        return f", of Python's own type: write {type(value.tolist()).__name__}(...)"
    if isinstance(value, list):
        return ", not a list: write (...,)"
    name = getattr(hint, "__name__", "")
    if dataclasses.is_dataclass(hint) and hint.__module__.startswith("d3pm_jax.config"):
        return f": take one of d3pm_jax.config, or a class of your own that derives from {name}"
    return ""
