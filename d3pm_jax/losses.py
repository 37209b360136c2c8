"""Training losses, per element and in nats; the caller reduces."""

from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from d3pm_jax import numerics
from d3pm_jax.diffusion import p_prev
from d3pm_jax.transitions.base import FirstStep, Transition
from d3pm_jax.transitions.bayes import cross_entropy, q_posterior

__all__ = ["Hybrid", "cross_entropy", "direct_kl", "hybrid", "posterior_kl", "prior_kl"]


def posterior_kl(
    tr: Transition,
    logits_x0: Float[Array, "*S K"],
    x0: Int[Array, "*S"],
    xt: Int[Array, "*S"],
    t: Int[Array, "..."],
    first_step: FirstStep = "bayes",
) -> Float[Array, "*S"]:
    """KL(q(x_{t-1} | x_t, x_0) || p(x_{t-1} | x_t)): the term L_{t-1} of the bound (D3PM eq. 1).

    At t = 1 it is the reconstruction term -log p(x_0 | x_1), because q is then certain of x_0. The gradient
    is by hand or by parts: reverse mode only.

    Args:
        tr: the forward process.
        logits_x0: the network's unnormalised log p(x_0 | x_t).
        x0, xt: categories.
        t: steps 1..T.
        first_step: see `diffusion.p_logits`.

    Returns:
        Nats. +inf where the prediction rules out what happened; 0 for an impossible pair (x_0, x_t).
    """
    return tr.loss_terms(logits_x0, x0, xt, t, first_step)[0]


def direct_kl(
    tr: Transition,
    logits_prev: Float[Array, "*S K"],
    x0: Int[Array, "*S"],
    xt: Int[Array, "*S"],
    t: Int[Array, "..."],
) -> Float[Array, "*S"]:
    """KL(q(x_{t-1} | x_t, x_0) || p(x_{t-1} | x_t)) for a network that predicts x_{t-1} (`diffusion.p_prev`).

    The term of the bound, as `posterior_kl` is for logits of x_0; at t = 1 it is -log p(x_0 | x_1). The
    official image code names this prediction "xprev" and stops at it, after a line that would take the same
    logits for those of x_0: its hybrid would be this plus lambda times `cross_entropy` of logits_prev.

    Args:
        tr: the forward process.
        logits_prev: the network's unnormalised log p(x_{t-1} | x_t).
        x0, xt: categories.
        t: steps 1..T.

    Returns:
        Nats. +inf where the prediction rules out what happened; 0 for an impossible pair (x_0, x_t).
    """
    return numerics.kl(q_posterior(tr, x0, xt, t), p_prev(tr, logits_prev, xt, t))


class Hybrid(NamedTuple):
    """The hybrid loss and its two terms, in nats per element."""

    loss: Array  # [*S]  kl + ce_weight * ce
    kl: Array  # [*S]  the term of the variational bound
    ce: Array  # [*S]  cross entropy


def hybrid(
    tr: Transition,
    logits_x0: Float[Array, "*S K"],
    x0: Int[Array, "*S"],
    xt: Int[Array, "*S"],
    t: Int[Array, "..."],
    ce_weight: float,
    first_step: FirstStep = "bayes",
) -> Hybrid:
    """L_lambda = L_vb + lambda L_ce (D3PM eq. 5): `posterior_kl` plus ce_weight times `cross_entropy`.

    Args:
        tr, logits_x0, x0, xt, t, first_step: as for `posterior_kl`.
        ce_weight: lambda; the paper uses 0.001 for images, 0.01 for text.

    Returns:
        The loss and its two terms. The mean over elements and t has no factor T, as in the official code.
    """
    kl, ce = tr.loss_terms(logits_x0, x0, xt, t, first_step)
    return Hybrid(jnp.where(ce_weight == 0, kl, kl + ce_weight * ce), kl, ce)  # 0 inf = 0


def prior_kl(tr: Transition, x0: Int[Array, "*S"]) -> Float[Array, "*S"]:
    """KL(q(x_T | x_0) || p(x_T)): the term L_T of the bound (D3PM eq. 1), which nothing can train.

    Args:
        tr: the forward process.
        x0: categories.

    Returns:
        Nats, +inf where x_T can be something that the reverse chain never starts from.
    """
    log_q = tr.log_q_probs(x0, jnp.asarray(tr.T, jnp.int32))
    return numerics.kl(log_q, jnp.broadcast_to(tr.log_prior(), log_q.shape))
