"""Draws x_{t-1} of alpha I + (1 - alpha) 1 pi^T, and of a mask on top, in one read of the logits.

That is for what is not a CPU.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array

from d3pm_jax.numerics import double_float, inverse_cdf, log_add
from d3pm_jax.numerics.double_float import DoubleFloat
from d3pm_jax.numerics.rows import map_rows
from d3pm_jax.numerics.sliced_rows import RowPart, SlicedRow, reads_slices
from d3pm_jax.processes.base import Process
from d3pm_jax.processes.masked import Masked
from d3pm_jax.processes.mixing import Mixing, PiKind
from d3pm_jax.processes.tables import gather

NEG_INF = -jnp.inf


def draws_by_rows(process: Process) -> bool:
    """Says whether `draw_by_rows` is for a process; a subclass may have methods of its own, so it is not."""
    mixing = process.inner if type(process) is Masked else process
    return type(mixing) is Mixing


class Levels(NamedTuple):
    """Holds logs of how likely an element stays what it is, or is drawn anew or masked, [*S] or as t."""

    stay: Array  # in the step t
    move: Array
    stay_before: Array  # in the steps 1..t-1
    move_before: Array
    stay_xt: Array  # in the steps 1..t
    move_xt: Array


class NumbersOfRow(NamedTuple):
    """Holds what a row is told besides its logits, [*S] or as t."""

    xt: Array
    t: Array
    point: Array  # the category that pi is certain of, where it is certain
    log_pi_t: Array  # log pi at x_t
    mixing: Levels
    masking: Levels | None  # of a mask on top
    noise: DoubleFloat


def draw_by_rows(
    process: Process,
    logits_x0: Array,
    xt: Array,
    t: Array,
    u: Array,
    u_low: Array | None,
    belief: str,
) -> Array:
    """Draws `posteriors.p_sample` from the logits of x_0 and a few numbers of each row.

    The law is the same, but the last bits of its probabilities may differ, as they are not normalised.
    """
    mixing: Any = process
    masking = None
    category = xt
    if isinstance(process, Masked):
        mixing = process.inner
        category = process.inner_category(xt)
        steps = process.log_keep, process.log_mask
        masking = _levels(steps, (process.log_keep_bar, process.log_mask_bar), t)
    log_pi = mixing.log_pi
    numbers = NumbersOfRow(
        xt=xt,
        t=t,
        point=jnp.broadcast_to(jnp.argmax(log_pi).astype(jnp.int32), xt.shape),
        log_pi_t=gather(log_pi, category),
        mixing=_levels((mixing.log_alpha, mixing.log_beta), (mixing.log_alpha_bar, mixing.log_beta_bar), t),
        masking=masking,
        noise=double_float.noise_from_words(u, u_low),
    )
    tables = []
    if mixing.pi_kind == "general":
        # A table has an entry for each category, and nothing is drawn anew as the mask.
        tables = [jnp.pad(log_pi, (0, process.K - mixing.K), constant_values=NEG_INF)]
    return map_rows(_draw_row_of_mixing, (mixing.pi_kind, belief), logits_x0, numbers, tables)


def _levels(steps: tuple[Array, Array], bars: tuple[Array, Array], t: Array) -> Levels:
    """Reads tables [T + 1] of staying and moving: in a step, and in all steps up to one."""
    reads = (steps, t), (bars, t - 1), (bars, t)
    return Levels(*(gather(table, step) for tables, step in reads for table in tables))


@reads_slices(per_warp=1024)
def _draw_row_of_mixing(
    settings: tuple[PiKind, str], row: SlicedRow, numbers: NumbersOfRow, tables: Any
) -> Array:
    pi_kind, belief = settings
    xt, t, point, log_pi_t, mixing, masking, _ = jax.tree.map(lambda x: x[..., None], numbers)

    # The columns of Q[t] and of Qbar[t] at x_t: an entry for x_t itself, and one for all others.
    back_other = mixing.move + log_pi_t
    back_t = log_add(mixing.stay, back_other)
    seen_other = mixing.move_xt + log_pi_t
    seen_t = log_add(mixing.stay_xt, seen_other)

    is_masked = xt == row.K - 1  # where there is a mask on top
    if masking is not None:
        back_other = jnp.where(is_masked, masking.move, masking.stay + back_other)
        back_t = jnp.where(is_masked, 0.0, masking.stay + back_t)
        seen_other = jnp.where(is_masked, masking.move_xt, masking.stay_xt + seen_other)
        seen_t = jnp.where(is_masked, 0.0, masking.stay_xt + seen_t)

    def is_mask(part: RowPart) -> Array:
        return part.categories == row.K - 1

    def read_column(part: RowPart, at_xt: Array, elsewhere: Array) -> Array:
        column = jnp.where(part.categories == xt, at_xt, elsewhere)
        if masking is None:
            return column
        return jnp.where(is_mask(part) & ~is_masked, NEG_INF, column)  # what is masked stays so

    def read_logits(part: RowPart) -> Array:
        """Returns the logits of the leave-one-out posterior."""
        if belief != "denoiser":
            return part.logits
        evidence = read_column(part, seen_t, seen_other)
        impossible = evidence == NEG_INF
        return jnp.where(impossible, NEG_INF, part.logits - jnp.where(impossible, 0.0, evidence))

    def read_unmasked(part: RowPart) -> Array:
        if masking is None:
            return read_logits(part)
        return jnp.where(is_mask(part), NEG_INF, read_logits(part))

    def read_mask(part: RowPart) -> Array:
        return jnp.where(is_mask(part), read_logits(part), NEG_INF)

    unmasked = inverse_cdf.log_sum_of_row(row, inverse_cdf.make_reader(row, read_unmasked))[..., None]
    total = unmasked
    if masking is not None:
        at_mask = inverse_cdf.max_of_row(row, inverse_cdf.make_reader(row, read_mask))[..., None]
        total = log_add(unmasked, at_mask)
    is_empty = total == NEG_INF
    finite_total = jnp.where(is_empty, 0.0, total)

    def log_p_of(part: RowPart) -> Array:
        """Returns `posteriors.p_joint`: log q(x_t | x_{t-1}) + log sum_{x_0} q(x_{t-1} | x_0) p(x_0)."""
        log_p0 = read_logits(part) - finite_total
        moved = mixing.move_before + _log_pi(pi_kind, part, point, log_pi_t)
        log_stay = mixing.stay_before
        if masking is not None:
            # What is masked moves nowhere, and of what is not the mask takes its share.
            moved = jnp.where(is_mask(part), masking.move_before, masking.stay_before + moved)
            moved = moved + (unmasked - finite_total)
            log_stay = jnp.where(is_mask(part), 0.0, masking.stay_before + log_stay)
        moved = jnp.where((part.categories >= row.K) | is_empty, NEG_INF, moved)
        stayed = log_stay + log_p0
        pushed = log_add(*jnp.broadcast_arrays(stayed, moved))
        joint = read_column(part, back_t, back_other) + pushed
        if belief == "official":
            return jnp.where(t == 1, log_p0, joint)
        return joint

    return inverse_cdf.draw_row(row, log_p_of, numbers.noise)


def _log_pi(pi_kind: PiKind, part: RowPart, point: Array, log_pi_t: Array) -> Array:
    """Returns log pi of the categories; a uniform pi is the same at x_t, one of a single category 0 there."""
    if pi_kind == "uniform":
        return log_pi_t
    if pi_kind == "point":
        return jnp.where(part.categories == point, 0.0, NEG_INF)
    (log_pi,) = part.tables
    return log_pi
