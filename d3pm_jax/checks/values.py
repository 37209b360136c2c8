"""Checks values against a range where they are known, and marks results where they are not."""

import math
from collections.abc import Mapping
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array


class Range(NamedTuple):
    """Says which values an argument may have."""

    low: int | float
    high: int | float | Literal["K", "T"]  # a number; categories end at K - 1, steps at T
    cure: str
    open_low: bool = False  # low itself is not allowed
    open_high: bool = False

    def last(self, sizes: Mapping[str, Any]) -> int | float:
        """Returns the upper end, from the sizes of the process."""
        if self.high == "K":
            return sizes["K"] - 1
        return sizes["T"] if self.high == "T" else self.high


def steps(first: int) -> Range:
    """Returns the range first..T."""
    return Range(first, "T", "t counts from 1 (least noise) to T; t = 0 is clean data")


def at_least(low: int | float, high: int | float = math.inf) -> Range:
    """Returns the range from low on, to high if there is an end."""
    return Range(low, high, "choose another number", open_high=high == math.inf)


NUM_STEPS = at_least(1, 2**23)  # the grid of a float32 uniform
NUM_CATEGORIES = at_least(2, 2**31 - 1)  # int32
CATEGORIES = Range(0, "K", "the process has K = {K} categories; give it more or fix the data")
CATEGORY = Range(0, "K", "it must be one of the K = {K} categories")
NOISE = Range(0, 1, "noise is uniform in [0, 1), as jax.random.uniform gives it", open_high=True)
TIME = Range(0, 1, "time runs from 0 (clean data) to 1")
SHARE = Range(0, 1, "choose a number in between")
PROBABILITY = Range(0, 1, "these are probabilities, and none is 0", open_low=True)
POSITIVE = Range(0, math.inf, "choose another number", open_low=True, open_high=True)


def check_num_categories(K: int) -> int:
    """Returns K. Raises ValueError unless it is at least 2."""
    check("K", K, NUM_CATEGORIES, {})
    return K


def check_num_steps(T: int) -> int:
    """Returns T. Raises ValueError unless it is at least 1."""
    check("T", T, NUM_STEPS, {})
    return T


def check(name: str, x: Any, allowed: Range, sizes: Mapping[str, Any]) -> None:
    """Raises ValueError unless every value of x, an array or a number, is in the range."""
    low, high = allowed.low, allowed.last(sizes)
    values = np.asarray(x)
    if values.size == 0 or _surely_inside(values, low, high, allowed.open_high):
        return
    wrong = values[~np.asarray(_inside(values, low, high, allowed))]
    if wrong.size:
        shown = f"{name} {'=' if values.ndim == 0 else 'contains'} {wrong.ravel()[0]}"
        if high == math.inf:
            raise ValueError(f"{shown}: it must be {'above' if allowed.open_low else 'at least'} {low:g}")
        ends = _interval(allowed, low, high, values.dtype.kind in "iu")
        raise ValueError(f"{shown}, outside {ends}: {allowed.cure.format(**sizes)}")


def outside(x: Array, allowed: Range, sizes: Mapping[str, Any]) -> Array:
    """Tells for each value of x, unknown as yet, whether it is out of range."""
    if jnp.issubdtype(x.dtype, jnp.integer):
        x = x.astype(jnp.promote_types(x.dtype, jnp.int32))  # which can hold K
    return ~_inside(x, allowed.low, allowed.last(sizes), allowed)


def mark(result: Any, wrong: Array) -> Any:
    """Returns the result with NaN, or -1 if integer, where the argument was wrong.

    Args:
        result: a tree of arrays.
        wrong: bool, [*S] or a prefix of it. An array of the result that has other leading axes than these
            is marked where any is wrong, all of it where nothing matches.
    """
    return jax.tree.map(lambda x: _mark(x, wrong), result)


def _mark(x: Array, wrong: Array) -> Array:
    shared = 0
    while shared < min(x.ndim, wrong.ndim) and x.shape[shared] == wrong.shape[shared]:
        shared += 1
    wrong = jnp.any(wrong, axis=tuple(range(shared, wrong.ndim)))
    wrong = jnp.reshape(wrong, wrong.shape + (1,) * (x.ndim - shared))
    failed = jnp.asarray(jnp.nan if jnp.issubdtype(x.dtype, jnp.floating) else -1, x.dtype)
    return jnp.where(wrong, failed, x)


def _inside(x: Any, low: int | float, high: int | float, allowed: Range) -> Any:
    above = x > low if allowed.open_low else x >= low
    return above & (x < high if allowed.open_high else x <= high)


def _surely_inside(values: np.ndarray, low: int | float, high: int | float, open_high: bool) -> bool:
    """Tells in one pass that all are inside; False where that would take another.

    Read as unsigned integers, a negative number, or a NaN, is larger than any number from 0 on, and floats
    from 0 on have the order of their bits.
    """
    if low == 0 and values.dtype in (np.int32, np.int64):
        return bool(values.view(f"u{values.itemsize}").max() <= high)
    if low == 0 and open_high and values.dtype in (np.float32, np.float64) and high < math.inf:
        end = np.asarray(high, values.dtype).view(f"u{values.itemsize}")
        return bool(values.view(f"u{values.itemsize}").max() < end)
    return False


def _interval(allowed: Range, low: int | float, high: int | float, integers: bool) -> str:
    if integers:
        return f"{low:g}..{high:g}"
    return f"{'(' if allowed.open_low else '['}{low:g}, {high:g}{')' if allowed.open_high else ']'}"
