"""Turns uniform noise into categories by inverse cumulative distributions whose boundaries are exact.

A noise value is u, in [0, 1), or u + g u_low with a second word u_low in [0, 1), where g is the grid of u:
2^-23 in float32, 2^-52 in float64. With u alone an event cannot be likelier or rarer by less than g; with
both words probabilities far below it come out right. Boundaries are sums of two floats (Dekker 1971), so
that each category gets the number of grid points that its probability asks for, rounded up or down.

This is the rule of reverse steps and of any row. Families draw x_t by rules of their own, which cost less and
are said by their `draw_q`; so does `losses.continuous`.
"""

import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Int

from d3pm_jax.checks import NOISE, declared
from d3pm_jax.numerics import double_float, tiles
from d3pm_jax.numerics.double_float import Pair

NEG_INF = -jnp.inf


@declared(u=NOISE, u_low=NOISE)
def categorical(
    log_p: Float[Array, "*S K"], u: Float[Array, "*S"], u_low: Float[Array, "*S"] | None = None
) -> Int[Array, "*S"]:
    """Draws from exp(log_p): the first k with p_k > 0 and p_0 + ... + p_k > u (p_0 + ... + p_{K-1}).

    A p_k below the smallest normal float, the largest of the row being 1, counts as 0. The categories are
    searched in two levels, blocks first, so the whole row is read once or twice.

    Args:
        log_p: unnormalised log-probabilities in nats.
        u: uniform noise in [0, 1).
        u_low: its second word.

    Returns:
        int32 categories; -1 where log_p has no distribution (all -inf, or NaN).
    """
    return _categorical(log_p, u, u_low)


@jax.jit
def _categorical(log_p: Array, u: Array, u_low: Array | None) -> Array:
    noise = double_float.from_words(u, u_low)
    log_p = log_p.astype(jnp.promote_types(log_p.dtype, jnp.float32))
    return tiles.over_parts(lambda *part: (_draw(part[0], part[1:]),), log_p, *noise)[0]


def _draw(log_p: Array, noise: Pair) -> Array:
    K = log_p.shape[-1]
    size = math.ceil(math.sqrt(K)) if K > 32 else K
    log_p = jnp.pad(log_p, [(0, 0)] * (log_p.ndim - 1) + [(0, -K % size)], constant_values=NEG_INF)
    top = jnp.max(log_p, axis=-1, keepdims=True)
    blocks = jnp.reshape(log_p - top, (*log_p.shape[:-1], log_p.shape[-1] // size, size))
    block_ends = _cumulative(_block_sums(jnp.exp(blocks)))
    target = double_float.times(noise, tuple(x[-1] for x in block_ends))
    block = jnp.sum(_at_most(block_ends, target), axis=0, dtype=jnp.int32)
    before = tuple(jnp.sum(jnp.where(_rows(x) == block[None] - 1, x, 0.0), axis=0) for x in block_ends)
    inside = jnp.exp(jnp.take_along_axis(blocks, block[..., None, None], axis=-2)[..., 0, :])
    inside = jnp.moveaxis(inside, -1, 0)
    ends = _cumulative((inside, jnp.zeros_like(inside)), before)
    k = jnp.sum(_at_most(ends, target), axis=0, dtype=jnp.int32)
    last = jnp.max(jnp.where(inside > 0, _rows(inside), 0), axis=0)
    drawn = block * size + jnp.minimum(k, last)  # rounding of the block sums can leave none in the block
    return jnp.where(jnp.isfinite(top[..., 0]), drawn, -1)


def search(passed: Callable[[Array], Array], K: int, shape: tuple[int, ...]) -> Array:
    """Finds the first k in 0..K-1 that is not passed, K where all are; behind it none is passed."""
    k = jnp.zeros(shape, jnp.int32)
    for step in (2**i for i in reversed(range(K.bit_length()))):
        ahead = passed(jnp.minimum(k + step, K) - 1)
        k = jnp.where((k + step <= K) & ahead, k + step, k)
    return k


def _block_sums(p: Float[Array, "*S n size"]) -> Pair:
    """Sums the blocks, [n, *S]: a part that floats add without error, and the small rest."""
    shift = 1.5 * 2.0 ** math.ceil(math.log2(p.shape[-1]))
    coarse = (p + shift) - shift  # p rounded to the grid of floats near shift: the sum stays on that grid
    sums = double_float.two_sum(jnp.sum(coarse, axis=-1), jnp.sum(p - coarse, axis=-1))
    return jnp.moveaxis(sums[0], -1, 0), jnp.moveaxis(sums[1], -1, 0)


def _cumulative(x: Pair, start: Pair | None = None) -> Pair:
    """Returns the cumulative sums over the first axis, from a start on."""
    zero = jnp.zeros(x[0].shape[1:], x[0].dtype)

    def add(total: Pair, term: Pair) -> tuple[Pair, Pair]:
        total = double_float.plus(total, term)
        return total, total

    return lax.scan(add, (zero, zero) if start is None else start, x)[1]


def _at_most(a: Pair, b: Pair) -> Array:
    """Tells whether a <= b, for a with one more axis in front."""
    return ~double_float.less((b[0][None], b[1][None]), a)


def _rows(x: Array) -> Array:
    """Returns the index along the first axis, in every place."""
    return lax.broadcasted_iota(jnp.int32, x.shape, 0)
