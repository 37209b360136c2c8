"""Checks values against a range where they are known, and marks results where they are not."""

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple, TypeVar

import jax
import jax.core
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from d3pm_jax.checks.annotations import ResultShape, is_of_dtype, promote_types
from d3pm_jax.checks.arrays import shorten_value
from d3pm_jax.checks.shapes import Shape, Sizes

# Where an argument, whose values only the program knows, is out of range, and the names of its axes.
Outside = tuple[Array, tuple[str, ...]]
AnyNumbers = TypeVar("AnyNumbers")


class Measure(NamedTuple):
    """Says what of the arguments has to lie in a range, in the place of an argument itself."""

    words: str
    compute: Callable[[dict[str, Any]], Array]  # of the arguments by name
    like: str  # the argument whose axes it has


class AllowedRange(NamedTuple):
    """Says which values an argument may have."""

    low: int | float
    high: int | float | str  # a number, or K or T of a process, or what a network says: see `last`
    cure: str
    open_low: bool = False  # low itself is not allowed
    open_high: bool = False
    not_after: str = ""  # the name of an argument: steps that these must not be after
    measure: Measure | None = None  # what lies in the range, if it is not the argument

    def last(self, sizes: Sizes) -> int | float:
        """Returns the upper end, from the sizes of the process or network."""
        if not isinstance(self.high, str):
            return self.high
        size = sizes[self.high].value
        # Steps are counted from 1, categories and classes from 0.
        if self.high in ("T", "max_time"):
            return size
        return size - 1

    def contains(self, x: Any, last: int | float) -> Any:
        """Tells of each entry of x whether it lies in the range, which ends at last."""
        above = x > self.low if self.open_low else x >= self.low
        below = x < last if self.open_high else x <= last
        return above & below


def steps(first: int, not_after: str = "") -> AllowedRange:
    """Returns the range first..T, or up to the steps that another argument holds."""
    return AllowedRange(
        first, "T", "t counts from 1 (least noise) to T; t = 0 is clean data", not_after=not_after
    )


def at_least(low: int | float, high: int | float = math.inf) -> AllowedRange:
    """Returns the range from low on, to high if there is an end."""
    return AllowedRange(low, high, "choose a number in between", open_high=high == math.inf)


INT32 = AllowedRange(-(2**31), 2**31 - 1, "it is kept as int32")
INDEX = AllowedRange(0, 2**31 - 1, "it is kept as int32")
NUM_STEPS = at_least(1, 2**23)  # the grid of a float32 uniform
NUM_CATEGORIES = at_least(2, 2**31 - 1)  # int32
CATEGORIES = AllowedRange(0, "K", "{owner} has K = {K} categories; give it more or fix the data")
CATEGORY = AllowedRange(0, "K", "{owner} has K = {K} categories")
PART_OF_STEPS = AllowedRange(1, "T", "there are T = {T} steps")
NOISE = AllowedRange(0, 1, "noise is uniform in [0, 1), as jax.random.uniform gives it", open_high=True)
TIME = AllowedRange(0, 1, "time runs from 0 (clean data) to 1")
SHARE = AllowedRange(0, 1, "choose a number in between")
BELOW_1 = AllowedRange(0, 1, "choose a number in between", open_high=True)
PROBABILITY = AllowedRange(0, 1, "these are probabilities, and none is 0", open_low=True)
FINITE = AllowedRange(-math.inf, math.inf, "", open_low=True, open_high=True)
SCORES = AllowedRange(-math.inf, math.inf, "", open_high=True)
NOT_NAN = AllowedRange(-math.inf, math.inf, "")
# Rounding may bring the log of 1 above 0.
LOG_PROBABILITY = AllowedRange(
    -math.inf, 1e-3, "it must be the log of a probability; of a density or a score subtract its largest value"
)
POSITIVE = AllowedRange(0, math.inf, "choose a number above 0", open_low=True, open_high=True)
FROM_0 = AllowedRange(0, math.inf, "choose a number from 0 on")
# What a program computed, whose rounding may leave a little too much.
ROUNDED_SHARE = AllowedRange(-0.01, 1.01, "these are probabilities")
ROUNDED_ENTROPY = AllowedRange(-0.01, math.inf, "these are entropies")


def check_range(name: str, x: AnyNumbers, allowed: AllowedRange, sizes: Sizes) -> AnyNumbers:
    """Returns x, an array or a number. Raises ValueError unless every value of it is in the range."""
    last = allowed.last(sizes)
    if isinstance(x, int | float) and allowed.contains(x, last):
        return x
    if isinstance(x, jax.Array) and not is_on_cpu(x) and x.size > 0:
        # The array stays on its device: one small program reduces it to two numbers, which are fetched. It
        # runs now, even where a program that closes over the array is being traced.
        with jax.ensure_compile_time_eval():
            values = np.asarray(_device_extremes(x))
    else:
        # On a CPU NumPy reads the memory of JAX as it is, in less time than the call of a program takes, and
        # with nothing to compile for each new shape.
        values = np.asarray(x)
    # The least and the greatest value decide for all. Where there is a NaN both are NaN, and no range
    # contains it, as it is neither above nor below anything.
    if values.size == 0 or (allowed.contains(values.min(), last) and allowed.contains(values.max(), last)):
        return x

    values = np.asarray(x)
    first_wrong = values[~np.asarray(allowed.contains(values, last))].ravel()[0]
    verb = "=" if values.ndim == 0 else "contains"
    # Python refuses to print an int that NumPy has no type for.
    shown = shorten_value(first_wrong) if values.dtype == object else first_wrong
    problem = f"{name} {verb} {shown}"
    without_ends = {FINITE: "finite", SCORES: "finite, or -inf", NOT_NAN: "a number, or infinite"}
    if allowed in without_ends:
        raise ValueError(f"{problem}: it must be {without_ends[allowed]}")
    if last == math.inf:
        side = "above" if allowed.open_low else "at least"
        raise ValueError(f"{problem}: it must be {side} {allowed.low:g}")
    raise ValueError(
        f"{problem}, outside {_describe_ends(allowed, last, values.dtype.kind in 'iu')}: "
        f"{_describe_cure(allowed, sizes)}"
    )


def check_places(name: str, x: Any, is_missing: Any, sizes: np.ndarray) -> None:
    """Raises ValueError where an argument has a category that its place has not.

    Args:
        name: of the argument.
        x: its values, [.., *S].
        is_missing: which of them these are.
        sizes: how many categories each place has, [*S].
    """
    if not np.any(is_missing):
        return
    index = tuple(np.argwhere(is_missing)[0].tolist())
    place = index[len(index) - sizes.ndim :]
    raise ValueError(
        f"{name} contains {np.asarray(x)[index]} at place {list(place)}, outside 0..{sizes[place] - 1}: the "
        f"process has {sizes[place]} categories there; give it more or fix the data"
    )


def subtract_steps(later: Any, earlier: Any) -> Any:
    """Returns later - earlier, of steps whose shapes are the beginnings of one shape."""
    numpy = np if is_known(later) and is_known(earlier) else jnp
    ndim = max(later.ndim, earlier.ndim)
    later, earlier = (
        numpy.asarray(x, np.int32).reshape(x.shape + (1,) * (ndim - x.ndim)) for x in (later, earlier)
    )
    return later - earlier


def is_known(x: Any) -> bool:
    """Tells whether the values of an argument can be read: not while a program is traced."""
    return not isinstance(x, jax.Array) or (not isinstance(x, jax.core.Tracer) and x.is_fully_addressable)


def is_on_cpu(x: jax.Array) -> bool:
    """Tells whether NumPy can read an array without a copy."""
    return next(iter(x.devices())).platform == "cpu"


@jax.jit
def _device_extremes(x: Array) -> Array:
    return jnp.stack([jnp.min(x), jnp.max(x)])


def to_jax(x: Any, allowed: AllowedRange | None) -> Any:
    """Returns an array of integers or floats as one of JAX, integers as int32, and others as they are.

    Rounding may bring a value up to an end that its range leaves out, as noise of float64 up to 1. It is then
    the float below that end.
    """
    if is_of_dtype(x.dtype, (jnp.integer,)):
        if isinstance(x, jax.Array) and x.dtype == np.int32:
            return x
        return jnp.asarray(x, jnp.int32)
    if isinstance(x, jax.Array) or not is_of_dtype(x.dtype, (jnp.floating,)):
        return x
    rounded = x.astype(jax.dtypes.canonicalize_dtype(x.dtype))
    if allowed is not None and allowed.open_high and not isinstance(allowed.high, str):
        end = np.asarray(allowed.high, rounded.dtype)
        rounded = np.where(rounded >= end, np.nextafter(end, np.zeros_like(end)), rounded)
    return jnp.asarray(rounded)


def find_outside(x: Array, shape: Shape | None, allowed: AllowedRange, sizes: Sizes) -> Outside:
    """Computes in the program which values of an argument are out of range, and names its axes."""
    if is_of_dtype(x.dtype, (jnp.integer,)):
        x = x.astype(promote_types(x.dtype, jnp.int32))  # which can hold K
    return locate(~allowed.contains(x, allowed.last(sizes)), shape)


def locate(is_wrong: Array, shape: Shape | None) -> Outside:
    """Returns where an argument of this shape is wrong with the names of its axes."""
    # An argument of any shape has axes that no result shares.
    axes = ("any",) * is_wrong.ndim if shape is None else shape.axes(is_wrong.ndim)
    return is_wrong, axes


def mark(result: Any, shape: ResultShape, outside: Sequence[Outside]) -> Any:
    """Returns the result with NaN, or -1 if integer, where an argument was out of range.

    An element is marked if it shares all named axes that it has in common with one that was wrong, so a
    result without any is marked as a whole. So are results whose axes are not known.

    Args:
        result: an array or a tuple of them.
        shape: what `annotations.read_shape` says of it.
        outside: where the arguments were wrong whose values only the program knows.
    """
    if not outside:
        return result
    if isinstance(shape, list):
        marked = [mark(x, shape_of_x, outside) for x, shape_of_x in zip(result, shape, strict=True)]
        if hasattr(result, "_fields"):
            return type(result)(*marked)
        return tuple(marked)
    for wrong, axes in outside:
        result = jax.tree.map(partial(_mark_array, shape=shape, wrong=wrong, axes=axes), result)
    return result


def _mark_array(x: Any, shape: Shape | None, wrong: Array, axes: tuple[str, ...]) -> Any:
    """Marks the entries of x that belong to a wrong entry of an argument with axes of these names."""
    if not isinstance(x, jax.Array | np.ndarray):
        return x
    x = jnp.asarray(x)
    names = () if shape is None else shape.axes(x.ndim)

    # An axis that x has not is reduced, and so are both axes of a square matrix, which mixes all entries.
    common = [name for name in axes if name in names and axes.count(name) == 1]
    wrong = jnp.any(wrong, axis=tuple(i for i, name in enumerate(axes) if name not in common))
    # The others are brought into the order that they have in x, and into its rank.
    wrong = jnp.transpose(wrong, sorted(range(len(common)), key=lambda i: names.index(common[i])))
    missing = [i for i, name in enumerate(names) if name not in common]
    wrong = jnp.expand_dims(wrong, missing)

    if jnp.issubdtype(x.dtype, jnp.floating):
        # A product with NaN, where a choice would leave the gradient of what was wrong as it is.
        return x * _nan_where(wrong, x.dtype)
    if jnp.issubdtype(x.dtype, jnp.integer):
        return jnp.where(wrong, -1, x.astype(promote_types(x.dtype, jnp.int32)))
    return x


# With jit of its own the NaN is a constant of a program, also in a gradient that is taken without jit:
# `jax_debug_nans` looks at what comes out of it, and would raise at the constant alone.
@partial(jax.jit, static_argnames="dtype", inline=True)
def _nan_where(wrong: Array, dtype: Any) -> Array:
    return jnp.where(wrong, jnp.asarray(jnp.nan, dtype), jnp.asarray(1, dtype))


def _describe_cure(allowed: AllowedRange, sizes: Sizes) -> str:
    words = {axis: size.value for axis, size in sizes.items()}
    if "K" in sizes:
        # An argument K is named as what was passed with the call.
        owner = sizes["K"].owner
        words["owner"] = "the call" if owner == "K" else owner
    return allowed.cure.format_map(words)


def _describe_ends(allowed: AllowedRange, last: int | float, is_integer: bool) -> str:
    if is_integer and not allowed.open_low and not allowed.open_high:
        return f"{allowed.low}..{last}"
    left = "(" if allowed.open_low else "["
    right = ")" if allowed.open_high else "]"
    return f"{left}{allowed.low:g}, {last:g}{right}"
