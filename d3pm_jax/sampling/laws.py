"""Computes laws of x_s given x_t that samplers draw from: pure functions of arrays and a process.

What the network believes comes as normalised logs of the denoiser p(x_0 | x_t), or of the leave-one-out
posterior (see `beliefs`), as each law needs it. alpha is alpha_bar: the probability that x_0 is kept up to t.
Laws are normalised logs in nats, and drawn from whole: never first a component and then a value of it.
"""

from typing import cast

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Int

from d3pm_jax import numerics
from d3pm_jax.checks import CATEGORIES, NOT_NAN, POSITIVE, SHARE, declared, steps
from d3pm_jax.posteriors import log_p_x0, p_logits
from d3pm_jax.processes import (
    Masked,
    Mixing,
    Process,
    expand_trailing,
    for_each_place,
    gather,
    gather_steps,
    is_category,
    promote,
)

__all__ = [
    "corrector_log_rates",
    "euler_logits",
    "gibbs_logits",
    "keep_logits",
    "leaving_logits",
    "leaving_probability",
    "log_rates",
    "log_ratios",
    "mixture_logits",
    "most_remasked",
    "poisson_logits",
    "remask_logits",
    "renoise_logits",
    "score_log_rates",
    "tweedie_logits",
]

NEG_INF = -jnp.inf


def mask_of(process: Process) -> Array | None:
    """Returns the category that a process masks with, int32 []; None if it has no mask."""
    common = process.common
    if isinstance(common, Masked):
        return jnp.asarray(process.K - 1, jnp.int32)
    if is_absorbing(process):
        return jnp.argmax(cast(Mixing, common).log_pi).astype(jnp.int32)
    return None


@declared(xt=CATEGORIES, t=steps(1), s=steps(0, not_after="t"), c=SHARE)
@for_each_place
def keep_logits(
    process: Process,
    log_denoiser: Float[Array, "*S K"],
    xt: Int[Array, "*S"],
    t: Int[Array, "..."],
    s: Int[Array, "..."],
    c: float = 1.0,
) -> Float[Array, "*S K"]:
    """keep [x_s = x_t] + (alpha_s - keep alpha_t) p(x_0) + (1 - alpha_s - keep (1 - alpha_t)) pi.

    keep = c (1 - alpha_s) / (1 - alpha_t). It has the marginal q(x_s | x_0) for every c: DDIM for multinomial
    noise (Song et al. 2021, appendix A). c = 1 keeps as often as can be: for masks that is ancestral.

    Args:
        process: a `Mixing`.
        log_denoiser: log p(x_0 | x_t), normalised.
        xt: categories.
        t: steps 1..T.
        s: steps 0..t; t itself draws anew at the same level.
        c: in [0, 1].

    Raises:
        ValueError: the process is of another kind.
    """
    process = require_mixing(process, "keep")
    alpha_t, mixed_t = _levels(process, t, xt.shape)  # alpha and 1 - alpha, [*S] each
    _, mixed_s = _levels(process, s, xt.shape)

    # alpha_s - keep alpha_t as a sum of terms that are not negative.
    gained = _difference(process, t, s, xt.shape)  # alpha_s - alpha_t
    to_x0 = (gained + (1 - c) * alpha_t * mixed_s) / mixed_t
    stay = c * mixed_s / mixed_t
    to_pi = (1 - c) * mixed_s
    log_pi = _log_pi(process, xt.ndim)
    moved = numerics.log_add(
        *jnp.broadcast_arrays(jnp.log(to_x0)[..., None] + log_denoiser, jnp.log(to_pi)[..., None] + log_pi)
    )
    return _unless_ruled_out(log_denoiser, _add_at(moved, xt, jnp.log(stay)))


@declared(xt=CATEGORIES, t=steps(1), kappa=SHARE)
@for_each_place
def mixture_logits(
    process: Process,
    logits_loo: Float[Array, "*S K"],
    log_denoiser: Float[Array, "*S K"],
    xt: Int[Array, "*S"],
    t: Int[Array, "..."],
    kappa: float = 1.0,
) -> Float[Array, "*S K"]:
    """kappa q(x_{t-1} | x_t, x_0) + (1 - kappa) q(x_{t-1} | x_0), x_0 from the denoiser (Psi).

    kappa = 1 is ancestral, kappa = 0 noises x_0 afresh.

    Args:
        process: the forward process.
        logits_loo: leave-one-out logits of x_0.
        log_denoiser: log p(x_0 | x_t) of the same belief, normalised.
        xt: categories.
        t: steps 1..T.
        kappa: in [0, 1].
    """
    bayes = p_logits(process, logits_loo, xt, t, "leave_one_out")
    fresh = process.log_push(log_denoiser, t - 1)
    log_kappa = jnp.log(jnp.asarray(kappa, bayes.dtype))
    log_rest = jnp.log1p(-jnp.asarray(kappa, bayes.dtype))
    return numerics.log_add(log_kappa + bayes, log_rest + fresh)


@declared(xt=CATEGORIES, t=steps(1), s=steps(0, not_after="t"), sigma=SHARE)
@for_each_place
def remask_logits(
    process: Process,
    log_denoiser: Float[Array, "*S K"],
    xt: Int[Array, "*S"],
    t: Int[Array, "..."],
    s: Int[Array, "..."],
    sigma: Float[Array, "*S"],
) -> Float[Array, "*S K"]:
    """Unmasks with (alpha_s - (1 - sigma) alpha_t) / (1 - alpha_t), and masks again with sigma (ReMDM).

    The law of `keep_logits` with keep = (1 - alpha_s - sigma) / (1 - alpha_t), which may be negative here.

    Args:
        process: absorbing, with a mask that the data never has.
        log_denoiser: log p(x_0 | x_t), normalised.
        xt: categories.
        t: steps 1..T.
        s: steps 0..t.
        sigma: of each element, at most `most_remasked`.

    Returns:
        Normalised logs; NaN where sigma is more than that.

    Raises:
        ValueError: the process has no mask of this kind.
    """
    mask = mask_of(require_absorbing(process, "remask"))
    assert mask is not None
    log_to_x0, log_here, log_to_mask = _remask_shares(process, xt, t, s, sigma)
    is_masked = (xt == mask)[..., None]
    other = jnp.where(is_masked, log_to_x0[..., None] + log_denoiser, NEG_INF)
    law = _add_at(_add_at(other, xt, log_here), jnp.broadcast_to(mask, xt.shape), log_to_mask)
    return jnp.where(is_masked, _unless_ruled_out(log_denoiser, law), law)


def _remask_shares(
    process: Process, xt: Array, t: Array, s: Array, sigma: Array
) -> tuple[Array, Array, Array]:
    """Returns logs [*S] of the shares of `remask_logits`: to x_0, to what x_t is, and to the mask anew."""
    process = require_absorbing(process, "remask")
    alpha_t, mixed_t = _levels(process, t, xt.shape)
    _, mixed_s = _levels(process, s, xt.shape)
    gained = _difference(process, t, s, xt.shape)
    to_x0 = (gained + sigma * alpha_t) / mixed_t
    stay = (mixed_s - sigma * alpha_t) / mixed_t
    # At the largest sigma rounding may leave less than nothing. What is more than rounding is an error.
    rounding = 8 * jnp.finfo(stay.dtype).eps
    stay = jnp.where((stay >= -rounding) & (sigma >= 0), jnp.maximum(stay, 0.0), jnp.nan)
    is_masked = xt == mask_of(process)
    log_here = jnp.where(is_masked, jnp.log(stay), jnp.log1p(-sigma))
    return jnp.log(to_x0), log_here, jnp.where(is_masked, NEG_INF, jnp.log(sigma))


@declared(t=steps(1), s=steps(0, not_after="t"))
def most_remasked(process: Process, t: Int[Array, "..."], s: Int[Array, "..."]) -> Float[Array, "..."]:
    """min(1, (1 - alpha_s) / alpha_t): the most that `remask_logits` may mask again."""
    process = require_absorbing(process, "remask")
    shape = max(t.shape, s.shape, key=len)
    alpha_t, _ = _levels(process, t, shape)
    _, mixed_s = _levels(process, s, shape)
    return jnp.where(alpha_t > mixed_s, mixed_s / jnp.where(alpha_t > 0, alpha_t, 1.0), 1.0)


@declared(xt=CATEGORIES, s=steps(0), t=steps(0, not_after="s"))
@for_each_place
def renoise_logits(
    process: Process, xt: Int[Array, "*S"], t: Int[Array, "..."], s: Int[Array, "..."]
) -> Float[Array, "*S K"]:
    """log q(x_s | x_t) for s > t: alpha_s / alpha_t keeps x_t, the rest is drawn from pi.

    Args:
        process: a `Mixing`.
        xt: categories.
        t: steps 0..T.
        s: steps t..T.

    Raises:
        ValueError: the process is of another kind.
    """
    process = require_mixing(process, "a row that goes back up, s > t,")
    log_ratio = _log_between(process.log_alpha, t, s, xt.shape)
    log_pi = _log_pi(process, xt.ndim)
    return _add_at(_log_complement(log_ratio)[..., None] + log_pi, xt, log_ratio)


@declared(xt=CATEGORIES, t=steps(1))
@for_each_place
def log_ratios(
    process: Process, logits_loo: Float[Array, "*S K"], xt: Int[Array, "*S"], t: Int[Array, "..."]
) -> Float[Array, "*S K"]:
    """log p_t(y) / p_t(x_t) for each y, the others as they are: the concrete score (SEDD, tauLDR).

    It is sum over x_0 of denoiser(x_0) q_t(y | x_0) / q_t(x_t | x_0), which in leave-one-out terms is the
    ratio of two entries of where that belief is after t steps.

    Args:
        process: the forward process.
        logits_loo: leave-one-out logits of x_0.
        xt: categories.
        t: steps 1..T.
    """
    pushed = process.log_push(log_p_x0(process, logits_loo), t)  # [*S, K]
    at_xt = jnp.take_along_axis(pushed, xt[..., None], axis=-1)
    return pushed - at_xt


@declared(xt=CATEGORIES, t=steps(1), s=steps(0, not_after="t"))
@for_each_place
def log_rates(
    process: Process,
    logits_loo: Float[Array, "*S K"],
    xt: Int[Array, "*S"],
    t: Int[Array, "..."],
    s: Int[Array, "..."],
) -> Float[Array, "*S K"]:
    """log R_y, R_y = log(alpha_s / alpha_t) pi(x_t) p_t(y) / p_t(x_t): reverse rates over one row (tauLDR).

    Args:
        process: a `Mixing`; or a mask on top of one, where a masked x_t leaves with log(keep_bar_s /
            keep_bar_t) p_t(y) / p_t(mask), and others as they do below the mask.
        logits_loo: leave-one-out logits of x_0.
        xt: categories.
        t: steps 1..T.
        s: steps 0..t.

    Returns:
        Logs [*S, K]; -inf at y = x_t, and at an extra mask, where none goes. +inf where a step between
        keeps nothing.

    Raises:
        ValueError: the process is of another kind.
    """
    return _rates_of(process, log_ratios(process, logits_loo, xt, t), xt, t, s)


@declared(xt=CATEGORIES, t=steps(1), s=steps(0, not_after="t"), log_scores=NOT_NAN)
@for_each_place
def score_log_rates(
    process: Process,
    log_scores: Float[Array, "*S K"],
    xt: Int[Array, "*S"],
    t: Int[Array, "..."],
    s: Int[Array, "..."],
) -> Float[Array, "*S K"]:
    """log R_y, R_y = log(alpha_s / alpha_t) pi(x_t) p_t(y) / p_t(x_t): `log_rates` from scores alone (SEDD).

    Args:
        process: a `Mixing`.
        log_scores: as `tweedie_logits` takes them.
        xt: categories.
        t: steps 1..T.
        s: steps 0..t.

    Returns:
        Logs [*S, K]; -inf at y = x_t. Where a step between keeps nothing +inf, for masks -inf.

    Raises:
        ValueError: the process is of another kind.
    """
    mixing = require_mixing(process, "a rate")
    log_ratio = log_scores
    if mask_of(mixing) is not None:
        log_alpha, log_mixed = gather_steps((mixing.log_alpha_bar, mixing.log_beta_bar), t, xt.shape)
        log_ratio = log_scores + (log_alpha - log_mixed)[..., None]
    return _rates_of(mixing, log_ratio, xt, t, s)


def _rates_of(process: Process, log_ratio: Array, xt: Array, t: Array, s: Array) -> Float[Array, "*S K"]:
    """Returns the log rates of log p_t(y) / p_t(x_t)."""
    if isinstance(process, Masked) and isinstance(process.inner, Mixing):
        is_masked = xt == process.K - 1
        below = process.inner_category(xt)
        inner = _log_passed(process.inner.log_alpha, t, s, xt.shape) + gather(process.inner.log_pi, below)
        unmasking = _log_passed(process.log_keep, t, s, xt.shape)
        scale = jnp.where(is_masked, unmasking, inner)
        log_ratio = jnp.where(is_category(jnp.full(xt.shape, process.K - 1), process.K), NEG_INF, log_ratio)
    else:
        process = require_mixing(process, "a rate")
        scale = _log_passed(process.log_alpha, t, s, xt.shape) + gather(process.log_pi, xt)
    # Where p_t(y) = 0 none goes to y, however fast: inf - inf would be NaN.
    scale = scale[..., None]
    never = is_category(xt, process.K) | (log_ratio == NEG_INF) | (scale == NEG_INF)
    return jnp.where(never, NEG_INF, scale + log_ratio)


@declared(xt=CATEGORIES, t=steps(1), h=POSITIVE)
@for_each_place
def corrector_log_rates(
    process: Process, logits_loo: Float[Array, "*S K"], xt: Int[Array, "*S"], t: Int[Array, "..."], h: float
) -> Float[Array, "*S K"]:
    """log R_y, R_y = h (pi(y) + pi(x_t) p_t(y) / p_t(x_t)): rates both ways, which keep p_t (tauLDR).

    Args:
        process: a `Mixing`.
        logits_loo: leave-one-out logits of x_0.
        xt: categories.
        t: steps 1..T.
        h: how long they act, above 0.

    Returns:
        Logs [*S, K]; -inf at y = x_t.

    Raises:
        ValueError: the process is of another kind.
    """
    process = require_mixing(process, "a corrector of rates")
    log_pi_xt = gather(process.log_pi, xt)[..., None]
    # Where pi(x_t) = 0 nothing goes back, whatever the ratio: 0 times infinity is 0 here.
    log_ratio = log_ratios(process, logits_loo, xt, t)
    backward = jnp.where(log_pi_xt == NEG_INF, NEG_INF, log_pi_xt + log_ratio)
    forward = jnp.broadcast_to(_log_pi(process, xt.ndim), backward.shape)
    log_h = jnp.log(jnp.asarray(h, backward.dtype))
    rates = log_h + numerics.log_add(forward, backward)
    return jnp.where(is_category(xt, process.K), NEG_INF, rates)


@declared(xt=CATEGORIES, t=steps(1), s=steps(0, not_after="t"), log_scores=NOT_NAN)
@for_each_place
def tweedie_logits(
    process: Process,
    log_scores: Float[Array, "*S K"],
    xt: Int[Array, "*S"],
    t: Int[Array, "..."],
    s: Int[Array, "..."],
) -> Float[Array, "*S K"]:
    """q(x_t | x_s) p_s(x_s) / p_t(x_t), p_s / p_t(x_t) = (s - (1 - a) pi sum_y s_y) / a (SEDD, Tweedie).

    s_y are scores, a = alpha_t / alpha_s. By Bayes' rule that is the law of x_s, if the scores are exact.
    Others may make a term negative, which then counts as 0.

    Args:
        process: a `Mixing`.
        log_scores: log p_t(y) / p_t(x_t); for masks that plus log(1 / alpha_t - 1), as in
            `losses.score_entropy`. The entry of x_t is not read.
        xt: categories.
        t: steps 1..T.
        s: steps 0..t; for masks, none is left at 0.

    Returns:
        Normalised logs. Where alpha_t = 0 scores, but for those of masks, say nothing of x_s: it is pi there.

    Raises:
        ValueError: the process is of another kind.
    """
    process = require_mixing(process, "a step of scores")
    log_scores = promote(process, log_scores)  # a sum over K of scores that nearly cancel
    at_xt = is_category(xt, process.K)
    if mask_of(process) is not None:
        return _unmask_by_scores(process, jnp.where(at_xt, NEG_INF, log_scores), xt, t, s)

    # Divided by the largest score, so that none is infinite. The law does not change by a factor.
    log_scores = jnp.where(at_xt, 0.0, log_scores)
    scores = jnp.exp(log_scores - jnp.max(log_scores, axis=-1, keepdims=True))
    a = jnp.exp(_log_between(process.log_alpha, s, t, xt.shape))[..., None]  # [*S, 1]
    pi = jnp.exp(_log_pi(process, xt.ndim))
    before = scores - (1 - a) * pi * jnp.sum(scores, axis=-1, keepdims=True)  # p_s a / p_t(x_t)
    forward = jnp.where(at_xt, a, 0.0) + (1 - a) * jnp.exp(gather(process.log_pi, xt))[..., None]
    # Two `where` with one condition, as the log of 0 has no finite gradient.
    is_positive = before > 0
    log_before = jnp.where(is_positive, jnp.log(jnp.where(is_positive, before, 1.0)), NEG_INF)
    law = numerics.log_normalize(jnp.log(forward) + log_before)
    nothing_left = gather_steps((process.log_alpha_bar,), t, xt.shape)[0][..., None] == NEG_INF
    return jnp.where(nothing_left, _log_pi(process, xt.ndim), law)


def _unmask_by_scores(process: Mixing, log_w: Array, xt: Array, t: Array, s: Array) -> Array:
    """Moves a mask to y with probability (alpha_s - alpha_t) / (1 - alpha_t) w_y; others stay."""
    _, mixed_t = _levels(process, t, xt.shape)
    log_share = jnp.log(_difference(process, t, s, xt.shape) / mixed_t)
    moves = euler_logits(log_share[..., None] + log_w, xt)
    is_last = expand_trailing(s, xt.shape)[..., None] == 0
    law = _unless_ruled_out(log_w, jnp.where(is_last, numerics.log_normalize(log_w), moves))
    stays = jnp.where(is_category(xt, process.K), 0.0, NEG_INF)
    return jnp.where((xt == mask_of(process))[..., None], law, stays)


@declared(xt=CATEGORIES)
def euler_logits(log_rate: Float[Array, "*S K"], xt: Int[Array, "*S"]) -> Float[Array, "*S K"]:
    """Moves to y with probability R_y / max(1, sum R), and stays with the rest.

    Args:
        log_rate: of `log_rates`, -inf at x_t.
        xt: categories.
    """
    log_total = numerics.log_sum(log_rate)  # [*S]
    is_certain = log_total >= 0  # to move
    # Two `where` with one condition, as in `numerics.logspace`: log(1 - p) has no finite gradient at p = 1.
    log_stay = jnp.where(is_certain, NEG_INF, _log_complement(jnp.where(is_certain, -1.0, log_total)))
    moves = log_rate - jnp.where(is_certain, log_total, 0.0)[..., None]
    return _add_at(moves, xt, log_stay)


@declared(xt=CATEGORIES)
def poisson_logits(log_rate: Float[Array, "*S K"], xt: Int[Array, "*S"]) -> Float[Array, "*S K"]:
    """Moves to y with probability R_y exp(-sum R), that of one event in all, and else stays (tauLDR).

    Args:
        log_rate: of `log_rates`, -inf at x_t.
        xt: categories.
    """
    log_total = numerics.log_sum(log_rate)  # [*S]
    moves = log_rate - jnp.exp(log_total)[..., None]
    log_one_event = log_total - jnp.exp(log_total)  # at most -1
    return _add_at(moves, xt, _log_complement(log_one_event))


@declared(xt=CATEGORIES)
def leaving_probability(log_p: Float[Array, "*S K"], xt: Int[Array, "*S"]) -> Float[Array, "*S"]:
    """1 - p(x_t), with its digits where it is small; exactly 1 where the law never stays.

    Args:
        log_p: a normalised law, in nats.
        xt: categories.
    """
    at_xt = jnp.take_along_axis(log_p, xt[..., None], axis=-1)[..., 0]
    return -jnp.expm1(jnp.where(at_xt > 0, 0.0, at_xt))  # rounding may leave more than log 1


@declared(xt=CATEGORIES)
def leaving_logits(log_p: Float[Array, "*S K"], xt: Int[Array, "*S"]) -> Float[Array, "*S K"]:
    """log p(y) / (1 - p(x_t)): where x_t goes, given that it goes.

    Args:
        log_p: a law, in nats.
        xt: categories.

    Returns:
        Normalised logs, -inf at x_t; all -inf where the law never goes.
    """
    return numerics.log_normalize(jnp.where(is_category(xt, log_p.shape[-1]), NEG_INF, log_p))


@declared(xt=CATEGORIES, t=steps(0))
@for_each_place
def gibbs_logits(
    process: Process, logits_loo: Float[Array, "*S K"], xt: Int[Array, "*S"], t: Int[Array, "..."]
) -> Float[Array, "*S K"]:
    """log sum over x_0 of leave_one_out(x_0) q_t(x_t | x_0): the law of one place given all the others.

    Drawing one place from it leaves p_t unchanged.

    Args:
        process: the forward process.
        logits_loo: leave-one-out logits of x_0.
        xt: categories.
        t: steps 0..T.
    """
    return process.log_push(log_p_x0(process, logits_loo), t)


def require_mixing(process: Process, what: str) -> Mixing:
    """Returns the process, if it mixes with pi; of one by place what its places have in common.

    Raises:
        ValueError: it is of another kind.
    """
    common = process.common
    if isinstance(common, Mixing):
        return common
    raise ValueError(
        f"{what} needs a process that keeps x_0 or draws from pi (uniform, absorbing, marginal), not "
        f"{type(process).__name__}: `ancestral` and `psi` work for every process"
    )


def is_absorbing(process: Process) -> bool:
    """Tells whether a process masks, and does nothing else."""
    common = process.common
    return isinstance(common, Mixing) and common.pi_kind == "point"


def require_absorbing(process: Process, what: str) -> Mixing:
    """Returns the process, if it is absorbing; of one by place that with the mask of all places.

    Raises:
        ValueError: it is of another kind.
    """
    common = process.common
    if is_absorbing(process):
        return cast(Mixing, common)
    works = (
        "`ancestral`, `psi` and `ddim` work" if isinstance(common, Mixing) else "`ancestral` and `psi` work"
    )
    raise ValueError(f"{what} needs an absorbing process with an extra mask: {works} for this one")


def _log_pi(process: Mixing, ndim: int) -> Array:
    """log pi, [K] behind so many axes of size 1."""
    return process.log_pi.reshape((1,) * ndim + (process.K,))


def _levels(process: Mixing, t: Array, shape: tuple[int, ...]) -> tuple[Array, Array]:
    """Returns alpha and 1 - alpha at t, [*S] each."""
    log_alpha, log_mixed = gather_steps((process.log_alpha_bar, process.log_beta_bar), t, shape)
    return jnp.exp(log_alpha), jnp.exp(log_mixed)


def _log_between(log_steps: Array, s: Array, t: Array, shape: tuple[int, ...]) -> Array:
    """Returns log(alpha_t / alpha_s) as the sum of the logs of the steps between, s < t, [*S].

    The difference of two entries of log alpha_bar would lose the digits of what is small between them, and
    has no value where nothing is left at s.
    """
    after = expand_trailing(s, shape)[..., None]
    up_to = expand_trailing(t, shape)[..., None]
    steps = jnp.arange(len(log_steps), dtype=jnp.int32).reshape((1,) * len(shape) + (-1,))
    is_between = (steps > after) & (steps <= up_to)  # [.., T + 1], of the axes that s and t have
    total = jnp.sum(jnp.where(is_between, lax.stop_gradient(log_steps), 0.0), axis=-1)
    return jnp.broadcast_to(total, shape)


def _difference(process: Mixing, t: Array, s: Array, shape: tuple[int, ...]) -> Array:
    """Returns alpha_s - alpha_t = alpha_s (1 - alpha_t / alpha_s), [*S], exact where it is small too."""
    alpha_s, _ = _levels(process, s, shape)
    return alpha_s * -jnp.expm1(_log_between(process.log_alpha, s, t, shape))


def _log_passed(log_steps: Array, t: Array, s: Array, shape: tuple[int, ...]) -> Array:
    """Returns log log(alpha_s / alpha_t), [*S]: +inf where a step between keeps nothing."""
    return jnp.log(-_log_between(log_steps, s, t, shape))


def _unless_ruled_out(log_denoiser: Array, law: Array) -> Array:
    """Returns a law, or all -inf where the denoiser rules out every x_0, so that nothing is drawn."""
    nothing_left = jnp.max(log_denoiser, axis=-1, keepdims=True) == NEG_INF
    return jnp.where(nothing_left, NEG_INF, law)


def _log_complement(log_p: Array) -> Array:
    """log(1 - p)."""
    return numerics.log1mexp(jnp.log(-log_p))


def _add_at(log_p: Array, k: Array, log_more: Array) -> Array:
    """Adds exp(log_more) to the entry k of each row of exp(log_p)."""
    added = numerics.log_add(*jnp.broadcast_arrays(log_p, log_more[..., None]))
    return jnp.where(is_category(k, log_p.shape[-1]), added, log_p)
