"""Computes with sums of two floats, which have about twice the digits of one (Dekker 1971)."""

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array

Pair = tuple[Array, ...]  # (high, low): their exact sum, low at most half a unit in the last place of high


def from_float64(x: np.ndarray) -> Array:
    """Splits float64 numbers into two rows whose sum they are, [2, ...], in JAX's default float type."""
    high = x.astype(jax.dtypes.canonicalize_dtype(float))
    return jnp.asarray(np.stack([high, (x - high).astype(high.dtype)]))


def quotient(noise: Pair, step: Pair) -> Array:
    """floor(noise / step), exact for positive steps and quotients below 2^20 or so."""
    k = jnp.floor(noise[0] / step[0])  # off by one at most
    k -= jnp.where(less(noise, times((k, jnp.zeros_like(k)), step)), 1.0, 0.0)
    k += jnp.where(less(noise, times((k + 1, jnp.zeros_like(k)), step)), 0.0, 1.0)
    return k.astype(jnp.int32)


def from_words(u: Array, u_low: Array | None) -> Pair:
    """Returns the noise u + eps u_low as a pair; u alone without a second word."""
    if u_low is None:
        return u, jnp.zeros_like(u)
    bits = jnp.finfo(u.dtype)
    high, low = two_sum(u, u_low * bits.eps)
    beyond = (high > 1) | ((high == 1) & (low >= 0))  # of a u on half this grid, as other libraries have
    return jnp.where(beyond, 1 - bits.epsneg, high), jnp.where(beyond, 0.0, low)


def less(a: Pair, b: Pair) -> Array:
    """Tells whether a < b."""
    return (a[0] - b[0]) + (a[1] - b[1]) < 0


def two_sum(a: Array, b: Array) -> Pair:
    """Computes a + b without error (Knuth)."""
    total = a + b
    part = total - a
    return total, (a - (total - part)) + (b - part)


def plus(a: Pair, b: Pair) -> Pair:
    """Computes a + b to about twice the digits of a float."""
    high, low = two_sum(a[0], b[0])
    return two_sum(high, low + (a[1] + b[1]))


def times(a: Pair, b: Pair) -> Pair:
    """Computes a b to about twice the digits of a float."""
    high = a[0] * b[0]
    (a1, a2), (b1, b2) = _split(a[0]), _split(b[0])
    error = ((a1 * b1 - high) + a1 * b2 + a2 * b1) + a2 * b2
    return two_sum(high, error + (a[0] * b[1] + a[1] * b[0]))


def over(a: Pair, b: Pair) -> Pair:
    """Computes a / b to about twice the digits of a float; b is positive."""
    high = a[0] / b[0]
    back = times((high, jnp.zeros_like(high)), b)
    return two_sum(high, ((a[0] - back[0]) + (a[1] - back[1])) / b[0])


def _split(x: Array) -> Pair:
    """Splits x into a sum of two floats of half its digits, whose products are exact."""
    bits = jnp.finfo(x.dtype)
    high = lax.reduce_precision(x, bits.nexp, bits.nmant // 2)
    return high, x - high
