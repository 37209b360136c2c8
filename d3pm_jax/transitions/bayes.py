"""Bayes' rule over any forward process: the definition that every closed form is tested against."""

import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from d3pm_jax import numerics
from d3pm_jax.checks import check_categories, check_steps
from d3pm_jax.transitions.base import FirstStep, Transition, check_first_step, spread, widen


def q_posterior(
    tr: Transition, x0: Int[Array, "*S"], xt: Int[Array, "*S"], t: Int[Array, "..."]
) -> Float[Array, "*S K"]:
    """log q(x_{t-1} | x_t, x_0) (D3PM eq. 3): the column of Q[t] times the row of Qbar[t-1], normalised.

    Args:
        tr: the forward process.
        x0, xt: categories.
        t: steps 1..T.

    Returns:
        Normalised log-probabilities in nats; all -inf for an impossible pair, q(x_t | x_0) = 0.
    """
    t = check_steps(t, 1, tr.T)
    return numerics.log_normalize(tr.log_q_back(xt, t) + tr.log_q_probs(x0, t - 1))


def p_logits(
    tr: Transition,
    logits_x0: Float[Array, "*S K"],
    xt: Int[Array, "*S"],
    t: Int[Array, "..."],
    first_step: FirstStep = "bayes",
) -> Float[Array, "*S K"]:
    """log p(x_{t-1} | x_t) = log sum_{x_0} q(x_{t-1}, x_t | x_0) p(x_0 | x_t), normalised (D3PM eq. 4).

    Args:
        tr: the forward process.
        logits_x0: the network's unnormalised log p(x_0 | x_t); entries may be -inf.
        xt: categories.
        t: steps 1..T.
        first_step: at t = 1, "bayes" is the same rule, "x0" takes the prediction itself (official code).

    Returns:
        Normalised log-probabilities in nats; all -inf where the prediction contradicts x_t.
    """
    return numerics.log_normalize(_joint(tr, logits_x0, xt, t, first_step))


def _joint(tr: Transition, logits_x0: Array, xt: Array, t: Array, first_step: FirstStep) -> Array:
    """`p_logits` before normalisation: log p(x_{t-1}, x_t)."""
    t = check_steps(t, 1, tr.T)
    check_first_step(first_step)
    log_p0 = log_p_x0(tr, logits_x0)
    joint = tr.log_q_back(xt, t) + tr.log_push(log_p0, t - 1)
    if first_step == "bayes":
        return joint
    return jnp.where(spread(t, xt.shape)[..., None] == 1, log_p0, joint)


def posterior_kl(
    tr: Transition,
    logits_x0: Float[Array, "*S K"],
    x0: Int[Array, "*S"],
    xt: Int[Array, "*S"],
    t: Int[Array, "..."],
    first_step: FirstStep = "bayes",
) -> Float[Array, "*S"]:
    """KL(q(x_{t-1} | x_t, x_0) || p(x_{t-1} | x_t)) from its two arguments, `q_posterior` and `p_logits`."""
    joint = _joint(tr, logits_x0, xt, t, first_step)
    return numerics.kl_logits(q_posterior(tr, x0, xt, t), joint)


def marginal_kl(
    tr: Transition, logits_x0: Float[Array, "*S K"], x0: Int[Array, "*S"], t: Int[Array, "..."]
) -> Float[Array, "*S"]:
    """KL(q(x_t | x_0) || p(x_t)) from its two arguments: p(x_t) is the prediction t steps on."""
    return numerics.kl(tr.log_q_probs(x0, t), tr.log_push(log_p_x0(tr, logits_x0), t))


def cross_entropy(
    tr: Transition, logits_x0: Float[Array, "*S K"], x0: Int[Array, "*S"]
) -> Float[Array, "*S"]:
    """-log p(x_0 | x_t), the auxiliary loss of D3PM eq. 5.

    Args:
        tr: the forward process, whose K the logits must have.
        logits_x0: the network's unnormalised log p(x_0 | x_t).
        x0: categories.

    Returns:
        Nats, +inf where the prediction rules x_0 out.
    """
    x0 = check_categories("x0", x0, tr.K)
    return -numerics.log_prob(widen(tr, logits_x0), x0)


def log_p_x0(tr: Transition, logits_x0: Float[Array, "*S K"]) -> Float[Array, "*S K"]:
    """The predicted log-distribution over x_0, normalised, in float32 or wider.

    Args:
        tr: the forward process, whose K the logits must have.
        logits_x0: unnormalised log-probabilities of any float type.

    Raises:
        ValueError: the last axis is not K.
    """
    return numerics.log_normalize(widen(tr, logits_x0))
