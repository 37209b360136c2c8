"""One step of the forward and of the reverse process: pure functions, noise is an argument.

`t` is int32, its shape a prefix of the shape of x; t = 1 is the least noisy step. The network predicts
logits of x_0; p(x_{t-1} | x_t) follows from them by Bayes' rule.
"""

from typing import Literal

import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from d3pm_jax import numerics
from d3pm_jax.checks import check_steps
from d3pm_jax.transitions import Transition
from d3pm_jax.transitions.base import spread

FirstStep = Literal["bayes", "x0"]


def q_sample(
    tr: Transition, x0: Int[Array, "*S"], t: Int[Array, "..."], u: Float[Array, "*S"]
) -> Int[Array, "*S"]:
    """x_t ~ q(x_t | x_0) (D3PM eq. 3), from one uniform in [0, 1) per element.

    Args:
        tr: the forward process.
        x0: clean categories.
        t: steps 0..T; 0 returns x0.
        u: uniform noise.

    Returns:
        int32 categories. Which one a given u yields is defined by `tr.draw_q`.
    """
    return tr.draw_q(x0, t, u)


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
    check_steps(t, 1, tr.T)
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
    check_steps(t, 1, tr.T)
    if first_step not in ("bayes", "x0"):
        raise ValueError(f'first_step = {first_step!r}: it must be "bayes" or "x0"')
    log_p0 = log_p_x0(tr, logits_x0)
    log_p = numerics.log_normalize(tr.log_q_back(xt, t) + tr.log_push(log_p0, t - 1))
    if first_step == "bayes":
        return log_p
    return jnp.where(spread(t, xt.shape)[..., None] == 1, log_p0, log_p)


def p_sample(
    tr: Transition,
    logits_x0: Float[Array, "*S K"],
    xt: Int[Array, "*S"],
    t: Int[Array, "..."],
    u: Float[Array, "*S"],
    first_step: FirstStep = "bayes",
) -> Int[Array, "*S"]:
    """x_{t-1} ~ p(x_{t-1} | x_t), from one uniform in [0, 1) per element by `numerics.categorical`.

    Args:
        tr, logits_x0, xt, t, first_step: as for `p_logits`.
        u: uniform noise.

    Returns:
        int32 categories; -1 where there is no distribution (NaN logits; a prediction that contradicts x_t).
    """
    return numerics.categorical(p_logits(tr, logits_x0, xt, t, first_step), u)


def log_p_x0(tr: Transition, logits_x0: Float[Array, "*S K"]) -> Float[Array, "*S K"]:
    """The predicted log-distribution over x_0, normalised, in float32 or wider.

    Args:
        tr: the forward process, whose K the logits must have.
        logits_x0: unnormalised log-probabilities of any float type.

    Raises:
        ValueError: the last axis is not K.
    """
    if logits_x0.shape[-1] != tr.K:
        raise ValueError(f"logits have {logits_x0.shape[-1]} categories, the process has K = {tr.K}")
    wide = jnp.promote_types(logits_x0.dtype, tr.log_prior().dtype)
    return numerics.log_normalize(logits_x0.astype(wide))
