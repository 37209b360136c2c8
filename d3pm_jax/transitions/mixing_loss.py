"""KL and cross entropy of Q = alpha I + (1 - alpha) 1 pi^T in one pass over the logits, gradient in one more.

With a = alpha_t, b = beta_t pi_xt, c = alpha_bar_{t-1}, m = 1 - c and p = softmax(logits) (D3PM eq. 3, 4):

    q(x_{t-1} = j | x_t, x_0) = (a [j = x_t] + b) (c [j = x_0] + m pi_j) / norm_q
    p(x_{t-1} = j | x_t)      = (a [j = x_t] + b) (c p_j + m pi_j) / norm_p

Only j = x_0 and j = x_t stand apart; they are kept in log space. All other j take sums over K, without
branches so that they vectorise; where pi is one category, their q is 0 and they take none. Terms of the KL
are q r - q + p with r = log q - log p, which is never negative (see `numerics.kl`).
"""

from collections.abc import Callable
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array

from d3pm_jax import chunks, numerics

NEG_INF = -jnp.inf
Shape = Literal["one", "even", "any"]  # of pi: one category, all alike, or neither


class Step(NamedTuple):
    """Logs of one step for each element, [*S]."""

    a: Array  # alpha_t
    b: Array  # beta_t pi_xt: how likely x_t is after a move
    c: Array  # alpha_bar_{t-1}
    m: Array  # 1 - alpha_bar_{t-1}
    pi_0: Array  # pi at x_0
    pi_t: Array  # pi at x_t


class Row(NamedTuple):
    """The losses of each element, and what their gradient needs besides the logits, [*S]."""

    kl: Array
    ce: Array
    total: Array  # log sum_j exp(logits_j), 0 for a row without any
    along: Array  # the derivative of kl by a logit, the part in proportion to p_j
    at_0: Array  # how much less the derivative for x_0 is than that of another j with its p_j
    at_t: Array  # how much more that for x_t is
    q: Array  # q_j / pi_j for the j that do not stand apart
    rate: Array  # c / m, 0 where q is


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


def kl_and_ce(
    shape: Shape, logits: Array, x0: Array, xt: Array, step: Step, log_pi: Array
) -> tuple[Array, Array]:
    """(KL(q(x_{t-1} | x_t, x_0) || p(x_{t-1} | x_t)), -log p(x_0 | x_t)) in nats.

    Args:
        shape: of pi.
        logits: of x_0, [*S, K].
        x0, xt: categories, [*S].
        step: [*S] each.
        log_pi: [K].

    Returns:
        Two arrays [*S], with the values at impossible pairs and certain errors of `bayes.posterior_kl`.
    """
    return _terms(shape, logits, x0, xt, step, log_pi)


def _forward(shape: Shape, logits: Array, x0: Array, xt: Array, step: Step, log_pi: Array):
    def part(logits: Array, x0: Array, xt: Array, *step: Array) -> Row:
        return _row(shape, logits, x0, xt, Step(*step), log_pi)

    row = Row(*chunks.over_parts(part, logits, x0, xt, *step))
    return (row.kl, row.ce), (logits, x0, xt, log_pi, row)


def _backward(shape: Shape, residuals, cotangents: tuple[Array, Array]):
    """All numbers of a row are made in the forward pass: here XLA would make them anew for each logit."""
    logits, x0, xt, log_pi, row = residuals
    g_kl, g_ce = cotangents
    g_ce = jnp.where(jnp.isinf(row.ce), 0.0, g_ce)
    p = jnp.exp(logits - row.total[..., None])
    slope = (g_kl * row.along + g_ce)[..., None]
    if shape != "one":
        pi, per_pi = _pi(shape, log_pi, logits)
        slope -= (g_kl * row.q * row.rate)[..., None] * (pi * per_pi) / (1 + row.rate[..., None] * p * per_pi)
    gradient = slope * p
    gradient = _add_at(gradient, x0, -(g_kl * row.at_0 + g_ce))
    return _add_at(gradient, xt, g_kl * row.at_t), None, None, None, None


_custom = jax.custom_vjp(lambda *args: _forward(*args)[0], nondiff_argnums=(0,))
_custom.defvjp(_forward, _backward)
_terms = jax.jit(_custom, static_argnums=0)


def _row(shape: Shape, logits: Array, x0: Array, xt: Array, step: Step, log_pi: Array) -> Row:
    top = _finite(jnp.max(logits, axis=-1))
    weights = jnp.exp(logits - top[..., None])
    sums = jnp.sum(weights, axis=-1)
    total = top + jnp.log(sums)
    l0, lt = _at(logits, x0, total), _at(logits, xt, total)
    ends = _ends(step, l0, lt, xt == x0)
    q = jnp.exp(step.b + step.m - _finite(ends.norm_q))
    rate = jnp.exp(jnp.where(step.m == NEG_INF, NEG_INF, step.c - step.m))
    others = share = jnp.zeros_like(q)
    if shape != "one":
        p = _without(_without(weights, x0), xt) * jnp.where(sums > 0, 1 / sums, 0.0)[..., None]
        others, share = _others(shape, step, ends, q, rate, p, log_pi, xt == x0)
    kl = _kl(shape, step, ends, total, others)
    share_0, share_t = jnp.exp(ends.q_0 + ends.share_0), jnp.exp(ends.q_t + ends.share_t)
    kept = jnp.exp(ends.kept)
    along, at_0, at_t = share + share_0 + share_t - kept, share_0, kept - share_t
    if shape != "one":  # what the other j with the same p have
        at_0 -= q * _share(rate, jnp.exp(l0), jnp.exp(step.pi_0))
        at_t += jnp.where(xt == x0, 0.0, q * _share(rate, jnp.exp(lt), jnp.exp(step.pi_t)))
    constant = jnp.isinf(kl) | (ends.norm_q == NEG_INF)
    along, at_0, at_t, q = (jnp.where(constant, 0.0, x) for x in (along, at_0, at_t, q))
    return Row(kl, -l0, _finite(total), along, at_0, at_t, q, rate)


def _kl(shape: Shape, step: Step, ends: Ends, total: Array, others: Array) -> Array:
    q, p = jnp.stack([ends.q_0, ends.q_t], -1), jnp.stack([ends.p_0, ends.p_t], -1)
    alone = jnp.sum(jnp.where(q == NEG_INF, 0.0, jnp.exp(q) * (_finite(q) - p)), axis=-1)  # no other q > 0
    kl = alone if shape == "one" else jnp.where(step.m == NEG_INF, alone, numerics.kl(q, p) + others)
    certain = (total == NEG_INF) | (ends.norm_p == NEG_INF)
    return jnp.where(ends.norm_q == NEG_INF, 0.0, jnp.where(certain, jnp.inf, kl))


def _others(
    shape: Shape, step: Step, ends: Ends, q: Array, rate: Array, p: Array, log_pi: Array, same: Array
) -> tuple[Array, Array]:
    """Sums over the other j: of the terms of the KL, and of q_j c p_j / (c p_j + m pi_j).

    p is 0 at x_0 and x_t, so their terms are those of p = 0, which are known and taken off again.
    """
    pi, per_pi = _pi(shape, log_pi, p)
    log_scale = jnp.where(step.b == NEG_INF, 0.0, _finite(ends.norm_q) - _finite(ends.norm_p))
    scale = jnp.exp(log_scale)
    unreached = jnp.exp(step.b + step.c - _finite(ends.norm_p))
    rise = 1 + rate[..., None] * p * per_pi
    ratio = scale[..., None] * rise  # p / q
    terms = q[..., None] * pi * ((ratio - 1) - jnp.log(ratio))
    if shape == "any":
        terms += unreached[..., None] * (p * (per_pi == 0))
    apart = jnp.exp(step.pi_0) + jnp.where(same, 0.0, jnp.exp(step.pi_t))
    others = jnp.sum(terms, axis=-1) - q * apart * ((scale - 1) - log_scale)
    return others, q * jnp.sum(pi - pi / rise, axis=-1)


def _share(rate: Array, p: Array, pi: Array) -> Array:
    """pi c p / (c p + m pi), 0 where pi is."""
    some = jnp.where(pi > 0, pi, 1.0)
    return jnp.where(pi > 0, pi - pi / (1 + rate * p * (1 / some)), 0.0)


def _pi(shape: Shape, log_pi: Array, logits: Array) -> tuple[Array, Array]:
    """pi and 1 / pi (0 where pi is), [1.., K], or [1.., 1] where all are alike."""
    some = log_pi[:1] if shape == "even" else log_pi
    pi = jnp.exp(jnp.reshape(some, (1,) * (logits.ndim - 1) + (-1,)))
    return pi, jnp.where(pi > 0, 1 / jnp.where(pi > 0, pi, 1.0), 0.0)


def _without(weights: Array, x: Array) -> Array:
    """weights, 0 at x."""
    return _by_row(lambda row, k: row.at[k].set(0.0), weights, x)


def _add_at(array: Array, x: Array, amount: Array) -> Array:
    """array, with an amount added at x."""
    return _by_row(lambda row, k, a: row.at[k].add(a), array, x, amount)


def _by_row(f: Callable[..., Array], *args: Array) -> Array:
    """f of each row of the first argument and the elements of the others."""
    for _ in range(args[0].ndim - 1):
        f = jax.vmap(f)
    return f(*args)


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
    picked = jnp.take_along_axis(logits, x[..., None], axis=-1)[..., 0]
    return jnp.where(picked == NEG_INF, NEG_INF, picked - total)


def _finite(x: Array) -> Array:
    """x, and 0 where it is -inf: what a probability of 0 is divided by."""
    return jnp.where(x == NEG_INF, 0.0, x)
