"""Computes `variational.posterior_kl_definition` and `cross_entropy` of alpha I + (1 - alpha) 1 pi^T in O(K).

The gradient is by hand. docs/mixing-loss.md derives value and gradient, and this file follows that page from
section to section, in its symbols. With a = alpha_t, b = beta_t pi_xt, c = alpha_bar_{t-1}, m = 1 - c and
p = softmax(logits) (D3PM eq. 3, 4):

    q(x_{t-1} = j | x_t, x_0) = q_j   = (a [j = x_t] + b) (c [j = x_0] + m pi_j) / N_q
    p(x_{t-1} = j | x_t)      = p_j^- = (a [j = x_t] + b) (c p_j + m pi_j) / N_p

Only j = x_0 and j = x_t, the endpoints, stand apart; they are kept in log space. All other j take sums over
K, without branches so that they vectorise; where pi is one category, their q is 0 and they take none.

A KL of 0 can come out negative by a rounding, -2e-8 in float32, because what the sums over K have too much of
at the endpoints is taken off again. So can the cross entropy be where it is made of logs, under a belief
other than "d3pm".
"""

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array

from d3pm_jax import numerics
from d3pm_jax.beliefs import Belief
from d3pm_jax.checks import promote_types
from d3pm_jax.cpu import tiles
from d3pm_jax.numerics.logspace import kl_terms
from d3pm_jax.numerics.rows import RowBlock, map_rows
from d3pm_jax.processes import Mixing, PiKind, expand_trailing, gather, is_category

NEG_INF = -jnp.inf
PiTable = tuple[Array | float, Array | float]  # pi and 1 / pi


# ---- The model: the numbers of one step ----


class StepLogs(NamedTuple):
    """Holds logs of one step for each element, [*S].

    What t alone decides, a, c and m, may have the shape of t, until `expand` makes it that of the elements.
    """

    a: Array  # alpha_t
    b: Array  # beta_t pi_xt: how likely x_t is after a move
    c: Array  # alpha_bar_{t-1}
    m: Array  # 1 - alpha_bar_{t-1}
    pi_0: Array  # pi at x_0
    pi_t: Array  # pi at x_t

    def expand(self) -> "StepLogs":
        """Broadcasts all to the shape of the elements."""
        shape = self.b.shape
        return StepLogs(*(jnp.broadcast_to(expand_trailing(x, shape), shape) for x in self))


def kl_and_ce(
    process: Mixing, logits_x0: Array, x0: Array, xt: Array, t: Array, belief: Belief = "d3pm"
) -> tuple[Array, Array]:
    """Computes `variational.dispatch_kl_and_ce` in O(K)."""
    step = gather_logs(process, x0, xt, t)
    if belief != "official":
        return _kl_and_ce_of_step(process, logits_x0, x0, xt, step, belief)

    kl, ce = _kl_and_ce_of_step(process, logits_x0, x0, xt, step, "d3pm")
    return take_ce_at_first_step(step, kl, ce, x0, xt, t), ce


def gather_logs(process: Mixing, x0: Array, xt: Array, t: Array) -> StepLogs:
    """Returns the logs of step t for each element."""
    pi_0 = gather(process.log_pi, x0)
    pi_t = gather(process.log_pi, xt)
    a = gather(process.log_alpha, t)
    b = expand_trailing(gather(process.log_beta, t), xt.shape) + pi_t
    c = gather(process.log_alpha_bar, t - 1)
    m = gather(process.log_beta_bar, t - 1)
    return StepLogs(a, b, c, m, pi_0, pi_t)


def take_ce_at_first_step(step: StepLogs, kl: Array, ce: Array, x0: Array, xt: Array, t: Array) -> Array:
    """Returns the KL under the official rule, which takes the prediction itself for p(x_0 | x_1).

    The term of t = 1 is the cross entropy, but for an impossible pair, which costs nothing.
    """
    step = step.expand()
    possible = jnp.where(xt == x0, numerics.log_add(step.a, step.b), step.b) > -jnp.inf
    return jnp.where((expand_trailing(t, xt.shape) == 1) & possible, ce, kl)


def marginal_kl(process: Mixing, logits_x0: Array, x0: Array, t: Array) -> Array:
    """Computes `variational.marginal_kl` in O(K): the KL of a step whose x_t says nothing of x_{t-1}."""
    # a = 0 and b = 1 make the first factor of q_j and p_j^- 1 for every j, so that any x_t will do whose pi
    # is not 0. Where pi is one category, x_t has to be that one: no sum over the others is made then, so
    # that all with q_j > 0 have to be endpoints.
    xt = jnp.full(x0.shape, jnp.argmax(process.log_pi), jnp.int32)
    pi_0 = gather(process.log_pi, x0)
    pi_t = gather(process.log_pi, xt)
    c = gather(process.log_alpha_bar, t)
    m = gather(process.log_beta_bar, t)
    step = StepLogs(jnp.full_like(c, NEG_INF), jnp.zeros_like(pi_t), c, m, pi_0, pi_t)
    return _kl_and_ce_of_step(process, logits_x0, x0, xt, step, "d3pm")[0]


def prior_kl(process: Mixing, x0: Array) -> Array:
    """Computes `variational.prior_kl`, nats [*S], in O(1): q_j is alpha [j = x_0] + (1 - alpha) pi_j."""
    # Of all other categories q / pi is 1 - alpha, and that of x_0 is 1 + alpha (1 - pi_0) / pi_0. Both are
    # kept as logs near 0, and terms are those of `numerics.kl`, none of which is negative.
    log_pi_0 = gather(jax.lax.stop_gradient(process.log_pi), x0)
    log_alpha = process.log_alpha_bar[-1]
    log_rest = process.log_beta_bar[-1]  # of 1 - alpha
    rest_of_pi = jnp.maximum(-jnp.expm1(log_pi_0), 0.0)  # 1 - pi_0, also where pi_0 is all but 1
    kl_of_others = rest_of_pi * _kl_term(jnp.exp(log_rest), finite(log_rest), 1.0)

    log_rest_of_pi = jnp.where(rest_of_pi > 0, jnp.log(jnp.where(rest_of_pi > 0, rest_of_pi, 1.0)), NEG_INF)
    r_0 = numerics.log_add(jnp.zeros_like(log_pi_0), log_alpha + log_rest_of_pi - finite(log_pi_0))
    q_0 = jnp.exp(numerics.log_add(*jnp.broadcast_arrays(log_alpha, log_rest + log_pi_0)))
    kl_of_x0 = _kl_term(q_0, r_0, jnp.exp(log_pi_0))

    never = log_pi_0 == NEG_INF
    kl_of_x0 = jnp.where(never, jnp.where(log_alpha > NEG_INF, jnp.inf, 0.0), kl_of_x0)
    return kl_of_others + kl_of_x0


def _kl_term(q: Array, r: Array, p: Array | float) -> Array:
    """Returns q (r - 1 + exp(-r)), r = log(q / p): near 0 by its series, which loses no digits."""
    near = jnp.abs(r) < 1.0
    r_near = jnp.where(near, r, 0.0)
    series = jnp.zeros_like(r)
    for n in range(18, 1, -1):
        series = 1 / math.factorial(n) - series * r_near
    return jnp.where(near, q * r_near**2 * series, q * r - q + p)


def _kl_and_ce_of_step(
    process: Mixing, logits_x0: Array, x0: Array, xt: Array, step: StepLogs, belief: Belief
) -> tuple[Array, Array]:
    # No gradient goes to the tables of a process.
    log_pi = jax.lax.stop_gradient(process.log_pi)
    return _kl_and_ce_by_hand(process.pi_kind, belief, logits_x0, x0, xt, step, log_pi)


# ---- The whole computation, forward and backward ----
#
# The sums of the softmax come first, then the sums over the other categories, on CPUs by parts that fit
# a cache. All that is left is [*S], and is done there once and not once per part: small programs cost
# more. The backward pass makes the probabilities anew from the logits, so that nothing else of size [*S, K]
# is stored.


def _forward(
    pi_kind: PiKind, belief: Belief, logits: Array, x0: Array, xt: Array, step: StepLogs, log_pi: Array
) -> tuple[tuple[Array, Array], tuple]:
    # On CPUs a pass over the logits is cheap where its numbers stay in the cache; elsewhere what counts is
    # how often they are read.
    arguments = (logits, x0, xt, step, log_pi)
    by_parts = partial(_save_by_parts, pi_kind, belief)
    by_rows = partial(_save_by_rows, pi_kind, belief)
    saved: Any = jax.lax.platform_dependent(*arguments, cpu=by_parts, default=by_rows)
    return (saved.kl, saved.ce), (*arguments, saved)


def _backward(pi_kind: PiKind, belief: Belief, residuals, cotangents: tuple[Array, Array]):
    at_once = partial(_gradient, pi_kind, belief)
    by_rows = partial(_gradient_by_rows, pi_kind, belief)
    gradient = jax.lax.platform_dependent(*residuals, *cotangents, cpu=at_once, default=by_rows)
    return gradient, None, None, None, None


_custom = jax.custom_vjp(lambda *args: _forward(*args)[0], nondiff_argnums=(0, 1))
_custom.defvjp(_forward, _backward)
_kl_and_ce_by_hand = jax.jit(_custom, static_argnums=(0, 1))


# ---- The prediction p ----


class Softmax(NamedTuple):
    """Makes probabilities of logits, [*S]: p_j = exp(logits_j - top) inverse; 0 for a row of -inf."""

    top: Array
    inverse: Array


def _softmax(logits: Array, x0: Array, xt: Array) -> tuple[Softmax, Array, Array]:
    """Returns what makes probabilities of the logits, and log p at x_0 and at x_t: -inf where it is 0."""
    top = finite(jnp.max(logits, axis=-1))
    sums = jnp.sum(jnp.exp(logits - top[..., None]), axis=-1)

    logit_0 = jnp.take_along_axis(logits, x0[..., None], axis=-1)[..., 0]
    logit_t = jnp.take_along_axis(logits, xt[..., None], axis=-1)[..., 0]
    return _normalize(top, sums, logit_0, logit_t)


def _normalize(top: Array, sums: Array, logit_0: Array, logit_t: Array) -> tuple[Softmax, Array, Array]:
    """Returns what `_softmax` does of the largest logit, the sum of exp(logits - top) and two logits."""

    # The logs are made of the logits, not of p: p may underflow where its log is -20,000.
    def log_p_of(logit: Array) -> Array:
        return jnp.where(logit == NEG_INF, NEG_INF, logit - top - jnp.log(sums))

    log_p0 = log_p_of(logit_0)
    log_pt = log_p_of(logit_t)

    # Only a row of -inf has the sum 0. A comparison with > 0 would hide the NaN of a network that failed.
    inverse = jnp.where(sums == 0, 0.0, 1 / jnp.where(sums == 0, 1.0, sums))
    return Softmax(top, inverse), log_p0, log_pt


def _probabilities(logits: Array, softmax: Softmax) -> Array:
    return jnp.exp(logits - softmax.top[..., None]) * softmax.inverse[..., None]


def _subtract_at_xt(logits: Array, xt: Array, amount: Array | None) -> Array:
    """Takes an amount [*S] off the logit at x_t; whatever reads the result is fused with it."""
    if amount is None:
        return logits
    return jnp.where(is_category(xt, logits.shape[-1]), logits - amount[..., None], logits)


# ---- The value at the endpoints ----


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


def endpoints(step: StepLogs, log_p0: Array, log_pt: Array, same: Array) -> Endpoints:
    """Computes the terms of j = x_0 and j = x_t from log p there; same is x_t = x_0."""
    # m pi_j, which is the second factor of q_j but at x_0, and part of it everywhere.
    moved_0 = step.m + step.pi_0
    moved_t = step.m + step.pi_t

    # The second factor: `row` of q_j, c [j = x_0] + m pi_j, and `mix` of p_j^-, c p_j + m pi_j.
    row_0 = numerics.log_add(step.c, moved_0)
    mix_0 = numerics.log_add(step.c + log_p0, moved_0)
    row_t = jnp.where(same, row_0, moved_t)
    mix_t = numerics.log_add(step.c + log_pt, moved_t)

    # The first factor, a [j = x_t] + b, which q_j and p_j^- have in common.
    back_t = numerics.log_add(step.a, step.b)
    back_0 = jnp.where(same, back_t, step.b)

    # The sum over j of first times second: a counts once, at x_t, and b counts c + m = 1 times.
    norm_q = numerics.log_add(step.a + row_t, step.b)
    norm_p = numerics.log_add(step.a + mix_t, step.b)

    # Where N is 0, so is what it divides: -inf - 0 stays -inf, and -inf - -inf would be NaN.
    by_q = finite(norm_q)
    by_p = finite(norm_p)
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


# ---- The value of all other categories ----


class OtherCategories(NamedTuple):
    """Holds sums over the j that are neither x_0 nor x_t, and their common factors, [*S]."""

    kl: Array  # their terms of the KL
    S: Array  # their part of S, the sum of q_j s_j
    q: Array  # q_j / pi_j; q_j itself where pi is uniform
    rho: Array  # c / m, 0 where m is; c / (m pi_j) where pi is uniform


def _sum_other_categories(
    pi_kind: PiKind,
    logits: Array,
    x0: Array,
    xt: Array,
    step: StepLogs,
    ends: Endpoints,
    softmax: Softmax,
    log_pi: Array,
) -> OtherCategories:
    """Sums over the other categories, part by part."""
    pi_table = _pi_table(pi_kind, log_pi, ndim=3)  # a part of the logits is [B, n, K]

    def sum_part(logits: Array, x0: Array, xt: Array, top: Array, inverse: Array, *factors: Array):
        # The terms of the endpoints are replaced. They are made with p = 0, because with a p near 1 and a
        # tiny pi they could be far larger than the sum that is wanted, and to subtract them would cost
        # digits.
        p = _zero_at_endpoints(_probabilities(logits, Softmax(top, inverse)), x0, xt)  # [B, n, K]
        return _sum_terms(pi_kind, pi_table, p, *factors)

    def sum_terms(*factors: Array) -> tuple[Array, ...]:
        return tiles.apply_by_parts(sum_part, logits, x0, xt, *softmax, *factors)

    return _sum_others(pi_kind, x0, xt, step, ends, sum_terms)


def _sum_others(
    pi_kind: PiKind,
    x0: Array,
    xt: Array,
    step: StepLogs,
    ends: Endpoints,
    sum_terms: Callable[..., tuple[Array, ...]],
) -> OtherCategories:
    """Sums over j with p = 0 at x_0 and x_t, whose terms are then known, and takes these off again.

    Args:
        sum_terms: (q, rho, least, unreached) -> kl and S, as `_sum_terms` does.
    """
    # q_j = q pi_j and p_j^- / q_j = least (1 + rho p_j / pi_j), of which q, rho and least are one number for
    # all other j. m is 0 at t = 1, where q is 0 too: rho is set to 0 there and enters nothing.
    q = jnp.exp(step.b + step.m - finite(ends.norm_q))
    rho = jnp.exp(jnp.where(step.m == NEG_INF, NEG_INF, step.c - step.m))
    if pi_kind == "point":
        return OtherCategories(jnp.zeros_like(q), jnp.zeros_like(q), q, rho)

    # A uniform pi is one number, which goes into q and rho: the pass over K then reads no table.
    if pi_kind == "uniform":
        q = q * jnp.exp(step.pi_0)
        rho = rho * jnp.exp(-step.pi_0)

    # Where b is 0, q is 0 too, and any finite number will do for `least`: with a ratio that overflowed the
    # terms would be 0 times inf, a NaN.
    log_least = jnp.where(step.b == NEG_INF, 0.0, finite(ends.norm_q) - finite(ends.norm_p))
    least = jnp.exp(log_least)
    unreached = jnp.exp(step.b + step.c - finite(ends.norm_p))

    kl, S = sum_terms(q, rho, least, unreached)

    # With p_j = 0 the term of j is q pi_j ((least - 1) - log least): what the endpoints have in the sum.
    # Their part of S is 0.
    pi_0, pi_t = pi_at_endpoints(pi_kind, step)
    pi_of_endpoints = pi_0 + jnp.where(xt == x0, 0.0, pi_t)
    kl_of_endpoints = q * pi_of_endpoints * ((least - 1) - log_least)
    return OtherCategories(kl - kl_of_endpoints, S, q, rho)


def _sum_terms(
    pi_kind: PiKind, pi_table: PiTable, p: Array, q: Array, rho: Array, least: Array, unreached: Array
) -> tuple[Array, Array]:
    """Returns kl and S of `OtherCategories` for a part of the elements, with p = 0 at x_0 and x_t.

    Args:
        pi_kind, pi_table: of the process.
        p: [B, n, K], 0 at the endpoints; all that follow are [B, n].
        q, rho: of `OtherCategories`.
        least: the least p_j^- / q_j, which is at p_j = 0.
        unreached: p_j^- / p_j where pi_j = 0.
    """
    pi, per_pi = pi_table
    rise = 1 + rho[..., None] * per_pi * p

    # The ratio is least * rise, but made as a sum of two terms: near 1 the sum is rounded once, where least
    # times a `rise` that is rounded already would be rounded twice.
    ratio = least[..., None] + (least * rho)[..., None] * per_pi * p  # p_j^- / q_j

    # Terms of the KL are q_j ((ratio - 1) - log ratio), which are never negative: the sum of q_j log(q_j /
    # p_j^-) alone would be what is left after terms of either sign cancel.
    kl = q * jnp.sum(pi * ((ratio - 1) - jnp.log(ratio)), axis=-1)

    # Where pi_j = 0, q_j is 0 too, and the term is p_j^- alone.
    if pi_kind == "general":
        kl += unreached * jnp.sum(p * jnp.asarray(per_pi == 0, p.dtype), axis=-1)

    # s_j = (rho p_j / pi_j) / rise_j = 1 - 1 / rise_j, so that pi_j s_j = pi_j - pi_j / rise_j. Where rho p_j
    # is small beside pi_j the difference loses digits, but the error of S is no more than the sum of the
    # roundings of all q_j, which is one last place of 1. The gradient at k has the term p_k S, in which this
    # counts no more than a rounding of p_k itself. Its term q_k s_k is computed without the difference, in
    # `_backward`.
    S = q * jnp.sum(pi - pi / rise, axis=-1)
    return kl, S


def _pi_table(pi_kind: PiKind, log_pi: Array, ndim: int) -> PiTable:
    """Returns pi and 1 / pi (0 where pi is) as arrays of ndim axes; 1 where pi is uniform."""
    if pi_kind == "uniform":
        return 1.0, 1.0
    pi = jnp.exp(jnp.reshape(log_pi, (1,) * (ndim - 1) + (-1,)))
    return pi, jnp.where(pi > 0, 1 / jnp.where(pi > 0, pi, 1.0), 0.0)


def pi_at_endpoints(pi_kind: PiKind, step: StepLogs) -> PiTable:
    """Returns pi at x_0 and x_t; 1 where pi is uniform, because `OtherCategories` has it in its factors."""
    if pi_kind == "uniform":
        return 1.0, 1.0
    return jnp.exp(step.pi_0), jnp.exp(step.pi_t)


def _zero_at_endpoints(p: Array, x0: Array, xt: Array) -> Array:
    """Sets p to 0 at x_0 and x_t: in place on CPUs, where a select takes a quarter of a loss."""
    return jax.lax.platform_dependent(p, x0, xt, cpu=_zero_in_place, default=_zero_by_select)


def _zero_in_place(p: Array, x0: Array, xt: Array) -> Array:
    def clear(row: Array, k: Array) -> Array:
        return row.at[k].set(0.0)

    for _ in range(x0.ndim):
        clear = jax.vmap(clear)
    return clear(clear(p, x0), xt)


def _zero_by_select(p: Array, x0: Array, xt: Array) -> Array:
    K = p.shape[-1]
    return jnp.where(is_category(x0, K) | is_category(xt, K), 0.0, p)


# ---- The value as a whole ----


def _kl(pi_kind: PiKind, step: StepLogs, ends: Endpoints, empty_row: Array, kl_of_others: Array) -> Array:
    """Returns the KL of each element; 0 for an impossible pair, +inf for a certain error."""
    # Where no other category has q_j > 0, the sum of q log(q / p^-) over the endpoints is all: those of a pi
    # of one category, and t = 1 (m = 0). The others' p_j^- is then not summed, which the form below would
    # need.
    kl_of_endpoints = _q_log_ratio(ends.q_0, ends.p_0) + _q_log_ratio(ends.q_t, ends.p_t)
    if pi_kind == "point":
        kl = kl_of_endpoints
    else:
        _, terms_0, ruled_out_0 = kl_terms(ends.q_0, ends.p_0)
        _, terms_t, ruled_out_t = kl_terms(ends.q_t, ends.p_t)
        empty = (ends.q_0 == NEG_INF) & (ends.q_t == NEG_INF)
        terms = jnp.where(empty, 0.0, terms_0 + terms_t)
        terms = jnp.where(ruled_out_0 | ruled_out_t, jnp.inf, terms)
        kl = jnp.where(step.m == NEG_INF, kl_of_endpoints, terms + kl_of_others)

    # A row of -inf is tested for by itself: m pi_j would give it finite numbers. An impossible pair comes
    # first.
    certain_error = empty_row | (ends.norm_p == NEG_INF)
    return jnp.where(ends.norm_q == NEG_INF, 0.0, jnp.where(certain_error, jnp.inf, kl))


def _q_log_ratio(log_q: Array, log_p: Array) -> Array:
    """q log(q / p), 0 where q is."""
    # The `where` masks a q of 0 already; `finite` only keeps -inf - -inf out of what is masked.
    return jnp.where(log_q == NEG_INF, 0.0, jnp.exp(log_q) * (finite(log_q) - log_p))


# ---- Other beliefs: the cross entropy ----
#
# q(x_t | x_0) is one number for x_0 = x_t and another, f, for all other x_0. So the denoiser of a
# leave-one-out posterior differs from it at x_t alone, and N_p, which the KL has already, is the sum that
# normalises it.


def log_evidence_ratio(step: StepLogs) -> Array:
    """log q(x_t | x_0 = x_t) - log f, and 0 where no other x_0 is possible."""
    log_f = _log_f(step)
    log_evidence_of_xt = numerics.log_add(step.a + numerics.log_add(step.c, step.m + step.pi_t), step.b)
    return jnp.where(log_f == NEG_INF, 0.0, log_evidence_of_xt - finite(log_f))


def _log_f(step: StepLogs) -> Array:
    """log f = log(a m pi_xt + b): log q(x_t | x_0) of any x_0 but x_t itself."""
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

    log_f = _log_f(step)
    impossible = (log_p0 == NEG_INF) | (ends.norm_q == NEG_INF)
    ce = jnp.where(impossible, jnp.inf, finite(ends.norm_p) - finite(ends.norm_q) - finite(log_p0))
    # 1 - kappa is f / N_p, which loses no digits where kappa is near 1.
    ce_p = jnp.exp(log_f - finite(ends.norm_p))
    ce_xt = jnp.exp(ends.kappa)
    if belief == "leave_one_out":
        return ce, ce_p, ce_xt

    only_xt = log_f == NEG_INF
    return jnp.where(only_xt, -log_p0, ce), jnp.where(only_xt, 1.0, ce_p), jnp.where(only_xt, 0.0, ce_xt)


# ---- The gradient for a logit ----


class Saved(NamedTuple):
    """Holds the losses of each element, and what their gradient needs besides the logits, [*S]."""

    kl: Any  # [*S]; None for the gradient, which does not need it, and would have it read
    ce: Array
    softmax: Softmax
    slope_p: Array  # S - kappa, S over all j: the part of the derivative in proportion to p_j
    slope_x0: Array  # how much less the derivative at x_0 is than that of another j with its p_j
    slope_xt: Array  # how much more that at x_t is
    ce_p: Array  # the same of ce: the part in proportion to p_j
    ce_xt: Array  # how much more it is at x_t
    q: Array  # as in OtherCategories
    rho: Array


def save_slopes(
    pi_kind: PiKind,
    belief: Belief,
    step: StepLogs,
    ends: Endpoints,
    others: OtherCategories,
    softmax: Softmax,
    log_p0: Array,
    log_pt: Array,
    same: Array,
) -> Saved:
    """Computes the losses and the coefficients of their gradient; a constant loss has none."""
    empty_row = softmax.inverse == 0  # all logits are -inf
    kl = _kl(pi_kind, step, ends, empty_row, others.kl)

    # dKL / dl_k = p_k (S - kappa) - q_k s_k + kappa [k = x_t], with S the sum of q_j s_j over all j.
    qs_0 = jnp.exp(ends.q_0 + ends.s_0)
    qs_t = jnp.exp(ends.q_t + ends.s_t)
    kappa = jnp.exp(ends.kappa)
    slope_p = others.S + qs_0 + qs_t - kappa
    slope_x0 = qs_0
    slope_xt = kappa - qs_t

    # `_backward` takes q share(k) off at every k, share(k) = pi_k s_k, but at the endpoints q_k s_k is due in
    # its place. So q share(k) is given back there. Where x_t = x_0, one endpoint is left, and it is given
    # back once, at x_0.
    if pi_kind != "point":
        pi_0, pi_t = pi_at_endpoints(pi_kind, step)
        slope_x0 -= others.q * _share(others.rho, jnp.exp(log_p0), pi_0)
        slope_xt += jnp.where(same, 0.0, others.q * _share(others.rho, jnp.exp(log_pt), pi_t))

    # The KL of an impossible pair is 0 whatever the logits are, and an infinite one has no direction to go.
    constant = jnp.isinf(kl) | (ends.norm_q == NEG_INF)
    slope_p = jnp.where(constant, 0.0, slope_p)
    slope_x0 = jnp.where(constant, 0.0, slope_x0)
    slope_xt = jnp.where(constant, 0.0, slope_xt)
    q = jnp.where(constant, 0.0, others.q)
    ce, ce_p, ce_xt = _denoiser_ce(belief, step, ends, log_p0)
    return Saved(kl, ce, softmax, slope_p, slope_x0, slope_xt, ce_p, ce_xt, q, others.rho)


def _share(rho: Array, p: Array, pi: Array | float) -> Array:
    """share = pi s = pi c p / (c p + m pi), 0 where pi is."""
    pi = jnp.asarray(pi, p.dtype)
    positive_pi = jnp.where(pi > 0, pi, 1.0)
    return jnp.where(pi > 0, pi - pi / (1 + rho * p * (1 / positive_pi)), 0.0)


class Slope(NamedTuple):
    """Gives the gradient of g_kl kl + g_ce ce for a logit, [*S]: p_j (p - q_rho / (1 + rho p_j / pi_j))."""

    p: Array
    q_rho: Array  # g_kl q rho
    rho: Array
    x0: Array  # to add at x_0
    xt: Array  # to add at x_t


def combine_slopes(saved: Saved, g_kl: Array, g_ce: Array) -> Slope:
    """Computes the coefficients of the gradient of g_kl kl + g_ce ce."""
    # An infinite cross entropy has no direction to go, as an infinite KL has none.
    g_ce = jnp.where(jnp.isinf(saved.ce), 0.0, g_ce)
    q_rho = g_kl * saved.q * saved.rho

    # dce / dl_k = ce_p p_k + ce_xt [k = x_t] - [k = x_0], so that g_ce itself is what x_0 loses.
    return Slope(
        p=g_kl * saved.slope_p + g_ce * saved.ce_p,
        q_rho=q_rho,
        rho=saved.rho,
        x0=-(g_kl * saved.slope_x0 + g_ce),
        xt=g_kl * saved.slope_xt + g_ce * saved.ce_xt,
    )


def _at(x: Array, amount: Array, K: int) -> Array:
    """Returns rows of 0 with an amount at x."""
    return jnp.where(is_category(x, K), amount[..., None], 0.0)


def finite(x: Array) -> Array:
    """Returns x, and 0 where it is -inf: the log that a probability of 0 is divided by."""
    return jnp.where(x == NEG_INF, 0.0, x)


# ---- All elements on a CPU ----


def _save_by_parts(
    pi_kind: PiKind, belief: Belief, logits: Array, x0: Array, xt: Array, step: StepLogs, log_pi: Array
) -> Saved:
    """Computes the losses and what their gradient needs, the sums over the other categories part by part."""
    step = step.expand()
    logits = _promote(logits, log_pi)
    softmax, log_p0, log_pt = _softmax(_subtract_at_xt(logits, xt, _evidence(belief, step)), x0, xt)
    ends = endpoints(step, log_p0, log_pt, xt == x0)
    # Here the logits may stay as they are: p is set to 0 at x_t.
    others = _sum_other_categories(pi_kind, logits, x0, xt, step, ends, softmax, log_pi)
    return save_slopes(pi_kind, belief, step, ends, others, softmax, log_p0, log_pt, xt == x0)


def _gradient(
    pi_kind: PiKind,
    belief: Belief,
    logits: Array,
    x0: Array,
    xt: Array,
    step: StepLogs,
    log_pi: Array,
    saved: Saved,
    g_kl: Array,
    g_ce: Array,
) -> Array:
    """Computes the gradient of g_kl kl + g_ce ce, with the probabilities made anew from the logits."""
    slope = combine_slopes(saved, g_kl, g_ce)
    K = logits.shape[-1]
    wide = _subtract_at_xt(_promote(logits, log_pi), xt, _evidence(belief, step.expand()))
    p = _probabilities(wide, saved.softmax)  # [*S, K]
    gradient = _slope_of_others(pi_kind, slope, p, _pi_table(pi_kind, log_pi, logits.ndim)) * p

    # The endpoints have a derivative of their own, which differs from that by a number of the element.
    gradient += _at(x0, slope.x0, K) + _at(xt, slope.xt, K)
    return gradient.astype(logits.dtype)


def _slope_of_others(pi_kind: PiKind, slope: Slope, p: Array, pi_table: PiTable) -> Array:
    """Returns what p_j has to be multiplied by for the gradient at any j but x_0 and x_t."""
    # slope.p - q_rho / (1 + rho p_j / pi_j) for every j. pi * per_pi is 1, and 0 where pi_j is 0: there q_j
    # is 0 and has no such term.
    coefficient = slope.p[..., None]
    if pi_kind != "point":
        pi, per_pi = pi_table
        coefficient -= (pi * per_pi) * slope.q_rho[..., None] / (1 + slope.rho[..., None] * per_pi * p)
    return coefficient


def _promote(logits: Array, log_pi: Array) -> Array:
    """Returns logits in the type of the tables or wider."""
    return logits.astype(promote_types(logits.dtype, log_pi.dtype))


def _evidence(belief: Belief, step: StepLogs) -> Array | None:
    """Returns what the logit at x_t loses, [*S], where logits are those of a denoiser.

    They become those of the leave-one-out posterior wherever they are read.
    """
    if belief == "denoiser":
        return log_evidence_ratio(step)
    return None


# ---- All elements elsewhere ----
#
# Forward and backward pass read the logits once each. What the latter needs besides them is a few numbers of
# each element.


def _save_by_rows(
    pi_kind: PiKind, belief: Belief, logits: Array, x0: Array, xt: Array, step: StepLogs, log_pi: Array
) -> Saved:
    """Computes `_save_by_parts`, a row at a time."""
    numbers = x0, xt, share_uniform_pi(pi_kind, step, log_pi)
    return map_rows(save_row, (pi_kind, belief), logits, numbers, tables_of_rows(pi_kind, log_pi))


def share_uniform_pi(pi_kind: PiKind, step: StepLogs, log_pi: Array) -> StepLogs:
    """Returns the step with one number for pi at all elements where it is the same at all categories."""
    if pi_kind != "uniform":
        return step
    return step._replace(pi_0=log_pi[0], pi_t=log_pi[0])


def _gradient_by_rows(
    pi_kind: PiKind,
    belief: Belief,
    logits: Array,
    x0: Array,
    xt: Array,
    step: StepLogs,
    log_pi: Array,
    saved: Saved,
    g_kl: Array,
    g_ce: Array,
) -> Array:
    """Computes `_gradient`, a row at a time."""
    step = share_uniform_pi(pi_kind, step, log_pi)
    numbers = numbers_of_gradient(belief, x0, xt, step, saved, g_kl, g_ce)
    return map_rows(gradient_row, (pi_kind, belief), logits, numbers, tables_of_rows(pi_kind, log_pi))


def numbers_of_gradient(
    belief: Belief, x0: Array, xt: Array, step: StepLogs, saved: Saved, g_kl: Array, g_ce: Array
) -> tuple:
    """Returns the numbers of `gradient_row`, of which `saved` is what `save_row` returned."""
    return x0, xt, _evidence(belief, step.expand()), saved._replace(kl=None), g_kl, g_ce


def save_row(
    settings: tuple[PiKind, Belief], row: RowBlock, numbers: tuple, tables: Sequence[Array]
) -> Saved:
    """Returns the losses of a row, and what its gradient needs; numbers are x_0, x_t and their `StepLogs`."""
    pi_kind, belief = settings
    x0, xt, step = numbers
    is_x0 = row.categories == x0[..., None]
    is_xt = row.categories == xt[..., None]
    logits = _convert_row(row, is_xt, _evidence(belief, step))

    def pick(x: Array, is_x: Array) -> Array:
        # As a gather does, NaN where jit lets a category outside of 0..K - 1 through.
        picked = jnp.sum(jnp.where(is_x, logits, 0.0), axis=-1)
        return jnp.where((x >= 0) & (x < row.K), picked, jnp.nan)

    top = finite(jnp.max(logits, axis=-1))
    exponentials = jnp.exp(logits - top[..., None])
    sums = jnp.sum(exponentials, axis=-1)
    # The largest of some logits with a NaN is NaN to XLA, but not in a kernel: sums are NaN in both.
    top = jnp.where(jnp.isnan(sums), jnp.nan, top)
    softmax, log_p0, log_pt = _normalize(top, sums, pick(x0, is_x0), pick(xt, is_xt))
    same = xt == x0
    ends = endpoints(step, log_p0, log_pt, same)

    def sum_terms(*factors: Array) -> tuple[Array, Array]:
        p = jnp.where(is_x0 | is_xt, 0.0, exponentials * softmax.inverse[..., None])
        return _sum_terms(pi_kind, _pi_of_row(pi_kind, row, tables), p, *factors)

    others = _sum_others(pi_kind, x0, xt, step, ends, sum_terms)
    return save_slopes(pi_kind, belief, step, ends, others, softmax, log_p0, log_pt, same)


def gradient_row(
    settings: tuple[PiKind, Belief], row: RowBlock, numbers: tuple, tables: Sequence[Array]
) -> Array:
    """Returns the gradient of a row from `numbers_of_gradient`."""
    pi_kind, _ = settings
    x0, xt, evidence, saved, g_kl, g_ce = numbers
    slope = combine_slopes(saved, g_kl, g_ce)
    is_x0 = row.categories == x0[..., None]
    is_xt = row.categories == xt[..., None]
    p = _probabilities(_convert_row(row, is_xt, evidence), saved.softmax)
    gradient = _slope_of_others(pi_kind, slope, p, _pi_of_row(pi_kind, row, tables)) * p
    at_x0 = jnp.where(is_x0, slope.x0[..., None], 0.0)
    at_xt = jnp.where(is_xt, slope.xt[..., None], 0.0)
    return gradient + at_x0 + at_xt


def _convert_row(row: RowBlock, is_xt: Array, evidence: Array | None) -> Array:
    """Returns logits of the leave-one-out posterior, as `_evidence` says."""
    if evidence is None:
        return row.logits
    return jnp.where(is_xt, row.logits - evidence[..., None], row.logits)


def tables_of_rows(pi_kind: PiKind, log_pi: Array) -> list[Array]:
    """Returns the tables [K] of the row functions: of a general pi it and 1 / pi."""
    if pi_kind != "general":
        return []
    pi, per_pi = _pi_table(pi_kind, log_pi, ndim=1)
    return [jnp.asarray(pi), jnp.asarray(per_pi)]


def _pi_of_row(pi_kind: PiKind, row: RowBlock, tables: Sequence[Array]) -> PiTable:
    """Returns pi and 1 / pi as `_pi_table` does, with a pi of 0 beyond K."""
    if pi_kind == "general":
        pi, per_pi = tables
        return pi, per_pi
    return jnp.where(row.exists, 1.0, 0.0).astype(row.logits.dtype), 1.0
