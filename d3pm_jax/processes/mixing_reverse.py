"""Draws x_{t-1} of alpha I + (1 - alpha) 1 pi^T in one read of the logits, on what is not a CPU."""

from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
from jaxtyping import Array

from d3pm_jax.numerics import double_float, inverse_cdf, log_add
from d3pm_jax.numerics.rows import map_rows
from d3pm_jax.numerics.sliced_rows import RowPart, SlicedRow, reads_slices
from d3pm_jax.processes.mixing import Mixing, PiKind
from d3pm_jax.processes.tables import gather

NEG_INF = -jnp.inf


def draw_by_rows(
    process: Mixing, logits_x0: Array, xt: Array, t: Array, u: Array, u_low: Array | None, belief: str
) -> Array:
    """Draws `posteriors.p_sample` from the logits of x_0 and a few numbers of each row.

    The law is the same, but the last bits of its probabilities may differ, as they are not normalised.
    """
    # What lies at x_t or at the mask, and what t says, [*S] or as t.
    log_pi_t = gather(process.log_pi, xt)
    mask = jnp.broadcast_to(jnp.argmax(process.log_pi).astype(jnp.int32), xt.shape)
    logs = [
        gather(process.log_alpha, t),
        gather(process.log_beta, t),
        gather(process.log_alpha_bar, t - 1),
        gather(process.log_beta_bar, t - 1),
        gather(process.log_alpha_bar, t),
        gather(process.log_beta_bar, t),
    ]
    noise = double_float.noise_from_words(u, u_low)
    tables = []
    if process.pi_kind == "general":
        tables = [process.log_pi]
    numbers = [xt, t, mask, log_pi_t, *logs, *noise]
    return map_rows(_draw_row_of_mixing, (process.pi_kind, belief), logits_x0, numbers, tables)


@reads_slices(per_warp=1024)
def _draw_row_of_mixing(
    settings: tuple[PiKind, str], row: SlicedRow, numbers: Sequence[Array], tables: Any
) -> Array:
    pi_kind, belief = settings
    xt, t, mask, log_pi_t, *logs, noise_high, noise_low = (x[..., None] for x in numbers)
    log_alpha, log_beta, log_stay, log_move, log_stay_xt, log_move_xt = logs

    # The columns of Q[t] and of Qbar[t] at x_t: an entry for x_t itself, and one for all others.
    back_other = log_beta + log_pi_t
    back_t = log_add(log_alpha, back_other)
    seen_other = log_move_xt + log_pi_t
    seen_t = log_add(log_stay_xt, seen_other)

    def read_logits(part: RowPart) -> Array:
        """Returns the logits of the leave-one-out posterior."""
        if belief != "denoiser":
            return part.logits
        evidence = jnp.where(part.categories == xt, seen_t, seen_other)
        impossible = evidence == NEG_INF
        return jnp.where(impossible, NEG_INF, part.logits - jnp.where(impossible, 0.0, evidence))

    total = inverse_cdf.log_sum_of_row(row, inverse_cdf.make_reader(row, read_logits))[..., None]
    is_empty = total == NEG_INF
    finite_total = jnp.where(is_empty, 0.0, total)

    def log_p_of(part: RowPart) -> Array:
        """Returns `posteriors.p_joint`: log q(x_t | x_{t-1}) + log sum_{x_0} q(x_{t-1} | x_0) p(x_0)."""
        log_p0 = read_logits(part) - finite_total
        moved = log_move + _log_pi(pi_kind, part, mask, log_pi_t)
        moved = jnp.where((part.categories >= row.K) | is_empty, NEG_INF, moved)
        stayed = log_stay + log_p0
        pushed = log_add(*jnp.broadcast_arrays(stayed, moved))
        joint = jnp.where(part.categories == xt, back_t, back_other) + pushed
        if belief == "official":
            return jnp.where(t == 1, log_p0, joint)
        return joint

    noise = jnp.squeeze(noise_high, -1), jnp.squeeze(noise_low, -1)
    return inverse_cdf.draw_row(row, log_p_of, noise)


def _log_pi(pi_kind: PiKind, part: RowPart, mask: Array, log_pi_t: Array) -> Array:
    """Returns log pi of the categories; a uniform pi is the same at x_t, one of a single category 0 there."""
    if pi_kind == "uniform":
        return log_pi_t
    if pi_kind == "point":
        return jnp.where(part.categories == mask, 0.0, NEG_INF)
    (log_pi,) = part.tables
    return log_pi
