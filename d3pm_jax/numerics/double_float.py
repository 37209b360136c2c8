"""Computes with sums of two floats, which have about twice the digits of one (Dekker 1971).

A number is a pair (high, low) that stands for the exact sum high + low, with low at most half a unit in the
last place of high. The functions are the usual ones of such arithmetic: they compute what each rounding left
out, and carry it along.

The order of the operations is what makes them right. In exact arithmetic every error term is 0: a compiler
that regrouped a sum, or cancelled `total - a` against `total = a + b`, would lose all that the second float
is for. XLA keeps float operations in the order that is written, and the tests of this module run with its
optimisations on.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from d3pm_jax.cpu.loops import materialize

DoubleFloat = tuple[Array, ...]  # (high, low)


def split_float64(x: np.ndarray) -> Array:
    """Splits float64 numbers into two rows whose sum they are, [2, ...], in JAX's default float type."""
    high = x.astype(jax.dtypes.canonicalize_dtype(float))
    low = (x - high).astype(high.dtype)
    return jnp.asarray(np.stack([high, low]))


def noise_from_words(u: Array, u_low: Array | None) -> DoubleFloat:
    """Returns the noise u + eps u_low as a pair; u alone without a second word."""
    if u_low is None:
        return u, jnp.zeros_like(u)
    bits = jnp.finfo(u.dtype)
    high, low = two_sum(u, u_low * bits.eps)

    # The uniforms of JAX lie on the grid eps, so that u + eps u_low is below 1. Other libraries have uniforms
    # on a grid half as wide: with a second word their largest, 1 - eps / 2, can reach 1, and no category of a
    # row ends above that. Such a noise becomes the largest float below 1.
    at_least_one = (high > 1) | ((high == 1) & (low >= 0))
    return jnp.where(at_least_one, 1 - bits.epsneg, high), jnp.where(at_least_one, 0.0, low)


def is_less(a: DoubleFloat, b: DoubleFloat) -> Array:
    """Tells for each element whether a < b."""
    # Where the difference of the high parts is 0, the low parts decide. Where it is not, it is at least one
    # last place; each low part is at most half of one, so that both together can at most cancel it, which
    # means that a = b, but cannot turn its sign. Numbers that are close have an exact difference
    # (Sterbenz), and the rounding of any other does not change its sign.
    return (a[0] - b[0]) + (a[1] - b[1]) < 0


def two_sum(a: Array, b: Array) -> DoubleFloat:
    """Computes a + b without error: its rounded sum, and what the rounding left out."""
    # TwoSum (Knuth): b_part is what the rounded total took from b, total - b_part what it took from a. Both
    # differences from a and b are exact, whichever of the two is larger; FastTwoSum would save three
    # operations and needs |a| >= |b|, which nothing guarantees here.
    total = a + b
    b_part = total - a
    return total, (a - (total - b_part)) + (b - b_part)


def add(a: DoubleFloat, b: DoubleFloat) -> DoubleFloat:
    """Computes a + b to about twice the digits of a float."""
    high, low = two_sum(a[0], b[0])
    # The second sum makes a pair of the result: the low parts together may exceed half a last place of
    # `high`.
    return two_sum(high, low + (a[1] + b[1]))


def multiply(
    a: DoubleFloat, b: DoubleFloat, split_in_half: Callable[[Array], DoubleFloat] | None = None
) -> DoubleFloat:
    """Computes a b to about twice the digits of a float; `split_in_half` may be that of integers."""
    split_in_half = split_in_half or _split_in_half
    product = a[0] * b[0]

    # Dekker's product: the high parts are cut into halves of half the digits, whose products a float holds.
    # Added up from the largest, with `product` taken from the first, they give what the rounding of `product`
    # left out, and no addition is rounded.
    a1, a2 = split_in_half(a[0])
    b1, b2 = split_in_half(b[0])
    error = ((a1 * b1 - product) + a1 * b2 + a2 * b1) + a2 * b2

    # The product of the low parts is below the last place of the result, so it is left out.
    return two_sum(product, error + (a[0] * b[1] + a[1] * b[0]))


def divide(a: DoubleFloat, b: DoubleFloat) -> DoubleFloat:
    """Computes a / b to about twice the digits of a float; b is positive."""
    # Two steps of long division. The quotient of the high parts has the digits of one float. The remainder
    # a - quotient b is small, as most digits cancel, so the product has to be a pair. What comes out of the
    # subtraction needs the digits of one float only, and so does its own quotient, the low part of the
    # result.
    quotient = a[0] / b[0]
    product = multiply((quotient, jnp.zeros_like(quotient)), b)
    remainder = (a[0] - product[0]) + (a[1] - product[1])
    return two_sum(quotient, remainder / b[0])


def floor_divide(noise: DoubleFloat, step: DoubleFloat) -> Array:
    """floor(noise / step), exact for positive steps and quotients below 2^20 or so."""
    # The quotient of the high parts is off by one at most. Comparing the noise with k steps and with k + 1
    # steps, to the digits of pairs, mends it in either direction.
    k = jnp.floor(noise[0] / step[0])
    zero = jnp.zeros_like(k)
    k -= jnp.where(is_less(noise, multiply((k, zero), step)), 1.0, 0.0)
    k += jnp.where(is_less(noise, multiply((k + 1, zero), step)), 0.0, 1.0)
    return materialize(k.astype(jnp.int32))


def _split_in_half(x: Array) -> DoubleFloat:
    """Splits x into a sum of two floats that have about half its digits each."""
    # Dekker splits by multiplying with 2^12 + 1 (float32) and subtracting. Rounding to fewer digits does the
    # same in one operation, overflows nowhere, and leaves no expression that a compiler could simplify.
    #
    # A float has nmant + 1 digits, of which the first is not stored: 24 in float32 and 53 in float64. They
    # are split as 24 = 12 + 12 and 53 = 26 + 27. `high` gets the 12 or 26 digits, for its square has to
    # fit; `reduce_precision` counts stored digits, one fewer: 11 or 25. The remainder x - high is at most
    # half a last place of `high`, of either sign, so 11 or 26 digits are enough for it.
    bits = jnp.finfo(x.dtype)
    high = jax.lax.reduce_precision(x, bits.nexp, (bits.nmant - 1) // 2)
    return high, x - high


def split_in_half_by_integers(x: Array) -> DoubleFloat:
    """Splits a float32 as `multiply` does, for kernels: Triton has no `reduce_precision`."""
    if x.dtype != jnp.float32:
        return _split_in_half(x)
    # Half of the last place that is left, less one where the digit before is 0: to the nearest, ties to even.
    bits = jax.lax.bitcast_convert_type(x, jnp.int32)
    half = 0x7FF + ((bits >> 12) & 1)
    high = jax.lax.bitcast_convert_type((bits + half) & ~0xFFF, jnp.float32)
    return high, x - high
