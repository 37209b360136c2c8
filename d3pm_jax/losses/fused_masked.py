"""Computes `variational.posterior_kl_definition` of a mask on top of a process, by the chain rule.

First comes whether x_{t-1} is the mask, then what it is if not: the loss of the inner process, in its own
fast form.
"""

from collections.abc import Sequence
from functools import cache, partial
from typing import Any, NamedTuple, cast

import jax
import jax.numpy as jnp
from jaxtyping import Array

from d3pm_jax import numerics
from d3pm_jax.beliefs import Belief
from d3pm_jax.losses import fused_by_parts, fused_mixing, variational
from d3pm_jax.numerics.logspace import kl_terms
from d3pm_jax.numerics.rows import RowBlock, map_rows
from d3pm_jax.processes import NEG_INF, Masked, Mixing, PiKind, expand_trailing, gather, gather_steps, promote


def kl_and_ce(
    process: Masked, logits_x0: Array, x0: Array, xt: Array, t: Array, belief: Belief = "d3pm"
) -> tuple[Array, Array]:
    """Computes `dispatch_kl_and_ce`, in the fastest form for the process that the mask is on top of."""
    # A subclass may have losses of its own.
    if type(process.inner) is Mixing:
        return _kl_and_ce_on_mixing(process, logits_x0, x0, xt, t, belief)
    return _kl_and_ce_by_parts(process, logits_x0, x0, xt, t, belief)


def prior_kl(process: Masked, x0: Array) -> Array:
    """Computes `variational.prior_kl` by the chain rule: the inner one, as often as no mask comes."""
    inner = variational.dispatch_prior_kl(process.inner, process.inner_category(x0))
    log_keep = process.log_keep_bar[-1]
    unmasked = jnp.where(jnp.isinf(inner), inner, jnp.exp(log_keep) * inner)
    unmasked = jnp.where(log_keep == NEG_INF, 0.0, unmasked)
    return jnp.where(x0 == process.K - 1, -process.log_mask_bar[-1], unmasked)


@partial(jax.jit, static_argnames="belief")
def _kl_and_ce_on_mixing(
    process: Masked, logits_x0: Array, x0: Array, xt: Array, t: Array, belief: Belief
) -> tuple[Array, Array]:
    by_parts = partial(_kl_and_ce_by_parts, belief=belief)
    by_rows = partial(_kl_and_ce_by_rows, belief=belief)
    return jax.lax.platform_dependent(process, logits_x0, x0, xt, t, cpu=by_parts, default=by_rows)


def _kl_and_ce_by_parts(
    process: Masked, logits_x0: Array, x0: Array, xt: Array, t: Array, belief: Belief
) -> tuple[Array, Array]:
    """Computes the KL by parts of the elements together with its gradient."""
    losses = _losses(official=belief == "official")
    return fused_by_parts.kl_and_ce(*losses, process, promote(process, logits_x0), x0, xt, t, belief)


@cache
def _losses(official: bool) -> tuple[fused_by_parts.Loss, fused_by_parts.WithGradient]:
    """Returns the KL and the KL with its gradient, the same two functions each time.

    They are keys of jit's cache: new functions each time would be compiled anew.
    """
    loss = partial(_kl_by_chain_rule, official=official)
    return loss, partial(fused_by_parts.differentiate, loss)


def _kl_by_chain_rule(
    process: Masked, logits: Array, x0: Array, xt: Array, t: Array, official: bool
) -> Array:
    """Computes the KL of leave-one-out logits by the chain rule.

    Where x_t is not the mask, x_{t-1} is not either, and the KL is that of the inner process. Where it is,
    the KL is that of whether x_{t-1} is the mask, plus, as often as it is not, that of what it is then: of
    this the mask says nothing, so that it is the `marginal_kl` of the inner process.
    """
    visible = logits[..., :-1]  # [*S, K - 1]
    hidden = process.K - 1
    inner_x0 = process.inner_category(x0)
    inner_xt = process.inner_category(xt)
    unmasked, _ = variational.dispatch_kl_and_ce(process.inner, visible, inner_x0, inner_xt, t)

    marginal = variational.dispatch_marginal_kl(process.inner, visible, inner_x0, t - 1)
    q, p = _log_is_masked(process, logits, x0, t)
    weight = jnp.exp(q[..., 1])  # [*S], q(x_{t-1} != mask | x_t = mask, x_0)

    # 0 inf = 0, in value and gradient: a `where` on the product alone would have NaN in the gradient.
    marginal = jnp.where(weight > 0, weight * jnp.where(weight > 0, marginal, 0.0), 0.0)
    masked = numerics.kl(q, p) + marginal

    # An x_t that is not the mask is impossible where x_0 is the mask, or where all is masked by then.
    (keep,) = gather_steps((process.log_keep_bar,), t, xt.shape)
    impossible = (x0 == hidden) | (keep == NEG_INF)
    kl = jnp.where(xt == hidden, masked, jnp.where(impossible, 0.0, unmasked))
    if not official:
        return kl

    # The official rule takes the prediction itself for p(x_0 | x_1), but an impossible pair still costs
    # nothing.
    possible = jnp.take_along_axis(process.log_q_back(xt, t), x0[..., None], axis=-1)[..., 0] > NEG_INF
    first = expand_trailing(t, xt.shape) == 1
    return jnp.where(first & possible, -numerics.log_prob(logits, x0), kl)


def _log_is_masked(process: Masked, logits: Array, x0: Array, t: Array) -> tuple[Array, Array]:
    """Computes log q and log p of (x_{t-1} = mask, x_{t-1} != mask) given x_t = mask, each [*S, 2]."""
    # mask_t is the log of the probability that step t masks what was not masked before.
    (mask_t,) = gather_steps((process.log_mask,), t, x0.shape)
    # With s = t - 1, keep_s is the log of the probability that nothing has been masked up to step s, and
    # mask_s that it has been.
    keep_s, mask_s = gather_steps((process.log_keep_bar, process.log_mask_bar), t - 1, x0.shape)

    # x_0 may be the mask itself, which stays.
    hidden = x0 == process.K - 1
    q = jnp.stack([mask_s, keep_s + mask_t], axis=-1)
    q = jnp.where(hidden[..., None], jnp.broadcast_to(jnp.array([0.0, NEG_INF], q.dtype), q.shape), q)

    # The same of a prediction, in which x_0 is the mask or any other category.
    log_seen = numerics.log_sum(logits[..., :-1])
    log_hidden = logits[..., -1]
    p = jnp.stack([numerics.log_add(log_hidden, log_seen + mask_s), log_seen + keep_s + mask_t], axis=-1)
    return numerics.log_normalize(q), numerics.log_normalize(p)


# ---- On top of Mixing, a row at a time ----
#
# The chain rule again, of elements whose logits are read once forward and once backward. Both KLs of the
# inner process are that of one step of it: the marginal KL is the KL of a step with a = 0 and b = 1, as
# `fused_mixing.marginal_kl` says, and with the c and m of the other. So an element takes one of the two.


class Logs(NamedTuple):
    """Holds logs that t decides, in the shape of t."""

    alpha: Array  # of the inner process
    beta: Array
    c: Array
    m: Array
    keep: Array  # that nothing has been masked up to step t
    mask: Array  # that it has been
    q_mask: Array  # q(x_{t-1} = mask | x_t = mask) of an x_0 that is not the mask
    q_other: Array  # q(x_{t-1} != mask | x_t = mask)


class Element(NamedTuple):
    """Holds what a row function has to know of each element but its logits, [*S]."""

    x0: Array
    xt: Array
    pi_0: Array  # log pi of the inner process at x_0, and at x_t
    pi_t: Array
    # A category of the inner process whose pi is not 0, which stands for x_t where that is hidden.
    likely: Array
    logs: Logs

    def step(self, hidden: int) -> tuple[Array, fused_mixing.StepLogs]:
        """Returns x_t and the step of the inner process, those of its marginal KL where x_t is the mask."""
        is_hidden = self.xt == hidden
        inner_xt = jnp.where(is_hidden, self.likely, self.xt)
        a = jnp.where(is_hidden, NEG_INF, self.logs.alpha)
        b = jnp.where(is_hidden, 0.0, self.logs.beta + self.pi_t)
        return inner_xt, fused_mixing.StepLogs(a, b, self.logs.c, self.logs.m, self.pi_0, self.pi_t)


class MaskedSaved(NamedTuple):
    """Holds the losses of each element, and what their gradient needs besides the logits, [*S]."""

    visible: fused_mixing.Saved  # of all categories but the mask, with the losses of all
    kl_at_mask: Array  # the derivative of the KL for the logit of the mask
    ce_at_mask: Array  # that of the cross entropy


Settings = tuple[PiKind, Belief]


def _kl_and_ce_by_rows(
    process: Masked, logits_x0: Array, x0: Array, xt: Array, t: Array, belief: Belief
) -> tuple[Array, Array]:
    """Computes the losses of a mask on top of `Mixing`, whose gradient is by hand."""
    inner = cast(Mixing, process.inner)
    log_pi = jax.lax.stop_gradient(inner.log_pi)
    element = _make_element(process, x0, xt, t)
    tables = [jnp.pad(table, (0, 1)) for table in fused_mixing.tables_of_rows(inner.pi_kind, log_pi)]
    belief_of_row: Belief = "d3pm" if belief == "official" else belief
    kl, ce = _by_hand((inner.pi_kind, belief_of_row), logits_x0, element, tables)
    if belief != "official":
        return kl, ce

    # The official rule takes the prediction itself for p(x_0 | x_1), but an impossible pair costs nothing.
    hidden = process.K - 1
    keep, alpha, beta = gather_steps((process.log_keep, inner.log_alpha, inner.log_beta), t, xt.shape)
    moved = beta + gather(inner.log_pi, process.inner_category(xt))
    reached = jnp.where(xt == x0, numerics.log_add(alpha, moved), moved)
    possible = (xt == hidden) | ((x0 != hidden) & (keep + reached > NEG_INF))
    return jnp.where((expand_trailing(t, xt.shape) == 1) & possible, ce, kl), ce


def _make_element(process: Masked, x0: Array, xt: Array, t: Array) -> Element:
    inner = cast(Mixing, process.inner)
    log_pi = inner.log_pi
    before = gather(process.log_mask_bar, t - 1)
    at_t = gather(process.log_keep_bar, t - 1) + gather(process.log_mask, t)
    mask = numerics.log_add(before, at_t)
    logs = Logs(
        alpha=gather(inner.log_alpha, t),
        beta=gather(inner.log_beta, t),
        c=gather(inner.log_alpha_bar, t - 1),
        m=gather(inner.log_beta_bar, t - 1),
        keep=gather(process.log_keep_bar, t),
        mask=mask,
        q_mask=before - fused_mixing.finite(mask),
        q_other=at_t - fused_mixing.finite(mask),
    )
    likely = jnp.argmax(log_pi).astype(jnp.int32)
    if inner.pi_kind == "uniform":
        # All elements share one number.
        return Element(x0, xt, log_pi[0], log_pi[0], likely, logs)
    inner_xt = jnp.where(xt == process.K - 1, likely, xt)
    pi_0 = gather(log_pi, process.inner_category(x0))
    pi_t = gather(log_pi, inner_xt)
    return Element(x0, xt, pi_0, pi_t, likely, logs)


def _forward(settings: Settings, logits: Array, element: Element, tables: list[Array]):
    saved = map_rows(_save_masked_row, settings, logits, element, tables)
    return (saved.visible.kl, saved.visible.ce), (logits, element, tables, saved)


def _backward(settings: Settings, residuals: Any, cotangents: tuple[Array, Array]):
    logits, element, tables, saved = residuals
    saved = saved._replace(visible=saved.visible._replace(kl=None))
    gradient = map_rows(_gradient_masked_row, settings, logits, (element, saved, *cotangents), tables)
    return gradient, None, None


_custom = jax.custom_vjp(lambda *args: _forward(*args)[0], nondiff_argnums=(0,))
_custom.defvjp(_forward, _backward)
_by_hand = jax.jit(_custom, static_argnums=0)


def _save_masked_row(
    settings: Settings, row: RowBlock, element: Element, tables: Sequence[Array]
) -> MaskedSaved:
    _, belief = settings
    logs = element.logs
    hidden = row.K - 1
    xt_is_mask = element.xt == hidden
    x0_is_mask = element.x0 == hidden
    visible = _visible_part(row)
    log_hidden = jnp.sum(jnp.where(row.categories == hidden, row.logits, 0.0), axis=-1)

    inner_x0 = jnp.where(x0_is_mask, 0, element.x0)
    inner_xt, step = element.step(hidden)
    inner = fused_mixing.save_row(settings, visible, (inner_x0, inner_xt, step), tables)
    no_visible = inner.softmax.inverse == 0
    log_sum = inner.softmax.top - jnp.log(jnp.where(no_visible, 1.0, inner.softmax.inverse))
    log_visible = jnp.where(no_visible, NEG_INF, log_sum)

    # Whether x_{t-1} is the mask, where x_t is. Logits of a denoiser have the evidence of the mask in them.
    log_visible_loo = log_visible
    if belief == "denoiser":
        log_visible_loo = log_visible - fused_mixing.finite(logs.mask)
    kl_of_mask, kl_at_mask, weight = _kl_of_mask(logs, x0_is_mask, log_visible_loo, log_hidden)
    weighted_kl = jnp.where(weight > 0, weight * inner.kl, 0.0)

    # An x_t that is not the mask is impossible where x_0 is the mask, or where all is masked by then.
    impossible = x0_is_mask | (logs.keep == NEG_INF)
    kl = jnp.where(xt_is_mask, kl_of_mask + weighted_kl, jnp.where(impossible, 0.0, inner.kl))

    # How much the KL of the inner process counts in the slopes, which have no direction where it is infinite.
    constant = jnp.isinf(kl)
    factor = jnp.where(xt_is_mask, weight, jnp.where(impossible, 0.0, 1.0))
    factor = jnp.where(constant, 0.0, factor)
    kl_at_mask = jnp.where(xt_is_mask & ~constant, kl_at_mask, 0.0)

    # What the cross entropy is of: the logits, or for leave-one-out logits those of the denoiser, in which an
    # x_t that is not the mask rules out an x_0 that is.
    if belief == "denoiser":
        log_visible = numerics.log_sum(visible.logits)
    if belief == "leave_one_out":
        log_visible += jnp.where(xt_is_mask, fused_mixing.finite(logs.mask), 0.0)
        log_hidden = jnp.where(xt_is_mask, log_hidden, NEG_INF)
    log_all = fused_mixing.finite(numerics.log_add(log_visible, log_hidden))
    ce = jnp.where(x0_is_mask, log_all - log_hidden, inner.ce + (log_all - log_visible))
    if belief == "leave_one_out":
        ce = jnp.where(~xt_is_mask & (logs.keep == NEG_INF), jnp.inf, ce)
    share = jnp.exp(log_visible - log_all)

    # The sum over all categories of the slopes is 0: what the visible ones gain together the mask loses.
    visible_saved = fused_mixing.Saved(
        kl=kl,
        ce=ce,
        softmax=inner.softmax,
        slope_p=factor * inner.slope_p - kl_at_mask,
        slope_x0=factor * inner.slope_x0,
        slope_xt=factor * inner.slope_xt,
        ce_p=share * inner.ce_p,
        ce_xt=share * inner.ce_xt,
        q=factor * inner.q,
        rho=inner.rho,
    )
    return MaskedSaved(visible_saved, kl_at_mask, jnp.exp(log_hidden - log_all))


def _kl_of_mask(
    logs: Logs, x0_is_mask: Array, log_visible: Array, log_hidden: Array
) -> tuple[Array, Array, Array]:
    """Computes the KL of whether x_{t-1} is the mask given that x_t is, as `_log_is_masked` has both laws.

    Returns:
        The KL, its derivative for the logit of the mask, and q(x_{t-1} != mask | x_t = mask, x_0).
    """
    q_mask = jnp.where(x0_is_mask, 0.0, logs.q_mask)
    q_other = jnp.where(x0_is_mask, NEG_INF, logs.q_other)

    # A visible x_0 is hidden by x_t with the probability that `mask` is the log of.
    visible_then_mask = log_visible + logs.mask
    mass_of_mask = numerics.log_add(log_hidden, visible_then_mask + logs.q_mask)
    mass_of_others = visible_then_mask + logs.q_other
    total_p = fused_mixing.finite(numerics.log_add(mass_of_mask, mass_of_others))
    p_mask = mass_of_mask - total_p
    _, terms_of_mask, mask_ruled_out = kl_terms(q_mask, p_mask)
    _, terms_of_others, others_ruled_out = kl_terms(q_other, mass_of_others - total_p)
    kl = jnp.where(mask_ruled_out | others_ruled_out, jnp.inf, terms_of_mask + terms_of_others)

    # dKL / d log p(mask) = p(mask) - q(mask), of which the logit of the mask has its share in p(mask).
    share = jnp.exp(log_hidden - fused_mixing.finite(mass_of_mask))
    return kl, (jnp.exp(p_mask) - jnp.exp(q_mask)) * share, jnp.exp(q_other)


def _gradient_masked_row(settings: Settings, row: RowBlock, numbers: tuple, tables: Sequence[Array]) -> Array:
    _, belief = settings
    element, saved, g_kl, g_ce = numbers
    hidden = row.K - 1
    inner_xt, step = element.step(hidden)
    of_inner = fused_mixing.numbers_of_gradient(belief, element.x0, inner_xt, step, saved.visible, g_kl, g_ce)
    gradient = fused_mixing.gradient_row(settings, _visible_part(row), of_inner, tables)

    # An infinite cross entropy has no direction to go.
    g_finite_ce = jnp.where(jnp.isinf(saved.visible.ce), 0.0, g_ce)
    at_mask = g_kl * saved.kl_at_mask + g_finite_ce * saved.ce_at_mask
    return gradient + jnp.where(row.categories == hidden, at_mask[..., None], 0.0)


def _visible_part(row: RowBlock) -> RowBlock:
    """Returns the row without the mask, which is where no category is."""
    hidden = row.K - 1
    logits = jnp.where(row.categories == hidden, NEG_INF, row.logits)
    return RowBlock(logits, row.categories, row.categories < hidden, hidden)
