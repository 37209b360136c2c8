"""Checks values against a range where they are known, and marks results where they are not."""

import math
from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from d3pm_jax.checks.annotations import Sizes


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


def at_least(low: int | float, high: int | float = math.inf) -> Range:
    """Returns the range from low on, to high if there is an end."""
    return Range(low, high, "choose another number", open_high=high == math.inf)


NUM_STEPS = at_least(1, 2**23)  # the grid of a float32 uniform
NUM_CATEGORIES = at_least(2, 2**31 - 1)  # int32
CATEGORIES = Range(0, "K", "{owner} has K = {K} categories; give it more or fix the data")
CATEGORY = Range(0, "K", "{owner} has K = {K} categories")
PART_OF_STEPS = Range(1, "T", "there are T = {T} steps")
NOISE = Range(0, 1, "noise is uniform in [0, 1), as jax.random.uniform gives it", open_high=True)
TIME = Range(0, 1, "time runs from 0 (clean data) to 1")
SHARE = Range(0, 1, "choose a number in between")
PROBABILITY = Range(0, 1, "these are probabilities, and none is 0", open_low=True)
POSITIVE = Range(0, math.inf, "choose another number", open_low=True, open_high=True)


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


def mark(result: Any, wrong: Array) -> Any:
    """Returns the result with NaN, or -1 if integer, where the argument was wrong.

    Args:
        result: a tree of arrays.
        wrong: bool, [*S] or a prefix of it. An array of the result that has other leading axes than these
            is marked where any is wrong, all of it where nothing matches.
    """
    return jax.tree.map(lambda x: _mark(x, wrong), result)


def _mark(x: Array, wrong: Array) -> Array:
    if not isinstance(x, jax.Array):
        return x
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


def _cure(allowed: Range, sizes: Sizes) -> str:
    owner = sizes.owner.get("K", "")
    owner = "the process" if owner == "process" else "the call" if owner == "K" else owner
    return allowed.cure.format(**sizes.known, owner=owner)


def _interval(allowed: Range, low: int | float, high: int | float, integers: bool) -> str:
    if integers:
        return f"{low:g}..{high:g}"
    return f"{'(' if allowed.open_low else '['}{low:g}, {high:g}{')' if allowed.open_high else ']'}"
