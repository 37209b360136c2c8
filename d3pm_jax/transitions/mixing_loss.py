"""KL and cross entropy of Q = alpha I + (1 - alpha) 1 pi^T in one pass over the logits, gradient in one more.

With a = alpha_t, b = beta_t pi_xt, c = alpha_bar_{t-1}, m = 1 - c and p = softmax(logits) (D3PM eq. 3, 4):

    q(x_{t-1} = j | x_t, x_0) = (a [j = x_t] + b) (c [j = x_0] + m pi_j) / norm_q
    p(x_{t-1} = j | x_t)      = (a [j = x_t] + b) (c p_j + m pi_j) / norm_p

Only j = x_0 and j = x_t stand apart; they are kept in log space. All other j take one sum over K. Terms of
the KL are q r - q + p with r = log q - log p, which is never negative (see `numerics.kl`).
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array

from d3pm_jax import chunks, numerics

NEG_INF = -jnp.inf
NEAR = 4.0  # p / q below which a term is made of p / q alone


class Step(NamedTuple):
    """Logs of one step for each element, [*S]."""

    a: Array  # alpha_t
    b: Array  # beta_t pi_xt: how likely x_t is after a move
    c: Array  # alpha_bar_{t-1}
    m: Array  # 1 - alpha_bar_{t-1}
    pi_0: Array  # pi at x_0
    pi_t: Array  # pi at x_t


class Row(NamedTuple):
    """What needs all of a row of logits, [*S]."""

    total: Array  # log sum_j exp(logits_j)
    others: Array  # the terms of the KL of the j that do not stand apart
    share: Array  # sum over these of q_j c p_j / (c p_j + m pi_j)


class Ends(NamedTuple):
    """Logs of what stands apart, [*S]; q_t and p_t are -inf where x_t = x_0."""

    q_0: Array
    p_0: Array
    q_t: Array
    p_t: Array
    share_0: Array  # c p / (c p + m pi) at x_0
    share_t: Array
    norm_q: Array  # q(x_t | x_0)
    norm_p: Array  # p(x_t), of the prediction
    kept: Array  # a c p_xt / norm_p


@jax.custom_vjp
def kl_and_ce(logits: Array, x0: Array, xt: Array, step: Step, log_pi: Array) -> tuple[Array, Array]:
    """(KL(q(x_{t-1} | x_t, x_0) || p(x_{t-1} | x_t)), -log p(x_0 | x_t)) in nats.

    Args:
        logits: of x_0, [*S, K].
        x0, xt: categories, [*S].
        step: [*S] each.
        log_pi: [K].

    Returns:
        Two arrays [*S], with the values at impossible pairs and certain errors of `bayes.posterior_kl`.
    """
    return _forward(logits, x0, xt, step, log_pi)[0]


def _forward(logits: Array, x0: Array, xt: Array, step: Step, log_pi: Array):
    def part(logits: Array, x0: Array, xt: Array, *step: Array) -> Row:
        return _row(logits, x0, xt, Step(*step), log_pi)

    row = Row(*chunks.over_parts(part, logits, x0, xt, *step))
    ends = _ends(step, _at(logits, x0, row.total), _at(logits, xt, row.total), xt == x0)
    q, p = jnp.stack([ends.q_0, ends.q_t], -1), jnp.stack([ends.p_0, ends.p_t], -1)
    certain = (row.total == NEG_INF) | (ends.norm_p == NEG_INF)
    kl = jnp.where(certain, jnp.inf, numerics.kl(q, p) + row.others)
    kl = jnp.where(ends.norm_q == NEG_INF, 0.0, kl)
    return (kl, -_at(logits, x0, row.total)), (logits, x0, xt, step, log_pi, row, kl)


def _backward(residuals, cotangents: tuple[Array, Array]):
    logits, x0, xt, step, log_pi, row, kl = residuals
    l0 = _at(logits, x0, row.total)
    ends = _ends(step, l0, _at(logits, xt, row.total), xt == x0)
    g_kl = jnp.where(jnp.isinf(kl) | (ends.norm_q == NEG_INF), 0.0, cotangents[0])
    g_ce = jnp.where(l0 == NEG_INF, 0.0, cotangents[1])
    share_0, share_t = jnp.exp(ends.q_0 + ends.share_0), jnp.exp(ends.q_t + ends.share_t)
    kept = jnp.exp(ends.kept)
    total = jnp.where(row.total == NEG_INF, 0.0, row.total)
    q, excess = _other(step, ends.norm_q, log_pi, jnp.exp(logits - total[..., None]))
    is_0, is_t = _is(x0, logits), _is(xt, logits)
    along = (g_kl * (row.share + share_0 + share_t - kept) + g_ce)[..., None]
    gradient = along * jnp.exp(logits - total[..., None])
    gradient -= jnp.where(is_0 | is_t, 0.0, g_kl[..., None] * q * (excess / (1 + excess)))
    gradient -= jnp.where(is_0, (g_kl * share_0 + g_ce)[..., None], 0.0)
    gradient += jnp.where(is_t, (g_kl * (kept - share_t))[..., None], 0.0)
    return gradient, None, None, None, None


kl_and_ce.defvjp(_forward, _backward)


def _row(logits: Array, x0: Array, xt: Array, step: Step, log_pi: Array) -> Row:
    top = jnp.max(logits, axis=-1)
    top = jnp.where(top == NEG_INF, 0.0, top)
    weights = jnp.exp(logits - top[..., None])
    sums = jnp.sum(weights, axis=-1)
    total = top + jnp.log(sums)
    ends = _ends(step, _at(logits, x0, total), _at(logits, xt, total), xt == x0)
    p = weights * jnp.where(sums > 0, 1 / sums, 0.0)[..., None]
    q, excess = _other(step, ends.norm_q, log_pi, p)
    log_scale = _finite(ends.norm_q) - _finite(ends.norm_p)
    ratio = jnp.exp(log_scale)[..., None] * (1 + excess)  # p / q
    near = (ratio < NEAR) & (q > 0)
    log_ratio = jnp.log(jnp.where(near, ratio, 1 + excess)) + jnp.where(near, 0.0, log_scale[..., None])
    back = step.b - _finite(ends.norm_p)
    p_there = jnp.exp(back + step.c)[..., None] * p + jnp.exp(back + step.m)[..., None] * _pi(log_pi, logits)
    terms = jnp.where(near, q * ((ratio - 1) - log_ratio), p_there - q * (1 + log_ratio))
    apart = _is(x0, logits) | _is(xt, logits)
    others = jnp.sum(jnp.where(apart, 0.0, terms), axis=-1)
    share = jnp.sum(jnp.where(apart, 0.0, q * (excess / (1 + excess))), axis=-1)
    return Row(total, others, share)


def _other(step: Step, norm_q: Array, log_pi: Array, p: Array) -> tuple[Array, Array]:
    """q_j of the j that do not stand apart, and c p_j / (m pi_j) (0 where q_j is), [*S, K]."""
    pi = _pi(log_pi, p)
    q = jnp.exp(step.b + step.m - _finite(norm_q))[..., None] * pi
    rate = jnp.exp(jnp.where(step.m == NEG_INF, NEG_INF, step.c - step.m))[..., None]
    return q, rate * p * jnp.where(pi > 0, 1 / jnp.where(pi > 0, pi, 1.0), 0.0)


def _ends(step: Step, l0: Array, lt: Array, same: Array) -> Ends:
    """From log p at x_0 and at x_t."""
    moved_0, moved_t = step.m + step.pi_0, step.m + step.pi_t
    row_0, mix_0 = numerics.log_add(step.c, moved_0), numerics.log_add(step.c + l0, moved_0)
    row_t, mix_t = jnp.where(same, row_0, moved_t), numerics.log_add(step.c + lt, moved_t)
    back_t = numerics.log_add(step.a, step.b)
    back_0 = jnp.where(same, back_t, step.b)
    norm_q, norm_p = (numerics.log_add(step.a + x, step.b) for x in (row_t, mix_t))
    by_q, by_p = _finite(norm_q), _finite(norm_p)
    return Ends(
        q_0=back_0 + row_0 - by_q,
        p_0=back_0 + mix_0 - by_p,
        q_t=jnp.where(same, NEG_INF, back_t + row_t - by_q),
        p_t=jnp.where(same, NEG_INF, back_t + mix_t - by_p),
        share_0=step.c + l0 - _finite(mix_0),
        share_t=step.c + lt - _finite(mix_t),
        norm_q=norm_q,
        norm_p=norm_p,
        kept=step.a + step.c + lt - by_p,
    )


def _at(logits: Array, x: Array, total: Array) -> Array:
    """log p at a category, -inf where it has probability 0."""
    picked = jnp.take_along_axis(logits, x[..., None].astype(jnp.int32), axis=-1)[..., 0]
    return jnp.where(picked == NEG_INF, NEG_INF, picked - total)


def _finite(x: Array) -> Array:
    """x, and 0 where it is -inf: what a probability of 0 is divided by."""
    return jnp.where(x == NEG_INF, 0.0, x)


def _pi(log_pi: Array, logits: Array) -> Array:
    return jnp.exp(jnp.reshape(log_pi, (1,) * (logits.ndim - 1) + (-1,)))


def _is(x: Array, logits: Array) -> Array:
    categories = jnp.arange(logits.shape[-1], dtype=jnp.int32)
    return x[..., None].astype(jnp.int32) == jnp.reshape(categories, (1,) * x.ndim + (-1,))
