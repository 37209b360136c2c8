"""Computes `variational.posterior_kl_definition` of a mask on top of a process, by the chain rule.

First comes whether x_{t-1} is the mask, then what it is if not: the loss of the inner process, in its own
fast form.
"""

from functools import cache, partial

import jax.numpy as jnp
from jaxtyping import Array

from d3pm_jax import numerics
from d3pm_jax.beliefs import Belief
from d3pm_jax.losses import fused_by_parts
from d3pm_jax.losses.fused_by_parts import Loss, WithGradient, differentiate
from d3pm_jax.losses.variational import dispatch_kl_and_ce, dispatch_marginal_kl
from d3pm_jax.processes.base import promote
from d3pm_jax.processes.masked import NEG_INF, Masked
from d3pm_jax.processes.tables import expand_trailing, gather_steps


def kl_and_ce(
    process: Masked, logits_x0: Array, x0: Array, xt: Array, t: Array, belief: Belief = "d3pm"
) -> tuple[Array, Array]:
    """Computes `dispatch_kl_and_ce`, the KL by parts of the elements together with its gradient."""
    losses = _losses(official=belief == "official")
    return fused_by_parts.kl_and_ce(*losses, process, promote(process, logits_x0), x0, xt, t, belief)


@cache
def _losses(official: bool) -> tuple[Loss, WithGradient]:
    """Returns the KL and the KL with its gradient, the same two functions each time.

    They are keys of jit's cache: new functions each time would be compiled anew.
    """
    loss = partial(_kl_by_chain_rule, official=official)
    return loss, partial(differentiate, loss)


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
    unmasked, _ = dispatch_kl_and_ce(process.inner, visible, inner_x0, inner_xt, t)

    marginal = dispatch_marginal_kl(process.inner, visible, inner_x0, t - 1)
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
