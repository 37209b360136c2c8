"""Computes `variational.posterior_kl_definition` and `cross_entropy` of alpha I + (1 - alpha) 1 pi^T in O(K).

The gradient is by hand. With a = alpha_t, b = beta_t pi_xt, c = alpha_bar_{t-1}, m = 1 - c
and p = softmax(logits) (D3PM eq. 3, 4):

    q(x_{t-1} = j | x_t, x_0) = (a [j = x_t] + b) (c [j = x_0] + m pi_j) / norm_q
    p(x_{t-1} = j | x_t)      = (a [j = x_t] + b) (c p_j + m pi_j) / norm_p

Only j = x_0 and j = x_t stand apart; they are kept in log space. All other j take sums over K, without
branches so that they vectorise; where pi is one category, their q is 0 and they take none. Terms of the KL
are q log(q / p) - q + p, which are never negative (see `numerics.kl`); what is taken off again at x_0 and x_t
can leave a KL of 0 negative by a rounding, -2e-8 in float32; so can the cross entropy be where it is made of
logs, under a belief other than "d3pm". docs/mixing-loss.md derives the gradient.

The softmax's sums come first, for all elements; then the sums over the other j, on CPUs by parts that fit a
cache; then what is left to do for each element, once and not once per part, as small programs cost more.
"""

from functools import partial

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array

from d3pm_jax import numerics
from d3pm_jax.beliefs import Belief
from d3pm_jax.cpu import tiles
from d3pm_jax.losses.fused_mixing_coefficients import (
    NEG_INF,
    Endpoints,
    OtherCategories,
    Softmax,
    StepLogs,
    Table,
    endpoints,
    finite,
    log_own_evidence,
    pi_at_endpoints,
    saved,
    slope,
)
from d3pm_jax.processes.base import promote
from d3pm_jax.processes.mixing import Mixing, PiKind
from d3pm_jax.processes.tables import expand_trailing, gather, is_category


def kl_and_ce(
    process: Mixing,
    logits_x0: Array,
    x0: Array,
    xt: Array,
    t: Array,
    belief: Belief = "d3pm",
) -> tuple[Array, Array]:
    """Computes `variational.dispatch_kl_and_ce` in O(K)."""
    ts = jnp.broadcast_to(expand_trailing(t, xt.shape), xt.shape)
    pi_0, pi_t = gather(process.log_pi, x0), gather(process.log_pi, xt)
    a, b = gather(process.log_alpha, ts), gather(process.log_beta, ts) + pi_t
    c, m = gather(process.log_alpha_bar, ts - 1), gather(process.log_beta_bar, ts - 1)
    step = StepLogs(a, b, c, m, pi_0, pi_t)
    if belief != "official":
        return _from_step(process, logits_x0, x0, xt, step, belief)

    # The official rule takes the prediction itself for p(x_0 | x_1): the term of t = 1 is the cross entropy.
    kl, ce = _from_step(process, logits_x0, x0, xt, step, "d3pm")
    possible = jnp.where(xt == x0, numerics.log_add(a, b), b) > -jnp.inf
    return jnp.where((ts == 1) & possible, ce, kl), ce


def marginal_kl(process: Mixing, logits_x0: Array, x0: Array, t: Array) -> Array:
    """Computes `variational.marginal_kl` in O(K): the KL of a step whose x_t says nothing of x_{t-1}."""
    ts = jnp.broadcast_to(expand_trailing(t, x0.shape), x0.shape)
    xt = jnp.full(
        x0.shape, jnp.argmax(process.log_pi), jnp.int32
    )  # for a pi of one category it has to be that one
    pi_0, pi_t = gather(process.log_pi, x0), gather(process.log_pi, xt)
    c, m = gather(process.log_alpha_bar, ts), gather(process.log_beta_bar, ts)
    certain = jnp.zeros(x0.shape, process.log_pi.dtype)
    step = StepLogs(certain - jnp.inf, certain, c, m, pi_0, pi_t)
    return _from_step(process, logits_x0, x0, xt, step, "d3pm")[0]


def _from_step(
    process: Mixing, logits_x0: Array, x0: Array, xt: Array, step: StepLogs, belief: Belief
) -> tuple[Array, Array]:
    log_pi = lax.stop_gradient(process.log_pi)
    return _terms(process.pi_kind, belief, promote(process, logits_x0), x0, xt, step, log_pi)


def _forward(
    pi_kind: PiKind, belief: Belief, logits: Array, x0: Array, xt: Array, step: StepLogs, log_pi: Array
):
    own = log_own_evidence(step) if belief == "denoiser" else None
    softmax, log_p0, log_pt = _softmax(_less_at(logits, xt, own), x0, xt)
    ends = endpoints(step, log_p0, log_pt, xt == x0)
    rest = _other_categories(pi_kind, logits, x0, xt, step, ends, softmax, log_pi)
    row = saved(pi_kind, belief, step, ends, rest, softmax, log_p0, log_pt, xt == x0)
    return (row.kl, row.ce), (logits, x0, xt, own, log_pi, row)


def _backward(pi_kind: PiKind, belief: Belief, residuals, cotangents: tuple[Array, Array]):
    logits, x0, xt, own, log_pi, row = residuals
    at = slope(row, *cotangents)
    p = _probabilities(_less_at(logits, xt, own), row.softmax)
    coefficient = at.p[..., None]
    if pi_kind != "point":
        pi, per_pi = _pi(pi_kind, log_pi, logits.ndim)
        coefficient -= (pi * per_pi) * at.rest[..., None] / (1 + at.rho[..., None] * per_pi * p)
    gradient = coefficient * p + _at(x0, at.x0, logits.shape[-1]) + _at(xt, at.xt, logits.shape[-1])
    return gradient, None, None, None, None


_custom = jax.custom_vjp(lambda *args: _forward(*args)[0], nondiff_argnums=(0, 1))
_custom.defvjp(_forward, _backward)
_terms = jax.jit(_custom, static_argnums=(0, 1))


def _less_at(logits: Array, xt: Array, amount: Array | None) -> Array:
    """Takes an amount off the logit at x_t: for whatever reads the result, it is never stored."""
    if amount is None:
        return logits
    return jnp.where(is_category(xt, logits.shape[-1]), logits - amount[..., None], logits)


def _softmax(logits: Array, x0: Array, xt: Array) -> tuple[Softmax, Array, Array]:
    """Returns what makes probabilities of the logits, and log p at x_0 and at x_t: -inf where it is 0."""
    top = finite(jnp.max(logits, axis=-1))
    sums = jnp.sum(jnp.exp(logits - top[..., None]), axis=-1)
    at = (jnp.take_along_axis(logits, x[..., None], axis=-1)[..., 0] for x in (x0, xt))
    log_p0, log_pt = (jnp.where(l == NEG_INF, NEG_INF, l - top - jnp.log(sums)) for l in at)
    inverse = jnp.where(sums == 0, 0.0, 1 / jnp.where(sums == 0, 1.0, sums))  # NaN stays
    return Softmax(top, inverse), log_p0, log_pt


def _probabilities(logits: Array, softmax: Softmax) -> Array:
    return jnp.exp(logits - softmax.top[..., None]) * softmax.inverse[..., None]


def _other_categories(
    pi_kind: PiKind,
    logits: Array,
    x0: Array,
    xt: Array,
    step: StepLogs,
    ends: Endpoints,
    softmax: Softmax,
    log_pi: Array,
) -> OtherCategories:
    """Sums over j with p = 0 at x_0 and x_t, whose terms are then known, and takes these off again."""
    q = jnp.exp(step.b + step.m - finite(ends.norm_q))
    rho = jnp.exp(jnp.where(step.m == NEG_INF, NEG_INF, step.c - step.m))
    if pi_kind == "point":
        return OtherCategories(jnp.zeros_like(q), jnp.zeros_like(q), q, rho)
    if pi_kind == "uniform":
        q, rho = q * jnp.exp(step.pi_0), rho * jnp.exp(-step.pi_0)
    log_least = jnp.where(step.b == NEG_INF, 0.0, finite(ends.norm_q) - finite(ends.norm_p))
    least = jnp.exp(log_least)
    unreached = jnp.exp(step.b + step.c - finite(ends.norm_p))
    part = partial(_sums, pi_kind, _pi(pi_kind, log_pi, 3))
    kl, S = tiles.apply_by_parts(part, logits, x0, xt, *softmax, q, rho, least, unreached)
    pi_0, pi_t = pi_at_endpoints(pi_kind, step)
    apart = pi_0 + jnp.where(xt == x0, 0.0, pi_t)
    return OtherCategories(kl - q * apart * ((least - 1) - log_least), S, q, rho)


def _sums(
    pi_kind: PiKind,
    table: Table,
    logits: Array,
    x0: Array,
    xt: Array,
    top: Array,
    inverse: Array,
    *rows: Array,
) -> tuple[Array, Array]:
    """Returns kl and S of `OtherCategories` with p = 0 at x_0 and x_t; least is the least p_j / q_j."""
    q, rho, least, unreached = rows
    pi, per_pi = table
    p = _without(_probabilities(logits, Softmax(top, inverse)), x0, xt)
    rise = 1 + rho[..., None] * per_pi * p
    ratio = least[..., None] + (least * rho)[..., None] * per_pi * p  # p_j / q_j
    kl = q * jnp.sum(pi * ((ratio - 1) - jnp.log(ratio)), axis=-1)
    if pi_kind == "general":
        kl += unreached * jnp.sum(p * (per_pi == 0), axis=-1)
    return kl, q * jnp.sum(pi - pi / rise, axis=-1)


def _pi(pi_kind: PiKind, log_pi: Array, ndim: int) -> Table:
    """Returns pi and 1 / pi (0 where pi is) as arrays of ndim axes; 1 where pi is uniform."""
    if pi_kind == "uniform":
        return 1.0, 1.0
    pi = jnp.exp(jnp.reshape(log_pi, (1,) * (ndim - 1) + (-1,)))
    return pi, jnp.where(pi > 0, 1 / jnp.where(pi > 0, pi, 1.0), 0.0)


def _without(weights: Array, x0: Array, xt: Array) -> Array:
    """Sets weights to 0 at x_0 and x_t: in place on CPUs, where a select takes a quarter of a loss."""
    return lax.platform_dependent(weights, x0, xt, cpu=_zero_in_place, default=_zero_by_select)


def _zero_in_place(weights: Array, x0: Array, xt: Array) -> Array:
    def clear(row: Array, k: Array) -> Array:
        return row.at[k].set(0.0)

    for _ in range(x0.ndim):
        clear = jax.vmap(clear)
    return clear(clear(weights, x0), xt)


def _zero_by_select(weights: Array, x0: Array, xt: Array) -> Array:
    K = weights.shape[-1]
    return jnp.where(is_category(x0, K) | is_category(xt, K), 0.0, weights)


def _at(x: Array, amount: Array, K: int) -> Array:
    """Returns rows of 0 with an amount at x."""
    return jnp.where(is_category(x, K), amount[..., None], 0.0)
