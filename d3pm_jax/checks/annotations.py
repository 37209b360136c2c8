"""Reads annotations: what type an argument must have, and what shape.

A shape is written as jaxtyping does: `*S` for any axes, names for axes that must agree, numbers for their
size. `...` stands for a prefix of *S, the shape of a step. K and T are those of the process, if there is one.
"""

import collections.abc
import operator
import types
import typing
from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import jaxtyping
import numpy as np

from d3pm_jax.checks.arrays import describe, real_array
from d3pm_jax.checks.former import cure_for_choice

Convert = Callable[[str, Any], Any]  # (name, value) -> what the function is called with


class Sizes:
    """Notes the size of each named axis, the shape of *S and the like, and which argument it was seen in."""

    def __init__(self) -> None:
        self.known: dict[str, Any] = {}
        self.owner: dict[str, str] = {}

    def note(self, axis: str, size: Any, owner: str) -> bool:
        """Notes a size, and tells whether it is what was noted before."""
        if axis not in self.known:
            self.known[axis], self.owner[axis] = size, owner
        return self.known[axis] == size


class Shape(NamedTuple):
    """Holds what the text of a shape says."""

    before: tuple[str, ...]  # axes in front of those that are any number
    many: str | None  # the name of the latter
    after: tuple[str, ...]

    def axes(self, ndim: int) -> tuple[str, ...]:
        """Names the axes of an array of so many: those of *S are S0, S1, .."""
        many = ndim - len(self.before) - len(self.after)
        return (*self.before, *(f"{self.many}{i}" for i in range(many)), *self.after)


class ArrayType(NamedTuple):
    """Says what array an argument is."""

    kind: str  # "integers", "floats", "numbers" (either) or "key"
    shape: Shape | None  # None: any


class Expected(NamedTuple):
    """Says what an argument may be: an array, or what a conversion takes, or None."""

    array: ArrayType | None
    convert: Convert | None
    optional: bool
    callback: bool


def read(annotation: Any) -> Expected:
    """Returns what an annotation asks for."""
    options = typing.get_args(annotation) if _is_union(annotation) else (annotation,)
    if isinstance(annotation, typing.TypeVar):  # of an array or a number, which stays what it is
        return Expected(None, _number_or_array, False, False)
    arrays = [_array_type(x) for x in options if _is_array(x)]
    converts = [_conversion(x) for x in options if not _is_array(x) and x is not types.NoneType]
    convert = next((x for x in converts if x is not None), None)
    callback = any(typing.get_origin(x) is collections.abc.Callable for x in options)
    return Expected(arrays[0] if arrays else None, convert, types.NoneType in options, callback)


def results(annotation: Any) -> Any:
    """Returns the shape of what a function returns, a tuple of them for a tuple; None if it is not said."""
    if isinstance(annotation, type) and issubclass(annotation, tuple) and hasattr(annotation, "_fields"):
        return tuple(results(hint) for hint in typing.get_type_hints(annotation).values())
    if typing.get_origin(annotation) is tuple:
        return tuple(results(x) for x in typing.get_args(annotation))
    return _array_type(annotation).shape if _is_array(annotation) else None


def names_of_axes(expected: Expected, ndim: int) -> tuple[str, ...]:
    """Names the axes of an argument as `Shape.axes` does; of a step they are the first of *S."""
    shape = None if expected.array is None else expected.array.shape
    if shape is None:
        return tuple(f"unknown{i}" for i in range(ndim))
    return shape._replace(many="S").axes(ndim) if shape.many == "..." else shape.axes(ndim)


def bind(name: str, shape: tuple[int, ...], wanted: Shape, sizes: Sizes) -> None:
    """Notes the sizes that a shape has. Raises ValueError where they are not those that are known."""
    a, z, ok = len(wanted.before), len(wanted.after), True
    if wanted.many is None:
        ok = len(shape) == a + z
    elif len(shape) >= a + z:
        middle = shape[a : len(shape) - z]
        ok = sizes.note(wanted.many, middle, name)
    else:
        ok = False
    if ok:
        axes = (*zip(wanted.before, shape, strict=False), *_last(wanted.after, shape))
        ok = all(int(axis) == n if axis.isdigit() else sizes.note(axis, n, name) for axis, n in axes)
        ok = ok and all(n > 0 for axis, n in axes if axis in ("K", "T", "n"))
    if not ok:
        raise ValueError(f"{name} has shape {shape}, expected {_expected(name, wanted, sizes)}")


def check_prefix(name: str, shape: tuple[int, ...], sizes: Sizes) -> None:
    """Raises ValueError unless a shape is a prefix of *S, where that is known."""
    whole = sizes.known.get("S", shape)
    if shape != whole[: len(shape)]:
        owner = sizes.owner["S"]
        raise ValueError(f"{name} has shape {shape}: it must be a prefix of the shape of {owner}, {whole}")


def to_array(name: str, x: Any, kind: str) -> Any:
    """Returns x as an array of JAX or NumPy; the range of the latter is checked before it is rounded.

    Raises:
        TypeError: it is neither an array nor a number, or not of this kind.
    """
    if not isinstance(x, jax.Array):
        plain = isinstance(x, np.ndarray | np.generic | int | float) and not isinstance(x, bool)
        if not plain:
            raise TypeError(f"{name} is {describe(x)}, expected an array of {kind}: {_cure(kind)}")
        x = np.asarray(x)
    if kind not in _kinds(x.dtype):
        raise TypeError(f"{name} has dtype {x.dtype}, expected {kind}: {_cure(kind)}")
    return x


def _kinds(dtype: Any) -> tuple[str, ...]:
    found = _KINDS.get(dtype)
    if found is None:
        found = ("key",) if jnp.issubdtype(dtype, jax.dtypes.prng_key) else ()
        found = ("integers", "numbers") if jnp.issubdtype(dtype, jnp.integer) else found
        found = ("floats", "numbers") if jnp.issubdtype(dtype, jnp.floating) else found
        found = ("booleans",) if jnp.issubdtype(dtype, jnp.bool_) else found
        _KINDS[dtype] = found
    return found


_KINDS: dict[Any, tuple[str, ...]] = {}  # issubdtype takes microseconds


def _cure(kind: str) -> str:
    return {
        "integers": "pass category or step numbers as int32, not one-hot vectors or probabilities",
        "floats": "pass float32, for example",
        "numbers": "pass an array or a number",
        "booleans": "pass a comparison, such as x >= 0",
        "key": "pass jax.random.key(seed)",
    }[kind]


def _expected(name: str, wanted: Shape, sizes: Sizes) -> str:
    """Says what shape was wanted, in numbers as far as others say them."""
    parts, others = [], []
    for axis in (*wanted.before, *([wanted.many] if wanted.many else ()), *wanted.after):
        owner, many = sizes.owner.get(axis, name), axis == wanted.many
        if owner == name:
            parts.append(f"*{axis}" if many else axis)
        else:
            parts += map(str, sizes.known[axis] if many else [sizes.known[axis]])
            others += [] if owner in others else [owner]
    said = " and ".join(f"the {x}" if x == "process" else x for x in others)
    return f"[{', '.join(parts)}]" + (f" as in {said}" if others else "")


def _last(axes: tuple[str, ...], shape: tuple[int, ...]) -> zip:
    return zip(axes, shape[len(shape) - len(axes) :], strict=True)


def _is_union(annotation: Any) -> bool:
    return typing.get_origin(annotation) in (typing.Union, types.UnionType)


def _is_array(annotation: Any) -> bool:
    return annotation is jax.Array or hasattr(annotation, "dim_str")


def _array_type(annotation: Any) -> ArrayType:
    if annotation is jax.Array:
        return ArrayType("numbers", None)
    kinds = {jaxtyping.Int: "integers", jaxtyping.Float: "floats", jaxtyping.Key: "key"}
    kinds |= {jaxtyping.Bool: "booleans"}
    words, kind = annotation.dim_str.split(), kinds.get(annotation.dtype, "numbers")
    if words == ["..."]:
        return ArrayType(kind, Shape((), "...", ()))
    many = [i for i, word in enumerate(words) if word.startswith("*")]
    if not many:
        return ArrayType(kind, Shape(tuple(words), None, ()))
    i = many[0]
    return ArrayType(kind, Shape(tuple(words[:i]), words[i][1:], tuple(words[i + 1 :])))


def _conversion(annotation: Any) -> Convert | None:
    """Returns what makes an argument of this type, or raises TypeError; None where anything goes."""
    origin, options = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is Literal:
        return lambda name, x: _one_of(name, x, options)
    if origin is collections.abc.Callable:
        return _function
    if origin in (collections.abc.Sequence, tuple) and options[0] is int:
        return _integers
    if origin is collections.abc.Iterable:
        return _iterable
    plain = {int: _integer, float: _real, str: _text, np.ndarray: real_array}
    if annotation in plain:
        return plain[annotation]
    return (lambda name, x: _instance(name, x, annotation)) if isinstance(annotation, type) else None


def _integer(name: str, x: Any) -> int:
    try:
        if isinstance(x, bool | np.bool_) or getattr(x, "dtype", None) == np.bool_:
            raise TypeError
        return operator.index(x)
    except TypeError as error:
        raise TypeError(f"{name} is {describe(x)}, expected a whole number: pass an int") from error


def _real(name: str, x: Any) -> Any:
    if isinstance(x, jax.Array) and x.shape == () and "numbers" in _kinds(x.dtype):
        return x
    x = x[()] if isinstance(x, np.ndarray) and x.shape == () else x
    if isinstance(x, bool | np.bool_) or not isinstance(x, int | float | np.integer | np.floating):
        raise TypeError(f"{name} is {describe(x)}, expected a number: pass a float")
    if not np.isfinite(x):
        raise ValueError(f"{name} = {x}: it must be a finite number")
    return x.item() if isinstance(x, np.generic) else x


def _number_or_array(name: str, x: Any) -> Any:
    to_array(name, x, "numbers")
    return x


def _text(name: str, x: Any) -> str:
    if not isinstance(x, str):
        raise TypeError(f"{name} is {describe(x)}, expected a string")
    return x


def _integers(name: str, x: Any) -> tuple[int, ...]:
    if isinstance(x, str | dict) or not hasattr(x, "__iter__"):
        raise TypeError(f"{name} is {describe(x)}, expected whole numbers: pass a tuple of ints")
    return tuple(_integer(f"{name}[{i}]", n) for i, n in enumerate(x))


def _iterable(name: str, x: Any) -> Any:
    if isinstance(x, str | dict) or not hasattr(x, "__iter__"):
        raise TypeError(f"{name} is {describe(x)}, expected a sequence of arrays")
    return x


def _one_of(name: str, x: Any, options: tuple[Any, ...]) -> Any:
    if not isinstance(x, str) or x not in options:
        cure = cure_for_choice(x, options)
        raise ValueError(f"{name} = {describe(x)}: it must be {' or '.join(map(repr, options))}{cure}")
    return x


def _function(name: str, x: Any) -> Any:
    if not callable(x):
        raise TypeError(f"{name} is {describe(x)}, expected a function")
    return x


def _instance(name: str, x: Any, cls: type) -> Any:
    if not isinstance(x, cls):
        raise TypeError(f"{name} is {describe(x)}, expected a {cls.__name__}")
    return x
