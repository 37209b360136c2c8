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

from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import reduce

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from d3pm_jax.checks import NOISE, declared, promote_types
from d3pm_jax.cpu import loops, tiles
from d3pm_jax.numerics import double_float, logspace, rows
from d3pm_jax.numerics.double_float import DoubleFloat
from d3pm_jax.numerics.sliced_rows import CHUNK, RowPart, SlicedRow, gather_block, pad, reads_slices

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
    log_p, u, u_low = jax.lax.stop_gradient((log_p, u, u_low))
    return _categorical(log_p, u, u_low)


@jax.jit
def _categorical(log_p: Array, u: Array, u_low: Array | None) -> Array:
    noise = double_float.noise_from_words(u, u_low)
    # Rows have one type for all. Logits stay what they are where noise is wider.
    if promote_types(log_p.dtype, jnp.float32) != noise[0].dtype:
        return _draw_by_parts(log_p, *noise)
    return jax.lax.platform_dependent(log_p, *noise, cpu=_draw_by_parts, default=_draw_by_rows)


def _draw_by_parts(log_p: Array, *noise: Array) -> Array:
    log_p = logspace.at_least_float32(log_p)

    def draw_part(log_p: Array, noise_high: Array, noise_low: Array) -> tuple[Array]:
        return (_draw(log_p, (noise_high, noise_low)),)

    (categories,) = tiles.apply_by_parts(draw_part, log_p, *noise)  # [*S]
    return categories


def _block_size(K: int) -> int:
    if K <= LARGEST:
        return K
    return BLOCK


def _draw(log_p: Float[Array, "*S K"], noise: DoubleFloat) -> Int[Array, "*S"]:
    """Draws a block of the coarsest level, then a block in it, and so on down to a category."""
    size = _block_size(log_p.shape[-1])
    top = jnp.max(log_p, axis=-1, keepdims=True)  # [*S, 1]
    log_p = pad(log_p, size, NEG_INF)

    # The sums of blocks of categories, of blocks of such blocks, and so on up to one sum of the whole row.
    # Each level but the last is padded to whole blocks before these are summed.
    levels = [_sum_blocks(_probabilities(log_p, top), size)]  # pairs [*S, n], n ever smaller
    while levels[-1][0].shape[-1] > 1:
        levels[-1] = tuple(pad(x, size, 0.0) for x in levels[-1])
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
        sums = tuple(gather_block(x, index, size) for x in level)
        inside, start = _find_target(target, _entries(sums), start)
        index, start = loops.materialize((index * size + inside, start))
    p = _probabilities(gather_block(log_p, index, size), top)
    inside, _ = _find_target(target, _entries(p), start)

    # A row of -inf, or one with a NaN, has a sum that is not finite. The maximum does not show it, as it may
    # drop a NaN; no sum does.
    return loops.materialize(jnp.where(jnp.isfinite(target[0]), index * size + inside, -1))


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
        # No minimum of k + step and K: a call in the loop is what LLVM's vectoriser does not end at, see
        # `cpu.loops`.
        fits = k + step <= K
        last = jnp.where(fits, k + step - 1, 0)
        k = jnp.where(fits & passed(last), k + step, k)
    return loops.materialize(k)


def _probabilities(log_p: Float[Array, "*S n"], top: Float[Array, "*S 1"]) -> DoubleFloat:
    """exp(log_p - top) as pairs, whose low part is 0."""
    p = jnp.exp(log_p - top)
    return p, jnp.zeros_like(p)


def _sum_blocks(x: DoubleFloat, size: int) -> DoubleFloat:
    """Sums the blocks of pairs [*S, n], from left to right: [*S, n / size]."""
    blocks = tuple(jnp.reshape(a, (*a.shape[:-1], a.shape[-1] // size, size)) for a in x)

    # The reduction of XLA goes from left to right on CPUs and nowhere else: on an accelerator it is a tree,
    # whose order depends on the shape. So other devices add up slices, in an order that the program says
    # (`_sum_slices`). Both make the same additions of the same numbers, and tests hold them together to the
    # last bit.
    zero = jnp.zeros((), blocks[0].dtype)
    high, low = jax.lax.reduce(blocks, (zero, zero), _add, (blocks[0].ndim - 1,))
    return double_float.two_sum(high, low)


def _add(a: DoubleFloat, b: DoubleFloat) -> DoubleFloat:
    """Adds pairs, without the last step of `double_float.add`, which makes a pair of the sum.

    Over the few additions of a block the low part may grow to some last places of the high one, which a float
    holds; so the last step is taken once, at the end of a block.
    """
    high, error = double_float.two_sum(a[0], b[0])
    return high, a[1] + (error + b[1])


def _entries(x: DoubleFloat) -> Iterator[DoubleFloat]:
    """Yields the entries of pairs [*S, n] along the last axis."""
    for i in range(x[0].shape[-1]):
        yield tuple(a[..., i] for a in x)


def _find_target(
    target: DoubleFloat,
    entries: Iterable[DoubleFloat],
    start: DoubleFloat,
) -> tuple[Array, DoubleFloat]:
    """Finds the one of pairs [*S], laid one behind the other from a start on, that a target falls in.

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
    end = start
    count = 0
    last_positive = 0
    for i, entry in enumerate(entries):
        last_positive = jnp.where(entry[0] > 0, i, last_positive)
        end = double_float.add(end, entry)
        is_above = double_float.is_less(target, end)
        count += jnp.where(is_above, 0, 1)
        start = tuple(jnp.where(is_above, before, after) for before, after in zip(start, end, strict=True))
    return jnp.minimum(count, last_positive), start


# ---- Rows elsewhere than on CPUs ----


def _draw_by_rows(log_p: Array, *noise: Array) -> Array:
    """Draws `_draw_by_parts` in one read of the logits."""
    return rows.map_rows(_draw_row, None, log_p, noise)


@reads_slices(per_warp=2048)
def _draw_row(settings: None, row: SlicedRow, noise: DoubleFloat, tables: tuple) -> Array:
    return draw_row(row, lambda part: part.logits, noise)


def draw_row(row: SlicedRow, log_p_of: Callable[[RowPart], Array], noise: DoubleFloat) -> Array:
    """Draws what `_draw` does of each row, with the same additions in the same order.

    Args:
        row: the rows.
        log_p_of: makes log-probabilities [R, n] of some logits of them.
        noise: pairs [R].

    Returns:
        int32 categories [R]; -1 where a row has no distribution.
    """
    size = _block_size(row.K)
    read_logs = make_reader(row, log_p_of)
    top = max_of_row(row, read_logs)[..., None]  # [R, 1]

    def sum_chunk(chunk: int | Array) -> list[DoubleFloat]:
        sums = _sum_slices(row, [_probabilities(log_p, top) for log_p in read_logs(chunk)])
        return _sum_levels(row, sums, size)

    def scale_noise(total: DoubleFloat) -> DoubleFloat:
        total = tuple(jnp.squeeze(x, -1) for x in total)  # [R]
        return double_float.multiply(noise, total, double_float.split_in_half_by_integers)

    chunk = jnp.zeros(row.shape, jnp.int32)
    zero = jnp.zeros(row.shape, row.dtype)
    start = (zero, zero)
    if row.num_chunks == 1:
        levels = sum_chunk(0)
        target = scale_noise(levels[-1])
    else:
        # A chunk is a block of some level. That which the target falls in is read again, for its levels.
        sums_of_chunks = _collect(row, lambda chunk: sum_chunk(chunk)[-1])
        levels_of_chunks = _sum_levels(row, sums_of_chunks, size)
        target = scale_noise(levels_of_chunks[-1])
        chunk, start = _descend(row, levels_of_chunks, target, start, size)
        levels = sum_chunk(chunk)
    index, start = _descend(row, levels, target, start, size)
    index += chunk * (CHUNK // size)

    # A row of one block is there already.
    if row.num_chunks == 1 and len(levels) == 1:
        block = [_probabilities(log_p, top)[0] for log_p in read_logs(0)]
    else:
        p, _ = _probabilities(log_p_of(row.block(index, size)), top)
        block = row.split(p, p.shape[-1])[:size]
    entries = [(jnp.squeeze(p, -1), zero) for p in block]
    inside, _ = _find_target(target, entries, start)
    return jnp.where(jnp.isfinite(target[0]), index * size + inside, -1)


def make_reader(row: SlicedRow, log_p_of: Callable[[RowPart], Array]) -> Callable[[int | Array], list[Array]]:
    """Returns a function that reads the slices of a chunk, [R, m] each; of the only one once."""

    def read_logs(chunk: int | Array) -> list[Array]:
        return [log_p_of(part) for part in row.slices(_block_size(row.K), chunk)]

    if row.num_chunks > 1:
        return read_logs
    logs = read_logs(0)
    return lambda chunk: logs


def max_of_row(row: SlicedRow, read_logs: Callable[[int | Array], list[Array]]) -> Array:
    """Returns the largest entry of each row, [R]."""

    def add_chunk(chunk: int | Array, top: Array | float) -> Array:
        return jnp.maximum(top, jnp.max(reduce(jnp.maximum, read_logs(chunk)), axis=-1))

    return row.over_chunks(add_chunk, jnp.full(row.shape, NEG_INF, row.dtype))


def sum_of_row(row: SlicedRow, read: Callable[[int | Array], list[Array]]) -> Array:
    """Returns the sum of each row, [R], in the order that costs least."""

    def add_chunk(chunk: int | Array, total: Array) -> Array:
        return total + jnp.sum(reduce(jnp.add, read(chunk)), axis=-1)

    return row.over_chunks(add_chunk, jnp.zeros(row.shape, row.dtype))


def log_sum_of_row(row: SlicedRow, read_logs: Callable[[int | Array], list[Array]]) -> Array:
    """Returns `numerics.log_sum` of each row, [R]."""

    # The sum is relative to the largest entry so far: a larger one scales it down.
    def add_chunk(chunk: int | Array, carry: tuple[Array, Array]) -> tuple[Array, Array]:
        top, total = carry
        logs = read_logs(chunk)
        new_top = jnp.maximum(top, jnp.max(reduce(jnp.maximum, logs), axis=-1))
        finite_top = jnp.where(new_top == NEG_INF, 0.0, new_top)
        terms = reduce(jnp.add, [jnp.exp(x - finite_top[..., None]) for x in logs])
        return new_top, total * jnp.exp(top - finite_top) + jnp.sum(terms, axis=-1)

    start = jnp.full(row.shape, NEG_INF, row.dtype), jnp.zeros(row.shape, row.dtype)
    top, total = row.over_chunks(add_chunk, start)
    return jnp.where(total == 0, NEG_INF, jnp.log(jnp.where(total == 0, 1.0, total)) + top)


def _collect(row: SlicedRow, f: Callable[[Array], DoubleFloat]) -> DoubleFloat:
    """Returns f(chunk), pairs [R, 1], of all chunks beside each other: [R, n]."""
    n = 1 << (row.num_chunks - 1).bit_length()
    places = jnp.arange(n, dtype=jnp.int32)[None, :]

    def add_chunk(chunk: Array, collected: DoubleFloat) -> DoubleFloat:
        pair = f(chunk)
        return tuple(jnp.where(places == chunk, x, before) for x, before in zip(pair, collected, strict=True))

    zeros = jnp.zeros((*row.shape, n), row.dtype)
    return row.over_chunks(add_chunk, (zeros, zeros))


def _sum_levels(row: SlicedRow, sums: DoubleFloat, size: int) -> list[DoubleFloat]:
    """Returns sums [R, n], those of blocks of them, and so on up to one sum [R, 1]."""
    levels = [sums]
    while levels[-1][0].shape[-1] > 1:
        slices = list(zip(*(row.split(x, size) for x in levels[-1]), strict=True))
        levels.append(_sum_slices(row, slices))
    return levels


def _sum_slices(row: SlicedRow, slices: Sequence[DoubleFloat]) -> DoubleFloat:
    """Sums pairs, one after the other."""
    total = slices[0]
    for pair in slices[1:]:
        total = _add(total, pair)

    # XLA would merge these additions into everything that reads a sum, the next level and the search, and
    # make them again for each.
    return row.hold(double_float.two_sum(*total))


def _descend(
    row: SlicedRow,
    levels: Sequence[DoubleFloat],
    target: DoubleFloat,
    start: DoubleFloat,
    size: int,
) -> tuple[Array, DoubleFloat]:
    """Finds the entry of the finest level that a target falls in, and the sum of all before it."""
    index = jnp.zeros(target[0].shape, jnp.int32)
    for level in reversed(levels[:-1]):
        entries = zip(*(row.gather(x, index, size) for x in level), strict=True)
        inside, start = _find_target(target, entries, start)
        # As a sum is, so is a search made once, and not again in all that reads the next level.
        index, start = row.hold((index * size + inside, start))
    return index, start
