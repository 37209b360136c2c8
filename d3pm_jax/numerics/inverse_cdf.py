"""Turns uniform noise into categories by inverse cumulative distributions whose boundaries are exact.

A noise value is u, in [0, 1), or u + g u_low with a second word u_low in [0, 1), where g is the grid of u:
2^-23 in float32, 2^-52 in float64. With u alone an event cannot be likelier or rarer by less than g; with
both words probabilities far below it come out right. Boundaries are sums of two floats (Dekker 1971), so
that each category gets the number of grid points that its probability asks for, rounded up or down.

This is the rule of reverse steps and of any row. Families draw x_t by rules of their own, which cost less and
are said by their `draw_q`; so does `losses.continuous`.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Int

from d3pm_jax.checks import NOISE, declared
from d3pm_jax.cpu import tiles
from d3pm_jax.numerics import double_float
from d3pm_jax.numerics.double_float import Pair

NEG_INF = -jnp.inf
LARGEST, BLOCK = 32, 16  # a row of more categories is cut into blocks


@declared(u=NOISE, u_low=NOISE)
def categorical(
    log_p: Float[Array, "*S K"], u: Float[Array, "*S"], u_low: Float[Array, "*S"] | None = None
) -> Int[Array, "*S"]:
    """Draws from exp(log_p): the first k with p_k > 0 and p_0 + ... + p_k > u (p_0 + ... + p_{K-1}).

    A p_k below the smallest normal float, the largest of the row being 1, counts as 0. Blocks are searched
    first, so that most of a row is read once, for the sums of its blocks. These are made from left to right,
    in one order whatever the device.

    Args:
        log_p: unnormalised log-probabilities in nats.
        u: uniform noise in [0, 1).
        u_low: its second word.

    Returns:
        int32 categories; -1 where log_p has no distribution (all -inf, or NaN).
    """
    return _categorical(*lax.stop_gradient((log_p, u, u_low)))  # integers have no gradient


@jax.jit
def _categorical(log_p: Array, u: Array, u_low: Array | None) -> Array:
    noise = double_float.from_words(u, u_low)
    log_p = log_p.astype(jnp.promote_types(log_p.dtype, jnp.float32))
    return tiles.apply_by_parts(lambda *part: (_draw(part[0], part[1:]),), log_p, *noise)[0]


def _draw(log_p: Array, noise: Pair) -> Array:
    """Draws a block of the coarsest level, then a block in it, and so on down to a category."""
    K = log_p.shape[-1]
    size = K if K <= LARGEST else BLOCK
    top = jnp.max(log_p, axis=-1, keepdims=True)
    log_p = _padded(log_p, size, NEG_INF)
    sums = [_sums(_probabilities(log_p, top), size)]  # of blocks, of blocks of blocks, .., of all
    while sums[-1][0].shape[-1] > 1:
        sums[-1] = tuple(_padded(x, size, 0.0) for x in sums[-1])
        sums.append(_sums(sums[-1], size))
    target = double_float.times(noise, tuple(x[..., 0] for x in sums[-1]))
    k, start = jnp.zeros(top.shape[:-1], jnp.int32), tuple(jnp.zeros_like(x) for x in target)
    for level in reversed(sums[:-1]):
        inside, start = _first_above(target, tuple(_block(x, k, size) for x in level), start)
        k = k * size + inside
    inside, _ = _first_above(target, _probabilities(_block(log_p, k, size), top), start)
    return jnp.where(jnp.isfinite(target[0]), k * size + inside, -1)  # a maximum may drop a NaN, no sum does


def search(passed: Callable[[Array], Array], K: int, shape: tuple[int, ...]) -> Array:
    """Finds the first k in 0..K-1 that is not passed, K where all are; behind it none is passed."""
    k = jnp.zeros(shape, jnp.int32)
    for step in (2**i for i in reversed(range(K.bit_length()))):
        ahead = passed(jnp.minimum(k + step, K) - 1)
        k = jnp.where((k + step <= K) & ahead, k + step, k)
    return k


def _padded(x: Float[Array, "*S n"], size: int, value: float) -> Float[Array, "*S m"]:
    """Adds entries, so that blocks of this size divide them."""
    return jnp.pad(x, [(0, 0)] * (x.ndim - 1) + [(0, -x.shape[-1] % size)], constant_values=value)


def _probabilities(log_p: Float[Array, "*S n"], top: Float[Array, "*S 1"]) -> Pair:
    """Returns exp(log_p - top) as pairs."""
    p = jnp.exp(log_p - top)
    return p, jnp.zeros_like(p)


def _block(x: Float[Array, "*S n"], k: Int[Array, "*S"], size: int) -> Float[Array, "*S size"]:
    """Gathers block k of each row."""
    if x.shape[-1] == size:
        return x
    blocks = jnp.reshape(x, (*x.shape[:-1], x.shape[-1] // size, size))
    return jnp.take_along_axis(blocks, k[..., None, None], axis=-2, mode="promise_in_bounds")[..., 0, :]


def _sums(x: Pair, size: int) -> Pair:
    """Sums the blocks of pairs [*S, n], from left to right: [*S, n / size].

    The order is the same whatever the device. A CPU takes the reduction of XLA, which goes from left to right
    there and nowhere else; tests hold the two forms together to the last bit.
    """
    blocks = tuple(jnp.reshape(a, (*a.shape[:-1], a.shape[-1] // size, size)) for a in x)
    return lax.platform_dependent(blocks, cpu=_reduced, default=_added_up)


def _reduced(blocks: Pair) -> Pair:
    zero = jnp.zeros((), blocks[0].dtype)
    return double_float.two_sum(*lax.reduce(blocks, (zero, zero), _add, (blocks[0].ndim - 1,)))


def _added_up(blocks: Pair) -> Pair:
    """Adds slices; the barrier has each sum made once, rather than again for whatever reads it."""
    total = tuple(x[..., 0] for x in blocks)
    for i in range(1, blocks[0].shape[-1]):
        total = _add(total, tuple(x[..., i] for x in blocks))
    return lax.optimization_barrier(double_float.two_sum(*total))


def _add(a: Pair, b: Pair) -> Pair:
    """Adds pairs, but for what makes a pair of the sum: its low part may have grown."""
    high, rest = double_float.two_sum(a[0], b[0])
    return high, a[1] + (rest + b[1])


def _first_above(target: Pair, x: Pair, start: Pair) -> tuple[Array, Pair]:
    """Finds the first of pairs [*S, n] whose cumulative sum, from a start on, is above the target.

    Returns:
        Its index, and the sum before it. Rounding of sums of blocks can leave none: then it is the last that
        is not 0.
    """
    end, passed, last = start, 0, 0
    for i in range(x[0].shape[-1]):
        last = jnp.where(x[0][..., i] > 0, i, last)
        end = double_float.plus(end, (x[0][..., i], x[1][..., i]))
        over = double_float.less(target, end)
        passed += jnp.where(over, 0, 1)
        start = tuple(jnp.where(over, a, b) for a, b in zip(start, end, strict=True))
    return jnp.minimum(passed, last), start
