"""Reads annotations: which type an argument must have, and which shape if it is an array."""

import inspect
import operator
import types
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cache, partial
from typing import Annotated, Any, Literal, NamedTuple, TypeVar, Union, get_args, get_origin, get_type_hints

import jax
import jax.core
import jax.numpy as jnp
import jaxtyping
import numpy as np

from d3pm_jax.checks.arrays import describe, real_array, shorten_value
from d3pm_jax.checks.hints import LARGEST_INT, check_value, is_finite, is_restricted
from d3pm_jax.checks.shapes import Shape, parse_shape

Convert = Callable[[str, Any], Any]  # (name, value) -> what the function is called with

# The shape of a result, None where it is not known, or those of a tuple of results.
ResultShape = Shape | list["ResultShape"] | None


class EntryType(NamedTuple):
    """Says what the entries of an array must be."""

    name: str
    dtypes: tuple[Any, ...]
    cure: str


NUMBERS = EntryType("numbers", (jnp.integer, jnp.floating), "pass an array or a number")
CURE_OF_INTEGERS = "pass category or step numbers as int32, not one-hot vectors or probabilities"
ENTRY_TYPES: dict[Any, EntryType] = {
    jaxtyping.Int: EntryType("integers", (jnp.integer,), CURE_OF_INTEGERS),
    jaxtyping.Float: EntryType("floats", (jnp.floating,), "pass float32, for example"),
    jaxtyping.Shaped: EntryType("numbers or booleans", (*NUMBERS.dtypes, jnp.bool_), NUMBERS.cure),
    jaxtyping.Bool: EntryType("booleans", (jnp.bool_,), "pass a comparison, such as x >= 0"),
    jaxtyping.Key: EntryType("key", (jax.dtypes.prng_key,), "pass jax.random.key(seed)"),
}


class Expected(NamedTuple):
    """Says what an argument may be: an array, or what a conversion takes, or None."""

    entry_type: EntryType | None  # None: no array
    shape: Shape | None  # None: any
    convert: Convert | None  # None: an array, or not checked
    is_optional: bool


def read_annotation(annotation: Any) -> Expected:
    """Returns what an annotation asks for; nothing where there is none."""
    if is_restricted(annotation):
        return Expected(None, None, partial(check_value, hint=annotation), is_optional=False)
    entry_type = None
    shape = None
    convert = None
    options = list_options(annotation)
    for option in options:
        if option is jax.Array or hasattr(option, "dim_str"):
            # jaxtyping keeps its own class, such as Int or Float, as the `dtype` of an annotation. A plain
            # jax.Array has none, and means any numbers.
            entry_type = ENTRY_TYPES.get(getattr(option, "dtype", None), NUMBERS)
            shape = _read_shape_of_array(option)
        elif option is not types.NoneType:
            # Of several types that are no arrays the first that can be checked counts.
            convert = convert or _read_conversion(option)
    return Expected(entry_type, shape, convert, types.NoneType in options)


def list_options(annotation: Any) -> tuple[Any, ...]:
    """Returns the types of a union, and any other annotation as the only one."""
    if get_origin(annotation) in (Union, types.UnionType):
        return get_args(annotation)
    return (annotation,)


def read_shape(annotation: Any) -> ResultShape:
    """Returns the shape of an array, a list of them for a tuple of arrays, and None where none is written."""
    if get_origin(annotation) is tuple:
        return [read_shape(option) for option in get_args(annotation)]
    if hasattr(annotation, "_fields"):
        return [read_shape(hint) for hint in get_type_hints(annotation).values()]
    return _read_shape_of_array(annotation)


def _read_shape_of_array(annotation: Any) -> Shape | None:
    if not hasattr(annotation, "dim_str"):
        return None
    return parse_shape(annotation.dim_str.strip())


def read_tuple(annotation: Any) -> Any:
    """Returns the class of a named tuple that has an array for its first field, or None."""
    for option in list_options(annotation):
        if hasattr(option, "_fields"):
            first = next(iter(get_type_hints(option).values()))
            if read_annotation(first).shape is not None:
                return option
    return None


def is_callback(annotation: Any) -> bool:
    """Tells whether an argument of this annotation is a function that the kernel calls."""
    if get_origin(annotation) is Annotated:
        annotation = annotation.__origin__
    return get_origin(annotation) is Callable


def check_array(name: str, x: Any, entry_type: EntryType) -> Any:
    """Returns an array of JAX as it is, and any other array or number as an array of NumPy.

    That stays one of NumPy until its range is checked, as `to_jax` may round it.

    Raises:
        TypeError: it is neither an array nor a number, or not of this type.
    """
    if not isinstance(x, jax.Array):
        if isinstance(x, bool) or not isinstance(x, np.ndarray | np.generic | int | float):
            cure = entry_type.cure
            # An array of another framework may hold the right numbers, but is no key. What a callback returns
            # has a cure of its own.
            holds_numbers = entry_type in (NUMBERS, *ENTRY_TYPES.values()) and entry_type.name != "key"
            if hasattr(x, "__array__") and holds_numbers:
                cure = "pass numpy.asarray(x) of it"
            raise TypeError(f"{name} is {describe(x)}, expected an array of {entry_type.name}: {cure}")
        x = np.asarray(x)
    if not is_of_dtype(x.dtype, entry_type.dtypes):
        raise TypeError(f"{name} has dtype {x.dtype}, expected {entry_type.name}: {entry_type.cure}")
    return x


def promote_types(*arrays_or_types: Any) -> np.dtype:
    """Returns the type that arrays are brought to which this library promotes on purpose.

    Strict dtype promotion is for what happens by accident: it would refuse this question too.
    """
    with jax.numpy_dtype_promotion("standard"):
        return jnp.result_type(*arrays_or_types)


# issubdtype takes microseconds, and every call asks for each of its arrays.
@cache
def is_of_dtype(dtype: Any, wider: tuple[Any, ...]) -> bool:
    """Tells whether a dtype is a case of a wider one, such as jnp.integer."""
    return any(jnp.issubdtype(dtype, option) for option in wider)


def _read_conversion(annotation: Any) -> Convert | None:
    """Returns what makes an argument of this type, or raises TypeError; None where anything goes."""
    origin = get_origin(annotation)
    options = get_args(annotation)
    if is_callback(annotation):
        return _check_callable
    if origin in (Sequence, tuple) and options[0] is int:
        return _to_integers
    if origin in (Literal, tuple):
        return partial(check_value, hint=annotation)
    if origin is Iterable:
        return partial(_check_iterable, expected="a sequence of arrays")
    if origin is Sequence:
        return partial(_check_iterable, expected="a sequence")
    if origin is Mapping:
        return partial(_check_instance, cls=Mapping)
    if isinstance(annotation, TypeVar):
        return _check_numbers
    if annotation in (inspect.Parameter.empty, Any) or not isinstance(annotation, type):
        return None
    plain = {int: _to_integer, float: _to_number, np.ndarray: real_array}
    return plain.get(annotation, partial(_check_instance, cls=annotation))


def _to_integer(name: str, x: Any) -> int:
    if isinstance(x, jax.core.Tracer):
        raise TypeError(
            f"{name} is traced by jit, expected a whole number: mark it as static, "
            f"jax.jit(f, static_argnames={name.partition('[')[0]!r})"
        )
    try:
        # `operator.index` takes True for 1, which is refused like what it does not take.
        if isinstance(x, bool) or getattr(x, "dtype", None) == np.bool_:
            raise TypeError
        return operator.index(x)
    except TypeError as error:
        raise TypeError(f"{name} is {describe(x)}, expected a whole number: pass an int") from error


def _to_number(name: str, x: Any) -> Any:
    if isinstance(x, np.ndarray | np.generic) and x.shape == ():
        x = x.item()
    if isinstance(x, jax.Array) and x.shape == () and is_of_dtype(x.dtype, NUMBERS.dtypes):
        return x
    if isinstance(x, bool) or not isinstance(x, int | float):
        raise TypeError(f"{name} is {describe(x)}, expected a number: pass a float")
    if not is_finite(x):
        raise ValueError(f"{name} = {shorten_value(x)}: it must be a finite number")
    # As a whole number it would be one of int32 beside arrays.
    if isinstance(x, int) and abs(x) > LARGEST_INT:
        return float(x)
    return x


def _to_integers(name: str, x: Any) -> tuple[int, ...]:
    _check_iterable(name, x, "whole numbers: pass a tuple of ints")
    return tuple(_to_integer(f"{name}[{i}]", n) for i, n in enumerate(x))


def _check_callable(name: str, x: Any) -> Callable[..., Any]:
    if not callable(x):
        cure = ": pass its predict" if hasattr(x, "predict") else ""
        raise TypeError(f"{name} is {describe(x)}, expected a function{cure}")
    return x


def _check_numbers(name: str, x: Any) -> Any:
    """Refuses what holds no numbers, and leaves its type as it is, which a type variable stands for."""
    check_array(name, x, NUMBERS)
    return x


def _check_iterable(name: str, x: Any, expected: str) -> Any:
    # An array of no axes has the attribute, and nothing to go through.
    if isinstance(x, str | dict | type) or not hasattr(x, "__iter__") or getattr(x, "shape", None) == ():
        raise TypeError(f"{name} is {describe(x)}, expected {expected}")
    return x


def _check_instance(name: str, x: Any, cls: type) -> Any:
    if not isinstance(x, cls):
        type_name = "string" if cls is str else cls.__name__
        # A process of a config only describes one.
        cure = ": pass what its build() returns" if callable(getattr(x, "build", None)) else ""
        fields = getattr(cls, "_fields", ())
        if fields:
            cure = f": pass {cls.__name__}({', '.join(fields)})"
        if isinstance(x, type) and issubclass(x, cls):
            raise TypeError(f"{name} is the class {x.__name__} itself: pass an instance of it")
        article = "an" if type_name[0] in "AEIOU" else "a"
        raise TypeError(f"{name} is {describe(x)}, expected {article} {type_name}{cure}")
    return x
