"""Draws x_0, or x_s of a law that masks again, with how likely that was: places of a process of masks.

On what is not a CPU that is one read of the logits. The laws are the same, but the last bits of probabilities
may differ there.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax.numpy as jnp
from jax import lax
from jax.scipy.special import entr
from jaxtyping import Array

from d3pm_jax.checks import promote_types
from d3pm_jax.numerics import double_float, inverse_cdf
from d3pm_jax.numerics.rows import map_rows
from d3pm_jax.numerics.sliced_rows import RowPart, SlicedRow, reads_slices
from d3pm_jax.processes import Mixing, gather, is_category
from d3pm_jax.sampling import laws
from d3pm_jax.sampling.denoiser import Answer

NEG_INF = -jnp.inf


class Measures(NamedTuple):
    """Holds numbers of the law of each place, [B, L]."""

    log_drawn: Array  # of the probability of what was drawn
    largest: Array  # log of the largest probability
    second: Array  # log of the second largest, which may be as large
    entropy: Array  # in nats


def measure(log_p: Array, drawn: Array) -> Measures:
    """Returns the numbers of laws [*S, K], of which these categories were drawn."""
    is_likeliest = is_category(jnp.argmax(log_p, axis=-1).astype(jnp.int32), log_p.shape[-1])
    return Measures(
        log_p_at(log_p, drawn),
        jnp.max(log_p, axis=-1),
        jnp.max(jnp.where(is_likeliest, NEG_INF, log_p), axis=-1),
        jnp.sum(entr(jnp.exp(log_p)), axis=-1),
    )


def log_p_at(log_p: Array, drawn: Array) -> Array:
    """Returns the entries of laws [*S, K] at these categories; at 0 for -1, where nothing could be drawn."""
    return jnp.take_along_axis(log_p, jnp.maximum(drawn, 0)[..., None], axis=-1)[..., 0]


def draw_x0(
    answer: Answer, u: Array, measures: bool, with_log_kept: bool
) -> tuple[Array, Measures | None, Array | None]:
    """Draws x_0 of the denoiser, [*S], -1 where there is none.

    Args:
        answer: of an absorbing process, where no x_0 is the mask.
        u: uniform noise of each place, [*S].
        measures: whether to return the measures of the draw too.
        with_log_kept: whether to return `Answer.log_kept` too.
    """

    def by_definition() -> tuple[Array, Measures | None, Array | None]:
        log_p = answer.log_denoiser
        drawn = inverse_cdf.categorical(log_p, u)
        measured = measure(log_p, drawn) if measures else None
        log_kept = answer.log_kept if with_log_kept else None
        return drawn, measured, log_kept

    def by_rows() -> tuple[Array, Measures | None, Array | None]:
        log_stay = gather(laws.require_absorbing(answer.process, "a mask").log_alpha_bar, answer.t)
        numbers = (answer.x, answer.t, _mask_of_places(answer), log_stay, _noise(u))
        # What the network says of x_t is not shaped.
        settings = (answer.belief, measures, with_log_kept and not answer.is_shaped)
        drawn, measured, log_kept = map_rows(_draw_row_of_x0, settings, _logits_of(answer), numbers)
        if with_log_kept and answer.is_shaped:
            log_kept = answer.log_kept
        return drawn, measured, log_kept

    return _by_platform(answer, u, by_definition, by_rows)


def draw_remasked(
    answer: Answer, s: Array, sigma: Array, u: Array, law: Callable[[], Array]
) -> tuple[Array, Array]:
    """Draws x_s of `laws.remask_logits`, and returns log p(x_0 = x_s) of places that are masked with it.

    Args:
        answer: of an absorbing process, where no x_0 is the mask.
        s: the step of each example, [B].
        sigma: of each place, [*S].
        u: uniform noise of each place, [*S].
        law: makes the log law [*S, K], which is the definition.
    """

    def by_definition() -> tuple[Array, Array]:
        drawn = inverse_cdf.categorical(law(), u)
        return drawn, log_p_at(answer.log_denoiser, drawn)

    def by_rows() -> tuple[Array, Array]:
        shares = laws._remask_shares(answer.process, answer.x, answer.t, s, sigma)
        numbers = (answer.x, _mask_of_places(answer), shares, _noise(u))
        return map_rows(_draw_row_of_masks, None, _logits_of(answer), numbers)

    return _by_platform(answer, u, by_definition, by_rows)


def _by_platform(
    answer: Answer, u: Array, by_definition: Callable[[], Any], by_rows: Callable[[], Any]
) -> Any:
    """Draws by rows where it may, on what is not a CPU."""
    # A subclass may have methods of its own, and rows have one type for all.
    process = answer.process
    if type(process) is not Mixing or promote_types(answer.said.dtype, process.log_pi.dtype) != u.dtype:
        return by_definition()
    return lax.platform_dependent(cpu=by_definition, default=by_rows)


def _logits_of(answer: Answer) -> Array:
    """Returns the logits as they are in memory: rows leave the mask out themselves."""
    return answer.logits if answer.is_shaped else answer.said


def _mask_of_places(answer: Answer) -> Array:
    mask = laws.mask_of(answer.process)
    assert mask is not None, "the process is absorbing"
    return jnp.broadcast_to(mask, answer.x.shape)


def _noise(u: Array) -> double_float.DoubleFloat:
    return double_float.noise_from_words(lax.stop_gradient(u), None)


@reads_slices(per_warp=1024)
def _draw_row_of_x0(settings: tuple[str, bool, bool], row: SlicedRow, numbers: Any, tables: Any) -> Any:
    belief, measures, with_log_kept = settings
    *places, noise = numbers
    xt, t, mask, log_stay = (x[..., None] for x in places)
    log_x0, _ = _read_x0(row, mask)
    # Of a place that is not masked x_0 is x_t, where the network and the step allow that.
    is_free = xt == mask
    if belief == "official":
        is_free = is_free | (t == 1)

    def log_p_of(part: RowPart) -> Array:
        impossible = (part.categories != xt) | (part.logits == NEG_INF) | (log_stay == NEG_INF)
        certain = jnp.where(impossible, NEG_INF, part.logits - part.logits)  # 0, or no number
        return jnp.where(is_free, log_x0(part), certain)

    drawn = inverse_cdf.draw_row(row, log_p_of, noise)
    measured = _measure_row(row, log_p_of, drawn) if measures else None
    log_kept = _read_at(row, log_x0, xt) if with_log_kept else None
    return drawn, measured, log_kept


@reads_slices(per_warp=1024)
def _draw_row_of_masks(settings: None, row: SlicedRow, numbers: Any, tables: Any) -> tuple[Array, Array]:
    xt, mask, shares, noise = numbers
    xt, mask, to_x0, here, to_mask = (x[..., None] for x in (xt, mask, *shares))
    log_x0, total = _read_x0(row, mask)
    is_masked = xt == mask
    ruled_out = is_masked & (total == NEG_INF)

    def log_p_of(part: RowPart) -> Array:
        moved = jnp.where(is_masked & (part.categories != mask), to_x0 + log_x0(part), to_mask)
        moved = jnp.where(is_masked | (part.categories == mask), moved, NEG_INF)
        return jnp.where(ruled_out, NEG_INF, jnp.where(part.categories == xt, here, moved))

    drawn = inverse_cdf.draw_row(row, log_p_of, noise)
    return drawn, _read_at(row, log_x0, jnp.maximum(drawn, 0)[..., None])


def _read_x0(row: SlicedRow, mask: Array) -> tuple[Callable[[RowPart], Array], Array]:
    """Returns what reads log p(x_0) of masked places, and the log of the sum of its logits."""

    def read_logits(part: RowPart) -> Array:
        return jnp.where(part.categories == mask, NEG_INF, part.logits)

    total = inverse_cdf.log_sum_of_row(row, inverse_cdf.make_reader(row, read_logits))[..., None]
    finite_total = jnp.where(total == NEG_INF, 0.0, total)
    return lambda part: read_logits(part) - finite_total, total


def _read_at(row: SlicedRow, log_p_of: Callable[[RowPart], Array], category: Array) -> Array:
    """Returns log p of a category [R, 1] of each row, [R]."""

    def read(part: RowPart) -> Array:
        return jnp.where(part.categories == category, log_p_of(part), NEG_INF)

    return inverse_cdf.max_of_row(row, inverse_cdf.make_reader(row, read))


def _measure_row(row: SlicedRow, log_p_of: Callable[[RowPart], Array], drawn: Array) -> Measures:
    """Returns `measure` of each row."""
    largest = inverse_cdf.max_of_row(row, inverse_cdf.make_reader(row, log_p_of))

    def read_smaller(part: RowPart) -> Array:
        log_p = log_p_of(part)
        return jnp.where(log_p < largest[..., None], log_p, NEG_INF)

    def count_largest(part: RowPart) -> Array:
        return jnp.where(log_p_of(part) == largest[..., None], 1.0, 0.0)

    def read_entropy(part: RowPart) -> Array:
        log_p = log_p_of(part)
        return jnp.where(log_p == NEG_INF, 0.0, -jnp.exp(log_p) * log_p)

    smaller = inverse_cdf.max_of_row(row, inverse_cdf.make_reader(row, read_smaller))
    ties = inverse_cdf.sum_of_row(row, inverse_cdf.make_reader(row, count_largest))
    return Measures(
        _read_at(row, log_p_of, jnp.maximum(drawn, 0)[..., None]),
        largest,
        jnp.where(ties > 1, largest, smaller),
        inverse_cdf.sum_of_row(row, inverse_cdf.make_reader(row, read_entropy)),
    )
