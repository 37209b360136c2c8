"""Checks values against a range where they are known, and marks results where they are not."""

import math
from collections.abc import Callable, Sequence
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from d3pm_jax.checks.annotations import Shape, Sizes


class Range(NamedTuple):
    """Says which values an argument may have."""

    low: int | float
    high: int | float | Literal["K", "T"]  # a number; categories end at K - 1, steps at T
    cure: str
    open_low: bool = False  # low itself is not allowed
    open_high: bool = False

    def last(self, sizes: Sizes) -> int | float:
        """Returns the upper end, from the sizes of the process."""
        if self.high == "K":
            return sizes.known["K"] - 1
        return sizes.known["T"] if self.high == "T" else self.high


def steps(first: int) -> Range:
    """Returns the range first..T."""
    return Range(first, "T", "t counts from 1 (least noise) to T; t = 0 is clean data")


INT32 = Range(-(2**31), 2**31 - 1, "it is kept as int32")
INDEX = Range(0, 2**31 - 1, "it is kept as int32")


def at_least(low: int | float, high: int | float = math.inf) -> Range:
    """Returns the range from low on, to high if there is an end."""
    return Range(low, high, "choose a number in between", open_high=high == math.inf)


NUM_STEPS = at_least(1, 2**23)  # the grid of a float32 uniform
NUM_CATEGORIES = at_least(2, 2**31 - 1)  # int32
CATEGORIES = Range(0, "K", "{owner} has K = {K} categories; give it more or fix the data")
CATEGORY = Range(0, "K", "{owner} has K = {K} categories")
PART_OF_STEPS = Range(1, "T", "there are T = {T} steps")
NOISE = Range(0, 1, "noise is uniform in [0, 1), as jax.random.uniform gives it", open_high=True)
TIME = Range(0, 1, "time runs from 0 (clean data) to 1")
SHARE = Range(0, 1, "choose a number in between")
PROBABILITY = Range(0, 1, "these are probabilities, and none is 0", open_low=True)
POSITIVE = Range(0, math.inf, "choose a number above 0", open_low=True, open_high=True)


def check_num_categories(K: int) -> int:
    """Returns K. Raises ValueError unless it is at least 2."""
    check("K", K, NUM_CATEGORIES, Sizes())
    return K


def check_num_steps(T: int) -> int:
    """Returns T. Raises ValueError unless it is at least 1."""
    check("T", T, NUM_STEPS, Sizes())
    return T


def check(name: str, x: Any, allowed: Range, sizes: Sizes) -> None:
    """Raises ValueError unless every value of x, an array or a number, is in the range."""
    values = np.asarray(x)
    if tester(values, allowed, sizes)(values):
        return
    low, high = allowed.low, allowed.last(sizes)
    wrong = values[~np.asarray(_inside(values, low, high, allowed))]
    if wrong.size:
        shown = f"{name} {'=' if values.ndim == 0 else 'contains'} {wrong.ravel()[0]}"
        if high == math.inf:
            raise ValueError(f"{shown}: it must be {'above' if allowed.open_low else 'at least'} {low:g}")
        ends = _interval(allowed, low, high, values.dtype.kind in "iu")
        raise ValueError(f"{shown}, outside {ends}: {_cure(allowed, sizes)}")


def tester(like: Any, allowed: Range, sizes: Sizes) -> Callable[[Any], bool]:
    """Returns what tells, of arrays like this one, whether all values are in the range.

    It takes one pass from 0 on. Read as unsigned integers, a negative number, or a NaN, is larger than any
    other, and floats have the order of their bits; what is -0.0 is looked at again.
    """
    low, high = allowed.low, allowed.last(sizes)
    kind, size = like.dtype.kind, like.dtype.itemsize
    if like.size == 0:
        return lambda x: True
    if low == 0 and kind == "i":
        last = min(high, np.iinfo(like.dtype).max)
        return lambda x: np.asarray(x).view(f"u{size}").max() <= last
    if low == 0 and kind == "f" and not allowed.open_low and high < math.inf:
        end = np.asarray(high, like.dtype).view(f"u{size}")
        if allowed.open_high:
            end = end - 1
        return lambda x: np.asarray(x).view(f"u{size}").max() <= end
    return lambda x: bool(np.all(_inside(np.asarray(x), low, high, allowed)))


def outside(x: Array, allowed: Range, sizes: Sizes) -> Array:
    """Tells for each value of x, unknown as yet, whether it is out of range."""
    if jnp.issubdtype(x.dtype, jnp.integer):
        x = x.astype(jnp.promote_types(x.dtype, jnp.int32))  # which can hold K
    return ~_inside(x, allowed.low, allowed.last(sizes), allowed)


def to_jax(x: Any, allowed: Range | None) -> Any:
    """Returns arrays as those of JAX, integers as int32, and everything else as it is.

    What rounds up to an end that its range leaves out is the float below it: noise of float64, say.
    """
    if not isinstance(x, np.ndarray | np.generic | jax.Array):
        return x
    if jnp.issubdtype(x.dtype, jnp.integer):
        return x if x.dtype == jnp.int32 and isinstance(x, jax.Array) else jnp.asarray(x, jnp.int32)
    if isinstance(x, jax.Array) or not jnp.issubdtype(x.dtype, jnp.floating):
        return x
    rounded = x.astype(jax.dtypes.canonicalize_dtype(x.dtype))
    if allowed is not None and allowed.open_high and not isinstance(allowed.high, str):
        end = np.asarray(allowed.high, rounded.dtype)
        rounded = np.where(rounded >= end, np.nextafter(end, np.zeros_like(end)), rounded)
    return jnp.asarray(rounded)


class Outside(NamedTuple):
    """Says which values of an argument are out of range."""

    wrong: Array  # bool, of the shape of the argument
    axes: tuple[str, ...]  # the names of its axes


def mark(result: Any, shapes: Any, unknown: Sequence[Outside]) -> Any:
    """Returns the result with NaN, or -1 if integer, where an argument was wrong.

    An element is marked if it shares all named axes that it has in common with one that was wrong, so a
    result without any is marked as a whole. So are results whose axes are not known.

    Args:
        result: an array or a tuple of them.
        shapes: what `annotations.results` says of it.
        unknown: the arguments that were not known.
    """
    if isinstance(result, tuple) and isinstance(shapes, tuple) and not isinstance(shapes, Shape):
        marked = [mark(x, shape, unknown) for x, shape in zip(result, shapes, strict=True)]
        return type(result)(*marked) if hasattr(result, "_fields") else tuple(marked)
    known = shapes if isinstance(shapes, Shape) else None
    for each in unknown:
        result = jax.tree.map(lambda x, each=each: _mark(x, known, *each), result)
    return result


def _mark(x: Any, shape: Shape | None, wrong: Array, axes: tuple[str, ...]) -> Any:
    if not isinstance(x, jax.Array | np.ndarray):
        return x
    x = jnp.asarray(x)
    names = () if shape is None else shape.axes(x.ndim)
    wrong = jnp.any(wrong, axis=tuple(i for i, name in enumerate(axes) if name not in names))
    kept = [name for name in axes if name in names]
    wrong = jnp.transpose(wrong, sorted(range(len(kept)), key=lambda i: names.index(kept[i])))
    wrong = jnp.reshape(wrong, [n if name in kept else 1 for name, n in zip(names, x.shape, strict=False)])
    if jnp.issubdtype(x.dtype, jnp.floating):  # a product, so that the gradient is marked too
        return x * jnp.where(wrong, jnp.asarray(jnp.nan, x.dtype), jnp.asarray(1, x.dtype))
    if jnp.issubdtype(x.dtype, jnp.integer):
        return jnp.where(wrong, -1, x.astype(jnp.promote_types(x.dtype, jnp.int32)))
    return x


def _inside(x: Any, low: int | float, high: int | float, allowed: Range) -> Any:
    above = x > low if allowed.open_low else x >= low
    return above & (x < high if allowed.open_high else x <= high)


def _cure(allowed: Range, sizes: Sizes) -> str:
    owner = sizes.owner.get("K", "")
    owner = "the process" if owner == "process" else "the call" if owner == "K" else owner
    return allowed.cure.format(**sizes.known, owner=owner)


def _interval(allowed: Range, low: int | float, high: int | float, integers: bool) -> str:
    if integers:
        return f"{low}..{high}"
    return f"{'(' if allowed.open_low else '['}{low:g}, {high:g}{')' if allowed.open_high else ']'}"
