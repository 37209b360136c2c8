"""Training losses, per element and in nats; the caller reduces."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from d3pm_jax import numerics
from d3pm_jax.checks import check_categories
from d3pm_jax.diffusion import p_prev
from d3pm_jax.transitions.base import FirstStep, Transition, widen
from d3pm_jax.transitions.bayes import cross_entropy, q_posterior

__all__ = [
    "Hybrid",
    "cross_entropy",
    "direct_kl",
    "hybrid",
    "posterior_kl",
    "prior_kl",
    "smoothed_cross_entropy",
    "stochastic_bound",
]


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


def smoothed_cross_entropy(
    tr: Transition,
    logits_x0: Float[Array, "*S K"],
    x0: Int[Array, "*S"],
    smoothing: float,
    mask_id: int | None = None,
) -> Float[Array, "*S"]:
    """-sum_k r_k log p_k with r = (1 - smoothing) onehot(x_0) + smoothing / K: label smoothing.

    Args:
        tr: the forward process, whose K the logits must have.
        logits_x0: the network's unnormalised log p(x_0 | x_t).
        x0: categories.
        smoothing: in [0, 1]; 0 is `cross_entropy`.
        mask_id: a category that gets no mass, the others smoothing / (K - 1): an extra mask that the head
            forbids (`heads.forbid`), which would cost +inf.

    Returns:
        Nats, +inf where the prediction rules out a category that has mass.

    Raises:
        ValueError: smoothing is outside [0, 1].
    """
    x0 = check_categories("x0", x0, tr.K)
    if not 0 <= smoothing <= 1:
        raise ValueError(f"smoothing = {smoothing}: it must be in [0, 1]")
    log_p = numerics.log_normalize(widen(tr, logits_x0))
    each = jnp.full(tr.K, smoothing / (tr.K - (mask_id is not None)), log_p.dtype)
    each = each if mask_id is None else each.at[mask_id].set(0.0)
    onehot = jax.nn.one_hot(x0, tr.K, dtype=log_p.dtype)
    target = (1 - smoothing) * onehot + jnp.broadcast_to(each, onehot.shape)
    return -jnp.sum(jnp.where(target > 0, target * log_p, 0.0), axis=-1)


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


def stochastic_bound(
    tr: Transition, kl: Float[Array, " B *S"], x0: Int[Array, " B *S"], p_t: Float[Array, " B"]
) -> Float[Array, " B"]:
    """kl / p_t summed over the elements, plus the prior KL: an unbiased estimate of the whole bound.

    The loss of Multinomial Diffusion (Hoogeboom et al. 2021), of one t per example.

    Args:
        tr: the forward process.
        kl: the term of the bound at the drawn step (`posterior_kl`).
        x0: categories.
        p_t: how likely that step was to be drawn: 1 / T, or as `timesteps.importance` says.

    Returns:
        Nats per example.
    """
    B = x0.shape[0]
    return kl.reshape(B, -1).sum(axis=1) / p_t + prior_kl(tr, x0).reshape(B, -1).sum(axis=1)
