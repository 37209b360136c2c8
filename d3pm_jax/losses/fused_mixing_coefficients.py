"""Computes what each element of the mixing loss needs besides sums over K: arrays [*S], as logs where tiny.

The symbols a, b, c, m, s, S, kappa and rho, and the derivation of the gradient, are in docs/mixing-loss.md.
"""

from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array

from d3pm_jax import numerics
from d3pm_jax.beliefs import Belief
from d3pm_jax.processes.mixing import PiKind

NEG_INF = -jnp.inf
Table = tuple[Array | float, Array | float]


class StepLogs(NamedTuple):
    """Holds logs of one step for each element, [*S]."""

    a: Array  # alpha_t
    b: Array  # beta_t pi_xt: how likely x_t is after a move
    c: Array  # alpha_bar_{t-1}
    m: Array  # 1 - alpha_bar_{t-1}
    pi_0: Array  # pi at x_0
    pi_t: Array  # pi at x_t


class Softmax(NamedTuple):
    """Makes probabilities of logits, [*S]: p_j = exp(logits_j - top) inverse; 0 for a row of -inf."""

    top: Array
    inverse: Array


class Endpoints(NamedTuple):
    """Holds logs of what belongs to j = x_0 and j = x_t, [*S]; q_t and p_t are -inf where x_t = x_0."""

    q_0: Array
    p_0: Array
    q_t: Array
    p_t: Array
    s_0: Array  # s_j = c p_j / (c p_j + m pi_j) at x_0
    s_t: Array
    norm_q: Array  # N_q = q(x_t | x_0)
    norm_p: Array  # N_p = p(x_t), of the prediction
    kappa: Array  # a c p_xt / N_p


class OtherCategories(NamedTuple):
    """Holds sums over the j that are neither x_0 nor x_t, and their common factors, [*S]."""

    kl: Array  # their terms of the KL
    S: Array  # their part of the sum of q_j s_j
    q: Array  # q_j / pi_j; q_j itself where pi is uniform
    rho: Array  # c / m, 0 where m is; c / (m pi_j) where pi is uniform


class Saved(NamedTuple):
    """Holds the losses of each element, and what their gradient needs besides the logits, [*S]."""

    kl: Array
    ce: Array
    softmax: Softmax
    slope_p: Array  # S - kappa, S over all j: the part of the derivative in proportion to p_j
    slope_x0: Array  # how much less the derivative at x_0 is than that of another j with its p_j
    slope_xt: Array  # how much more that at x_t is
    ce_p: Array  # the same of ce: the part in proportion to p_j
    ce_xt: Array  # how much more it is at x_t
    q: Array  # as in OtherCategories
    rho: Array


class Slope(NamedTuple):
    """Gives the gradient of g_kl kl + g_ce ce for a logit, [*S]: p_j (p - rest / (1 + rho p_j / pi_j))."""

    p: Array
    rest: Array
    rho: Array
    x0: Array  # to add at x_0
    xt: Array  # to add at x_t


def endpoints(step: StepLogs, log_p0: Array, log_pt: Array, same: Array) -> Endpoints:
    """Computes the terms of j = x_0 and j = x_t from log p there; same is x_t = x_0."""
    moved_0, moved_t = step.m + step.pi_0, step.m + step.pi_t
    row_0, mix_0 = numerics.log_add(step.c, moved_0), numerics.log_add(step.c + log_p0, moved_0)
    row_t, mix_t = jnp.where(same, row_0, moved_t), numerics.log_add(step.c + log_pt, moved_t)
    back_t = numerics.log_add(step.a, step.b)
    back_0 = jnp.where(same, back_t, step.b)
    norm_q, norm_p = (numerics.log_add(step.a + x, step.b) for x in (row_t, mix_t))
    by_q, by_p = finite(norm_q), finite(norm_p)
    return Endpoints(
        q_0=back_0 + row_0 - by_q,
        p_0=back_0 + mix_0 - by_p,
        q_t=jnp.where(same, NEG_INF, back_t + row_t - by_q),
        p_t=jnp.where(same, NEG_INF, back_t + mix_t - by_p),
        s_0=step.c + log_p0 - finite(mix_0),
        s_t=step.c + log_pt - finite(mix_t),
        norm_q=norm_q,
        norm_p=norm_p,
        kappa=step.a + step.c + log_pt - by_p,
    )


def log_own_evidence(step: StepLogs) -> Array:
    """log q(x_t | x_0 = x_t) - log q(x_t | any other x_0), and 0 where no other is possible."""
    others = _log_evidence_of_others(step)
    own = numerics.log_add(step.a + numerics.log_add(step.c, step.m + step.pi_t), step.b)
    return jnp.where(others == NEG_INF, 0.0, own - finite(others))


def _log_evidence_of_others(step: StepLogs) -> Array:
    """log q(x_t | x_0) of any x_0 but x_t itself."""
    return numerics.log_add(step.a + step.m + step.pi_t, step.b)


def _denoiser_ce(
    belief: Belief, step: StepLogs, ends: Endpoints, log_p0: Array
) -> tuple[Array, Array, Array]:
    """Returns the cross entropy of the denoiser p_j q(x_t | x_0 = j) / N_p, `ce_p` and `ce_xt`.

    For "d3pm" p itself is taken for it, as it is for "denoiser" where x_t rules out all x_0 but x_t: there
    nothing was taken off at x_t.
    """
    if belief == "d3pm":
        return -log_p0, jnp.ones_like(log_p0), jnp.zeros_like(log_p0)
    others = _log_evidence_of_others(step)
    impossible = (log_p0 == NEG_INF) | (ends.norm_q == NEG_INF)
    ce = jnp.where(impossible, jnp.inf, finite(ends.norm_p) - finite(ends.norm_q) - finite(log_p0))
    ce_p, ce_xt = jnp.exp(others - finite(ends.norm_p)), jnp.exp(ends.kappa)
    if belief == "leave_one_out":
        return ce, ce_p, ce_xt
    same = others == NEG_INF
    return jnp.where(same, -log_p0, ce), jnp.where(same, 1.0, ce_p), jnp.where(same, 0.0, ce_xt)


def saved(
    pi_kind: PiKind,
    belief: Belief,
    step: StepLogs,
    ends: Endpoints,
    rest: OtherCategories,
    softmax: Softmax,
    log_p0: Array,
    log_pt: Array,
    same: Array,
) -> Saved:
    """Computes the losses and the coefficients of their gradient; a constant loss has none."""
    kl = _kl(pi_kind, step, ends, softmax.inverse == 0, rest.kl)
    qs_0, qs_t = jnp.exp(ends.q_0 + ends.s_0), jnp.exp(ends.q_t + ends.s_t)
    kappa = jnp.exp(ends.kappa)
    slope_p, slope_x0, slope_xt = rest.S + qs_0 + qs_t - kappa, qs_0, kappa - qs_t
    if pi_kind != "point":  # what the other j with the same p have
        pi_0, pi_t = pi_at_endpoints(pi_kind, step)
        slope_x0 -= rest.q * _share(rest.rho, jnp.exp(log_p0), pi_0)
        slope_xt += jnp.where(same, 0.0, rest.q * _share(rest.rho, jnp.exp(log_pt), pi_t))
    constant = jnp.isinf(kl) | (ends.norm_q == NEG_INF)
    slope_p, slope_x0, slope_xt, q = (
        jnp.where(constant, 0.0, x) for x in (slope_p, slope_x0, slope_xt, rest.q)
    )
    ce, ce_p, ce_xt = _denoiser_ce(belief, step, ends, log_p0)
    return Saved(kl, ce, softmax, slope_p, slope_x0, slope_xt, ce_p, ce_xt, q, rest.rho)


def slope(saved: Saved, g_kl: Array, g_ce: Array) -> Slope:
    """Computes the coefficients of the gradient of g_kl kl + g_ce ce."""
    g_ce = jnp.where(jnp.isinf(saved.ce), 0.0, g_ce)
    rest = g_kl * saved.q * saved.rho
    return Slope(
        p=g_kl * saved.slope_p + g_ce * saved.ce_p,
        rest=rest,
        rho=saved.rho,
        x0=-(g_kl * saved.slope_x0 + g_ce),
        xt=g_kl * saved.slope_xt + g_ce * saved.ce_xt,
    )


def pi_at_endpoints(pi_kind: PiKind, step: StepLogs) -> Table:
    """Returns pi at x_0 and x_t; 1 where pi is uniform, because `OtherCategories` has it in its factors."""
    return (1.0, 1.0) if pi_kind == "uniform" else (jnp.exp(step.pi_0), jnp.exp(step.pi_t))


def finite(x: Array) -> Array:
    """Returns x, and 0 where it is -inf: the log that a probability of 0 is divided by."""
    return jnp.where(x == NEG_INF, 0.0, x)


def _kl(pi_kind: PiKind, step: StepLogs, ends: Endpoints, empty: Array, rest: Array) -> Array:
    q, p = jnp.stack([ends.q_0, ends.q_t], -1), jnp.stack([ends.p_0, ends.p_t], -1)
    alone = jnp.sum(jnp.where(q == NEG_INF, 0.0, jnp.exp(q) * (finite(q) - p)), axis=-1)  # no other q > 0
    kl = alone if pi_kind == "point" else jnp.where(step.m == NEG_INF, alone, numerics.kl(q, p) + rest)
    certain = empty | (ends.norm_p == NEG_INF)
    return jnp.where(ends.norm_q == NEG_INF, 0.0, jnp.where(certain, jnp.inf, kl))


def _share(rho: Array, p: Array, pi: Array | float) -> Array:
    """pi s = pi c p / (c p + m pi), 0 where pi is."""
    pi = jnp.asarray(pi, p.dtype)
    some = jnp.where(pi > 0, pi, 1.0)
    return jnp.where(pi > 0, pi - pi / (1 + rho * p * (1 / some)), 0.0)
