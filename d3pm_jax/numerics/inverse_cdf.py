"""Turns uniform noise into categories by inverse cumulative distributions whose boundaries are exact.

A row of probabilities cuts [0, 1) into intervals, one after the other, and a noise value draws the category
of the interval that it falls in: the first k whose end p_0 + ... + p_k lies above it. Ends are sums of two
floats (`double_float`), so that each category gets the number of grid points that its probability asks for,
rounded up or down. In one float the ends of a long row would be off by many grid points.

A noise value is u, in [0, 1), or u + g u_low with a second word u_low in [0, 1), where g is the grid of u:
2^-23 in float32, 2^-52 in float64. With u alone an event cannot be likelier or rarer by less than g; with
both words probabilities far below it come out right.

The order in which an end is added up is part of what a noise value means: another order has other last bits,
and would now and then draw another category. So there is one order on every backend, whatever the form of the
program: blocks of 16 categories from left to right, blocks of 16 blocks from left to right, and so on; a row
of at most 32 is one block. Within a block the ends go on from the sum of all that is before it. Between
devices only the last bit of an exponential may differ.

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
from d3pm_jax.numerics.double_float import DoubleFloat

NEG_INF = -jnp.inf
# A row of at most LARGEST categories is one block; a longer one is cut into blocks of BLOCK. A larger block
# means fewer levels, but more additions, one after the other, in the block that is searched at each level. A
# second level costs more than to search 32 entries instead of 16, so a short row is one block. Neither number
# may change any more: they set the order of the additions, which is part of what a noise value means.
LARGEST = 32
BLOCK = 16


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
    # A draw is an integer, which has no gradient.
    log_p, u, u_low = lax.stop_gradient((log_p, u, u_low))
    return _categorical(log_p, u, u_low)


@jax.jit
def _categorical(log_p: Array, u: Array, u_low: Array | None) -> Array:
    noise = double_float.noise_from_words(u, u_low)
    log_p = log_p.astype(jnp.promote_types(log_p.dtype, jnp.float32))

    def draw_part(log_p: Array, noise_high: Array, noise_low: Array) -> tuple[Array]:
        return (_draw(log_p, (noise_high, noise_low)),)

    (categories,) = tiles.apply_by_parts(draw_part, log_p, *noise)  # [*S]
    return categories


def _draw(log_p: Float[Array, "*S K"], noise: DoubleFloat) -> Int[Array, "*S"]:
    """Draws a block of the coarsest level, then a block in it, and so on down to a category."""
    K = log_p.shape[-1]
    size = BLOCK
    if K <= LARGEST:
        size = K
    top = jnp.max(log_p, axis=-1, keepdims=True)  # [*S, 1]
    log_p = _pad(log_p, size, NEG_INF)

    # The sums of blocks of categories, of blocks of such blocks, and so on up to one sum of the whole row.
    # Each level but the last is padded to whole blocks before these are summed.
    levels = [_sum_blocks(_probabilities(log_p, top), size)]  # pairs [*S, n], n ever smaller
    while levels[-1][0].shape[-1] > 1:
        levels[-1] = tuple(_pad(x, size, 0.0) for x in levels[-1])
        levels.append(_sum_blocks(levels[-1], size))
    total = tuple(x[..., 0] for x in levels[-1])

    # The row is not normalised. Scaling the noise by its sum costs one product for an element, where dividing
    # the row would cost one for each category and round each of them.
    target = double_float.multiply(noise, total)

    # From the coarsest level down, `index` is the block that the target falls in, and `start` the sum of all
    # that is before this block. The one sum of the whole row, levels[-1], leaves nothing to choose. Only one
    # block of each level is read again. The probabilities of the last one are computed anew from its logits:
    # keeping those of all categories would write a row to memory.
    index = jnp.zeros(top.shape[:-1], jnp.int32)
    start = tuple(jnp.zeros_like(x) for x in target)
    for level in reversed(levels[:-1]):
        sums = tuple(_gather_block(x, index, size) for x in level)
        inside, start = _find_target(target, sums, start)
        index = index * size + inside
    p = _probabilities(_gather_block(log_p, index, size), top)
    inside, _ = _find_target(target, p, start)

    # A row of -inf, or one with a NaN, has a sum that is not finite. The maximum does not show it, as it may
    # drop a NaN; no sum does.
    return jnp.where(jnp.isfinite(target[0]), index * size + inside, -1)


def find_first(passed: Callable[[Array], Array], K: int, shape: tuple[int, ...]) -> Array:
    """Finds the first k of 0..K-1 for which passed(k) is false, by bisection; K where there is none.

    Args:
        passed: k int32 -> bool, both of this shape; true for each element up to some k, and false from there.
        K: how many k there are.
        shape: that of the result.

    Returns:
        int32, each in 0..K.
    """
    # k counts how many are passed for sure. Steps of falling powers of two add up to any number up to K. A
    # step is taken if the last k within it is passed, since then all before that one are passed too.
    k = jnp.zeros(shape, jnp.int32)
    for power in reversed(range(K.bit_length())):
        step = 2**power
        last_is_passed = passed(jnp.minimum(k + step, K) - 1)
        k = jnp.where((k + step <= K) & last_is_passed, k + step, k)
    return k


def _pad(x: Float[Array, "*S n"], size: int, value: float) -> Float[Array, "*S m"]:
    """Appends entries of this value, so that blocks of this size divide the last axis."""
    missing = -x.shape[-1] % size
    return jnp.pad(x, [(0, 0)] * (x.ndim - 1) + [(0, missing)], constant_values=value)


def _probabilities(log_p: Float[Array, "*S n"], top: Float[Array, "*S 1"]) -> DoubleFloat:
    """exp(log_p - top) as pairs, whose low part is 0."""
    p = jnp.exp(log_p - top)
    return p, jnp.zeros_like(p)


def _gather_block(x: Float[Array, "*S n"], index: Int[Array, "*S"], size: int) -> Float[Array, "*S size"]:
    """Gathers of each row the block that the index counts."""
    if x.shape[-1] == size:
        return x
    blocks = jnp.reshape(x, (*x.shape[:-1], x.shape[-1] // size, size))  # [*S, n / size, size]
    return jnp.take_along_axis(blocks, index[..., None, None], axis=-2, mode="promise_in_bounds")[..., 0, :]


def _sum_blocks(x: DoubleFloat, size: int) -> DoubleFloat:
    """Sums the blocks of pairs [*S, n], from left to right: [*S, n / size]."""
    blocks = tuple(jnp.reshape(a, (*a.shape[:-1], a.shape[-1] // size, size)) for a in x)

    # A CPU takes the reduction of XLA, which goes from left to right there and nowhere else: on an
    # accelerator it is a tree, whose order depends on the shape. So other devices add up slices, in an order
    # that the program says. Both make the same additions of the same numbers, and tests hold them together to
    # the last bit.
    return lax.platform_dependent(blocks, cpu=_sum_by_reduction, default=_sum_by_slices)


def _sum_by_reduction(blocks: DoubleFloat) -> DoubleFloat:
    """Sums pairs over the last axis, by one reduction that carries both parts."""
    zero = jnp.zeros((), blocks[0].dtype)
    high, low = lax.reduce(blocks, (zero, zero), _add, (blocks[0].ndim - 1,))
    return double_float.two_sum(high, low)


def _sum_by_slices(blocks: DoubleFloat) -> DoubleFloat:
    """Sums pairs over the last axis, one slice after the other."""
    total = tuple(x[..., 0] for x in blocks)
    for i in range(1, blocks[0].shape[-1]):
        total = _add(total, tuple(x[..., i] for x in blocks))

    # Without the barrier XLA would merge these additions into everything that reads a sum, the next level and
    # the search, and make them again for each.
    return lax.optimization_barrier(double_float.two_sum(*total))


def _add(a: DoubleFloat, b: DoubleFloat) -> DoubleFloat:
    """Adds pairs, without the last step of `double_float.add`, which makes a pair of the sum.

    Over the few additions of a block the low part may grow to some last places of the high one, which a float
    holds; so the last step is taken once, at the end of a block.
    """
    high, error = double_float.two_sum(a[0], b[0])
    return high, a[1] + (error + b[1])


def _find_target(target: DoubleFloat, x: DoubleFloat, start: DoubleFloat) -> tuple[Array, DoubleFloat]:
    """Finds the entry of pairs [*S, n], laid one behind the other from a start on, that a target falls in.

    Entry i ends at start + x_0 + ... + x_i.

    Returns:
        int32 [*S], the number of ends that are not above the target, but at most the last entry above 0; and
        the sum of the start and the entries whose end is not above the target.
    """
    # The target lies below the end of the last entry, but for rounding: the sum of a block and the ends
    # within it are added up in other orders, and the target is rounded too. So it may be that no end is above
    # the target, and `count` is then the number of all entries. The minimum makes the last one above 0 of it,
    # since an entry of 0 is never drawn.
    #
    # In that case the sum returned is that of all entries, which ends behind the block that is chosen. The
    # next level goes on from there: it takes the first entry of the block that is larger than what the
    # rounding left, or else its last one above 0. Each of them may be drawn, and this happens as seldom as a
    # pair is rounded across a noise value.
    high, low = x
    end = start
    count = 0
    last_positive = 0
    for i in range(high.shape[-1]):
        last_positive = jnp.where(high[..., i] > 0, i, last_positive)
        end = double_float.add(end, (high[..., i], low[..., i]))
        is_above = double_float.is_less(target, end)
        count += jnp.where(is_above, 0, 1)
        start = tuple(jnp.where(is_above, before, after) for before, after in zip(start, end, strict=True))
    return jnp.minimum(count, last_positive), start
