"""KL and cross entropy of Q = alpha I + (1 - alpha) 1 pi^T in O(K), and their gradient in one more pass.

With a = alpha_t, b = beta_t pi_xt, c = alpha_bar_{t-1}, m = 1 - c and p = softmax(logits) (D3PM eq. 3, 4):

    q(x_{t-1} = j | x_t, x_0) = (a [j = x_t] + b) (c [j = x_0] + m pi_j) / norm_q
    p(x_{t-1} = j | x_t)      = (a [j = x_t] + b) (c p_j + m pi_j) / norm_p

Only j = x_0 and j = x_t stand apart; they are kept in log space. All other j take sums over K, without
branches so that they vectorise; where pi is one category, their q is 0 and they take none. Terms of the KL
are q r - q + p with r = log q - log p, which is never negative (see `numerics.kl`).

The softmax's sums come first, for all elements; then the sums over the other j, by parts that fit a cache;
then what is left to do for each element, once and not once per part: small programs cost more than sums.
"""

from collections.abc import Callable
from functools import partial
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array

from d3pm_jax import chunks, numerics

NEG_INF = -jnp.inf
Shape = Literal["one", "even", "any"]  # of pi: one category, all alike, or neither
Table = tuple[Array | float, Array | float]


class Step(NamedTuple):
    """Logs of one step for each element, [*S]."""

    a: Array  # alpha_t
    b: Array  # beta_t pi_xt: how likely x_t is after a move
    c: Array  # alpha_bar_{t-1}
    m: Array  # 1 - alpha_bar_{t-1}
    pi_0: Array  # pi at x_0
    pi_t: Array  # pi at x_t


class Scale(NamedTuple):
    """p_j = exp(logits_j - top) inverse, [*S]; inverse is 0 for a row of -inf."""

    top: Array
    inverse: Array


class Others(NamedTuple):
    """Of the j that do not stand apart, [*S]."""

    kl: Array  # their terms of the kl
    share: Array  # the sum of q_j c p_j / (c p_j + m pi_j)
    q: Array  # q_j / pi_j; q_j itself where pi is even
    rate: Array  # c / m, 0 where q is; c / (m pi_j) where pi is even


class Row(NamedTuple):
    """The losses of each element, and what their gradient needs besides the logits, [*S]."""

    kl: Array
    ce: Array
    scale: Scale
    along: Array  # the derivative of kl by a logit, the part in proportion to p_j
    at_0: Array  # how much less the derivative for x_0 is than that of another j with its p_j
    at_t: Array  # how much more that for x_t is
    q: Array  # as in Others
    rate: Array


class Slope(NamedTuple):
    """The gradient of g_kl kl + g_ce ce for a logit, [*S]: p_j (along - others / (1 + rate p_j / pi_j))."""

    along: Array
    others: Array
    rate: Array
    at_0: Array  # to add at x_0
    at_t: Array


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
    scale, l0, lt = _softmax(logits, x0, xt)
    ends = _ends(step, l0, lt, xt == x0)
    others = _others(shape, logits, x0, xt, step, ends, scale, log_pi)
    row = chunks.stored(partial(_row, shape), (step, ends, others, scale, l0, lt, xt == x0))
    return (row.kl, row.ce), (logits, x0, xt, log_pi, row)


def _backward(shape: Shape, residuals, cotangents: tuple[Array, Array]):
    logits, x0, xt, log_pi, row = residuals
    slope = chunks.stored(_slope, (row, *cotangents))
    p = _probabilities(logits, row.scale)
    along = slope.along[..., None]
    if shape != "one":
        pi, per_pi = _pi(shape, log_pi, logits.ndim)
        along -= (pi * per_pi) * slope.others[..., None] / (1 + slope.rate[..., None] * per_pi * p)
    gradient = _add_at(_add_at(along * p, x0, slope.at_0), xt, slope.at_t)
    return gradient, None, None, None, None


_custom = jax.custom_vjp(lambda *args: _forward(*args)[0], nondiff_argnums=(0,))
_custom.defvjp(_forward, _backward)
_terms = jax.jit(_custom, static_argnums=0)


def _softmax(logits: Array, x0: Array, xt: Array) -> tuple[Scale, Array, Array]:
    """What makes probabilities of the logits, and log p at x_0 and at x_t: -inf where it is 0."""
    top = _finite(jnp.max(logits, axis=-1))
    sums = jnp.sum(jnp.exp(logits - top[..., None]), axis=-1)
    at = (jnp.take_along_axis(logits, x[..., None], axis=-1)[..., 0] for x in (x0, xt))
    l0, lt = (jnp.where(l == NEG_INF, NEG_INF, l - top - jnp.log(sums)) for l in at)
    return Scale(top, jnp.where(sums == 0, 0.0, 1 / jnp.where(sums == 0, 1.0, sums))), l0, lt  # NaN stays


def _probabilities(logits: Array, scale: Scale) -> Array:
    return jnp.exp(logits - scale.top[..., None]) * scale.inverse[..., None]


def _row(
    shape: Shape,
    step: Step,
    ends: Ends,
    others: Others,
    scale: Scale,
    l0: Array,
    lt: Array,
    same: Array,
) -> Row:
    kl = _kl(shape, step, ends, scale.inverse == 0, others.kl)
    share_0, share_t = jnp.exp(ends.q_0 + ends.share_0), jnp.exp(ends.q_t + ends.share_t)
    kept = jnp.exp(ends.kept)
    along, at_0, at_t = others.share + share_0 + share_t - kept, share_0, kept - share_t
    if shape != "one":  # what the other j with the same p have
        pi_0, pi_t = _at_ends(shape, step)
        at_0 -= others.q * _share(others.rate, jnp.exp(l0), pi_0)
        at_t += jnp.where(same, 0.0, others.q * _share(others.rate, jnp.exp(lt), pi_t))
    constant = jnp.isinf(kl) | (ends.norm_q == NEG_INF)
    along, at_0, at_t, q = (jnp.where(constant, 0.0, x) for x in (along, at_0, at_t, others.q))
    return Row(kl, -l0, scale, along, at_0, at_t, q, others.rate)


def _slope(row: Row, g_kl: Array, g_ce: Array) -> Slope:
    g_ce = jnp.where(jnp.isinf(row.ce), 0.0, g_ce)
    others = g_kl * row.q * row.rate
    return Slope(g_kl * row.along + g_ce, others, row.rate, -(g_kl * row.at_0 + g_ce), g_kl * row.at_t)


def _kl(shape: Shape, step: Step, ends: Ends, empty: Array, others: Array) -> Array:
    q, p = jnp.stack([ends.q_0, ends.q_t], -1), jnp.stack([ends.p_0, ends.p_t], -1)
    alone = jnp.sum(jnp.where(q == NEG_INF, 0.0, jnp.exp(q) * (_finite(q) - p)), axis=-1)  # no other q > 0
    kl = alone if shape == "one" else jnp.where(step.m == NEG_INF, alone, numerics.kl(q, p) + others)
    certain = empty | (ends.norm_p == NEG_INF)
    return jnp.where(ends.norm_q == NEG_INF, 0.0, jnp.where(certain, jnp.inf, kl))


def _others(
    shape: Shape, logits: Array, x0: Array, xt: Array, step: Step, ends: Ends, scale: Scale, log_pi: Array
) -> Others:
    """p is 0 at x_0 and x_t, so their terms are those of p = 0, which are known and taken off again."""
    q = jnp.exp(step.b + step.m - _finite(ends.norm_q))
    rate = jnp.exp(jnp.where(step.m == NEG_INF, NEG_INF, step.c - step.m))
    if shape == "one":
        return Others(jnp.zeros_like(q), jnp.zeros_like(q), q, rate)
    if shape == "even":
        q, rate = q * jnp.exp(step.pi_0), rate * jnp.exp(-step.pi_0)
    log_least = jnp.where(step.b == NEG_INF, 0.0, _finite(ends.norm_q) - _finite(ends.norm_p))
    least = jnp.exp(log_least)
    unreached = jnp.exp(step.b + step.c - _finite(ends.norm_p))
    part = partial(_sums, shape, _pi(shape, log_pi, 3))
    kl, share = chunks.over_parts(part, logits, x0, xt, *scale, q, rate, least, unreached)
    pi_0, pi_t = _at_ends(shape, step)
    apart = pi_0 + jnp.where(xt == x0, 0.0, pi_t)
    return Others(kl - q * apart * ((least - 1) - log_least), share, q, rate)


def _sums(
    shape: Shape, table: Table, logits: Array, x0: Array, xt: Array, top: Array, inverse: Array, *rows: Array
) -> tuple[Array, Array]:
    """`Others.kl` and `Others.share` with p = 0 at x_0 and x_t; least is the least p_j / q_j."""
    q, rate, least, unreached = rows
    pi, per_pi = table
    p = _without(_without(_probabilities(logits, Scale(top, inverse)), x0), xt)
    rise = 1 + rate[..., None] * per_pi * p
    ratio = least[..., None] + (least * rate)[..., None] * per_pi * p  # p_j / q_j
    kl = q * jnp.sum(pi * ((ratio - 1) - jnp.log(ratio)), axis=-1)
    if shape == "any":
        kl += unreached * jnp.sum(p * (per_pi == 0), axis=-1)
    return kl, q * jnp.sum(pi - pi / rise, axis=-1)


def _share(rate: Array, p: Array, pi: Array | float) -> Array:
    """pi c p / (c p + m pi), 0 where pi is."""
    pi = jnp.asarray(pi, p.dtype)
    some = jnp.where(pi > 0, pi, 1.0)
    return jnp.where(pi > 0, pi - pi / (1 + rate * p * (1 / some)), 0.0)


def _pi(shape: Shape, log_pi: Array, ndim: int) -> Table:
    """pi and 1 / pi (0 where pi is) as arrays of ndim axes; 1 where all are alike."""
    if shape == "even":
        return 1.0, 1.0
    pi = jnp.exp(jnp.reshape(log_pi, (1,) * (ndim - 1) + (-1,)))
    return pi, jnp.where(pi > 0, 1 / jnp.where(pi > 0, pi, 1.0), 0.0)


def _at_ends(shape: Shape, step: Step) -> Table:
    """pi at x_0 and x_t; 1 where all are alike."""
    return (1.0, 1.0) if shape == "even" else (jnp.exp(step.pi_0), jnp.exp(step.pi_t))


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


def _finite(x: Array) -> Array:
    """x, and 0 where it is -inf: what a probability of 0 is divided by."""
    return jnp.where(x == NEG_INF, 0.0, x)
