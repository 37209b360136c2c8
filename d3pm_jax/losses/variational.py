"""Computes the terms of the variational bound and the losses made of them: per element, nats, not reduced.

`posterior_kl_definition` and `marginal_kl_definition` are what every faster form is tested against; which
family has one is in `fused`.
"""

import math
from functools import singledispatch
from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from d3pm_jax import numerics
from d3pm_jax.beliefs import Belief, with_belief
from d3pm_jax.checks import CATEGORIES, NUM_STEPS, PROBABILITY, at_least, declared, steps
from d3pm_jax.losses.cross_entropy import denoiser_cross_entropy
from d3pm_jax.posteriors import log_p_x0, p_joint, p_prev, q_posterior
from d3pm_jax.processes import Process, expand_trailing, for_each_place


@declared(x0=CATEGORIES, xt=CATEGORIES, t=steps(1))
@for_each_place
def posterior_kl_definition(
    process: Process,
    logits_x0: Float[Array, "*S K"],
    x0: Int[Array, "*S"],
    xt: Int[Array, "*S"],
    t: Int[Array, "..."],
    belief: Belief = "d3pm",
) -> Float[Array, "*S"]:
    """KL(q(x_{t-1} | x_t, x_0) || p(x_{t-1} | x_t)) from its two arguments, `q_posterior` and `p_logits`.

    Args:
        process: the forward process.
        logits_x0: unnormalised logs of the prediction of x_0.
        x0, xt: categories.
        t: steps 1..T.
        belief: what the prediction is.

    Returns:
        Nats, +inf where the prediction rules out what happened.
    """
    joint = p_joint(process, logits_x0, xt, t, belief)
    return numerics.kl_logits(q_posterior(process, x0, xt, t), joint)


@declared(x0=CATEGORIES, t=steps(0))
@for_each_place
def marginal_kl_definition(
    process: Process, logits_x0: Float[Array, "*S K"], x0: Int[Array, "*S"], t: Int[Array, "..."]
) -> Float[Array, "*S"]:
    """KL(q(x_t | x_0) || p(x_t)) from its two arguments: p(x_t) is the prediction t steps on.

    Args:
        process: the forward process.
        logits_x0: unnormalised log p(x_0).
        x0: categories.
        t: steps 0..T.

    Returns:
        Nats, +inf where the prediction rules out what can happen.
    """
    return numerics.kl(process.log_q_probs(x0, t), process.log_push(log_p_x0(process, logits_x0), t))


@singledispatch
def dispatch_kl_and_ce(
    process: Process,
    logits_x0: Array,
    x0: Array,
    xt: Array,
    t: Array,
    belief: Belief = "d3pm",
) -> tuple[Array, Array]:
    """Computes the two terms of `hybrid`, which share their sums over K; by default by their definitions."""
    kl = posterior_kl_definition(process, logits_x0, x0, xt, t, belief)
    return kl, denoiser_cross_entropy(process, logits_x0, x0, xt, t, belief)


@singledispatch
def dispatch_marginal_kl(process: Process, logits_x0: Array, x0: Array, t: Array) -> Array:
    """Computes `marginal_kl`, by default by its definition."""
    return marginal_kl_definition(process, logits_x0, x0, t)


@singledispatch
def dispatch_prior_kl(process: Process, x0: Array) -> Array:
    """Computes `prior_kl`, by default by its definition."""
    log_q = process.log_q_probs(x0, jnp.asarray(process.T, jnp.int32))
    return numerics.kl(log_q, jnp.broadcast_to(process.log_prior(), log_q.shape))


@declared(x0=CATEGORIES, xt=CATEGORIES, t=steps(1))
@for_each_place
def posterior_kl(
    process: Process,
    logits_x0: Float[Array, "*S K"],
    x0: Int[Array, "*S"],
    xt: Int[Array, "*S"],
    t: Int[Array, "..."],
    belief: Belief = "d3pm",
) -> Float[Array, "*S"]:
    """KL(q(x_{t-1} | x_t, x_0) || p(x_{t-1} | x_t)): the term L_{t-1} of the bound (D3PM eq. 1).

    At t = 1 it is the reconstruction term -log p(x_0 | x_1), because q is then certain of x_0. The definition
    is `posterior_kl_definition`; families have faster forms, whose gradient is by hand or by parts: reverse
    mode only.

    Args:
        process: the forward process.
        logits_x0: the network's unnormalised log-probabilities of x_0.
        x0, xt: categories.
        t: steps 1..T.
        belief: see `posteriors.p_logits`.

    Returns:
        Nats. +inf where the prediction rules out what happened; 0 for an impossible pair (x_0, x_t).
    """
    # The KL of leave-one-out logits is that of "d3pm": their cross entropies differ, which are not asked for.
    if belief == "leave_one_out":
        belief = "d3pm"
    return with_belief(belief, dispatch_kl_and_ce)(process, logits_x0, x0, xt, t)[0]


@declared(x0=CATEGORIES, t=steps(0))
@for_each_place
def marginal_kl(
    process: Process, logits_x0: Float[Array, "*S K"], x0: Int[Array, "*S"], t: Int[Array, "..."]
) -> Float[Array, "*S"]:
    """KL(q(x_t | x_0) || sum_{x_0} p(x_0) q(x_t | x_0)): how well the predicted x_0 explains x_t.

    A mask on top of a process needs it: a masked element says nothing of x_{t+1}.

    Args:
        process: the forward process.
        logits_x0: unnormalised log p(x_0).
        x0: categories.
        t: steps 0..T.

    Returns:
        Nats, +inf where the prediction rules out what can happen.
    """
    return dispatch_marginal_kl(process, logits_x0, x0, t)


@declared(x0=CATEGORIES, xt=CATEGORIES, t=steps(1))
@for_each_place
def direct_kl(
    process: Process,
    logits_prev: Float[Array, "*S K"],
    x0: Int[Array, "*S"],
    xt: Int[Array, "*S"],
    t: Int[Array, "..."],
) -> Float[Array, "*S"]:
    """KL(q(x_{t-1} | x_t, x_0) || p(x_{t-1} | x_t)) for a network that predicts x_{t-1} (`p_prev`).

    The term of the bound, as `posterior_kl` is for logits of x_0; at t = 1 it is -log p(x_0 | x_1). The
    official image code names this prediction "xprev" and stops at it, after a line that would take the same
    logits for those of x_0: its hybrid would be this plus lambda times `cross_entropy` of logits_prev.

    Args:
        process: the forward process.
        logits_prev: the network's unnormalised log p(x_{t-1} | x_t).
        x0, xt: categories.
        t: steps 1..T.

    Returns:
        Nats. +inf where the prediction rules out what happened; 0 for an impossible pair (x_0, x_t).
    """
    return numerics.kl(q_posterior(process, x0, xt, t), p_prev(process, logits_prev, xt, t))


class Hybrid(NamedTuple):
    """Holds the hybrid loss and its two terms, in nats per element."""

    loss: Float[Array, "*S"]  # kl + ce_weight * ce
    kl: Float[Array, "*S"]  # the term of the variational bound
    ce: Float[Array, "*S"]  # cross entropy: of the denoiser, as published of the logits

    @classmethod
    def of_terms(cls, kl: Array, ce: Array, ce_weight: float) -> "Hybrid":
        """Returns both terms with the loss that they make."""
        # A weight of 0 makes 0 of a cross entropy that is +inf.
        return cls(jnp.where(ce_weight == 0, kl, kl + ce_weight * ce), kl, ce)


@declared(x0=CATEGORIES, xt=CATEGORIES, t=steps(1), ce_weight=at_least(0))
@for_each_place
def hybrid(
    process: Process,
    logits_x0: Float[Array, "*S K"],
    x0: Int[Array, "*S"],
    xt: Int[Array, "*S"],
    t: Int[Array, "..."],
    ce_weight: float,
    belief: Belief = "d3pm",
) -> Hybrid:
    """L_lambda = L_vb + lambda L_ce (D3PM eq. 5): `posterior_kl` plus ce_weight times `cross_entropy`.

    As published ("d3pm"), the two disagree: the bound is least for the leave-one-out posterior, cross entropy
    for the denoiser. Under the other beliefs both are of one thing: the cross entropy is that of logits_x0
    where they are the denoiser, and that of `beliefs.to_denoiser` of them where they are the other.

    Args:
        process: the forward process.
        logits_x0: unnormalised logs of the prediction of x_0.
        x0, xt: categories.
        t: steps 1..T.
        belief: what the prediction is.
        ce_weight: lambda; the paper uses 0.001 for images, 0.01 for text.

    Returns:
        The loss and its two terms. The mean over elements and t has no factor T, as in the official code.
    """
    kl, ce = with_belief(belief, dispatch_kl_and_ce)(process, logits_x0, x0, xt, t)
    return Hybrid.of_terms(kl, ce, ce_weight)


@declared(x0=CATEGORIES)
@for_each_place
def prior_kl(process: Process, x0: Int[Array, "*S"]) -> Float[Array, "*S"]:
    """KL(q(x_T | x_0) || p(x_T)): the term L_T of the bound (D3PM eq. 1), which has no parameters.

    Args:
        process: the forward process.
        x0: categories.

    Returns:
        Nats, +inf where x_T can be something that the reverse chain never starts from.
    """
    return dispatch_prior_kl(process, x0)


@declared(x0=CATEGORIES, p_t=PROBABILITY)
def stochastic_bound(
    process: Process, kl: Float[Array, " B *S"], x0: Int[Array, " B *S"], p_t: Float[Array, " B"]
) -> Float[Array, " B"]:
    """Sums kl / p_t over the elements and adds the prior KL: an unbiased estimate of the whole bound.

    The loss of Multinomial Diffusion (Hoogeboom et al. 2021), of one t per example.

    Args:
        process: the forward process.
        kl: the term of the bound at the drawn step (`posterior_kl`).
        x0: categories.
        p_t: how likely that step was to be drawn: 1 / T, or as `timesteps.importance` says.

    Returns:
        Nats per example.
    """
    flat = (x0.shape[0], math.prod(x0.shape[1:]))
    kl_per_example = kl.reshape(flat).sum(axis=1)  # [B]
    prior_per_example = prior_kl(process, x0).reshape(flat).sum(axis=1)  # [B]
    return kl_per_example / p_t + prior_per_example


@declared(p_t=PROBABILITY, T=NUM_STEPS)
def mean_over_steps(x: Float[Array, " B *S"], p_t: Float[Array, " B"], T: int) -> Float[Array, ""]:
    """Averages x / (T p_t): an unbiased mean over elements and all t, however the t were drawn.

    Args:
        x: one number for each element, of one t per example.
        p_t: how likely that t was to be drawn: 1 / T, or as `timesteps.importance` says.
        T: number of steps.

    Returns:
        Unbiased for the mean over t = 1..T of the mean over elements.
    """
    return jnp.mean(per_step(x, p_t, T))


@declared(p_t=PROBABILITY, T=NUM_STEPS)
def per_step(x: Float[Array, " B *S"], p_t: Float[Array, " B"], T: int) -> Float[Array, " B *S"]:
    """x / (T p_t): what each element counts for in the mean over t; p_t: how likely its t was to be drawn."""
    return x * expand_trailing((1 / T) / p_t, x.shape)
