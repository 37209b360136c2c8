"""Takes one step of the forward and of the reverse process, by Bayes' rule: the definitions, on one page.

These are pure functions, and noise is an argument. `t` is int32, its shape a prefix of the shape of x; t = 1
is the least noisy step. The network predicts logits of x_0, from which p(x_{t-1} | x_t) follows (`p_logits`),
or logits of x_{t-1} itself (`p_prev`). What the logits of x_0 are, p(x_0 | x_t) or what the other elements
say of it, is their belief (`beliefs`).
"""

from functools import partial

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from d3pm_jax.beliefs import WITHOUT_EVIDENCE, Belief, strip_evidence, to_leave_one_out
from d3pm_jax.checks import CATEGORIES, NOISE, declared, steps
from d3pm_jax.numerics import inverse_cdf, log_normalize
from d3pm_jax.processes import (
    Process,
    dense_reverse,
    expand_trailing,
    for_each_place,
    mixing_reverse,
    promote,
)


@declared(x0=CATEGORIES, t=steps(0), u=NOISE, u_low=NOISE)
def q_sample(
    process: Process,
    x0: Int[Array, "*S"],
    t: Int[Array, "..."],
    u: Float[Array, "*S"],
    u_low: Float[Array, "*S"] | None = None,
) -> Int[Array, "*S"]:
    """x_t ~ q(x_t | x_0) (D3PM eq. 3), from one uniform in [0, 1) per element.

    Args:
        process: the forward process.
        x0: clean categories.
        t: steps 0..T; 0 returns x0.
        u: uniform noise.
        u_low: a second word of it, for events rarer than its grid (see `numerics.inverse_cdf`).

    Returns:
        int32 categories. Which one a given u yields is defined by `process.draw_q`.
    """
    return process.draw_q(x0, t, u, u_low)


@declared(x0=CATEGORIES, xt=CATEGORIES, t=steps(1))
@for_each_place
def q_posterior(
    process: Process, x0: Int[Array, "*S"], xt: Int[Array, "*S"], t: Int[Array, "..."]
) -> Float[Array, "*S K"]:
    """log q(x_{t-1} | x_t, x_0) (D3PM eq. 3): the column of Q[t] times the row of Qbar[t-1], normalised.

    Args:
        process: the forward process.
        x0, xt: categories.
        t: steps 1..T.

    Returns:
        Normalised log-probabilities in nats; all -inf for an impossible pair, q(x_t | x_0) = 0.
    """
    return log_normalize(process.log_q_back(xt, t) + process.log_q_probs(x0, t - 1))


@declared()
@for_each_place
def log_p_x0(process: Process, logits_x0: Float[Array, "*S K"]) -> Float[Array, "*S K"]:
    """Returns the predicted log-distribution over x_0, normalised, in float32 or wider.

    Args:
        process: the forward process, whose K the logits must have.
        logits_x0: unnormalised log-probabilities of any float type.

    Raises:
        ValueError: the last axis is not K.
    """
    return log_normalize(promote(process, logits_x0))


@declared(xt=CATEGORIES, t=steps(1))
@for_each_place
def p_logits(
    process: Process,
    logits_x0: Float[Array, "*S K"],
    xt: Int[Array, "*S"],
    t: Int[Array, "..."],
    belief: Belief = "d3pm",
) -> Float[Array, "*S K"]:
    """log p(x_{t-1} | x_t) = log sum_{x_0} q(x_{t-1}, x_t | x_0) p(x_0), normalised (D3PM eq. 4).

    p(x_0) is the prediction, where it is taken for the leave-one-out posterior; of a denoiser it is
    p(x_0 | x_t) / q(x_t | x_0), which makes the sum the average of the normalised posteriors over those x_0
    that x_t allows.

    Args:
        process: the forward process.
        logits_x0: the network's unnormalised log-probabilities of x_0; entries may be -inf.
        xt: categories.
        t: steps 1..T.
        belief: what the prediction is: "leave_one_out", "denoiser" (see `beliefs`), or "d3pm", as published,
            where the sum takes it for the former. "official" is "d3pm" but at t = 1, where it takes the
            prediction itself, as the official code does.

    Returns:
        Normalised log-probabilities in nats; all -inf where the prediction contradicts x_t.
    """
    return log_normalize(p_joint(process, logits_x0, xt, t, belief))


@declared(xt=CATEGORIES, t=steps(1))
@for_each_place
def p_joint(
    process: Process,
    logits_x0: Float[Array, "*S K"],
    xt: Int[Array, "*S"],
    t: Int[Array, "..."],
    belief: Belief = "d3pm",
) -> Float[Array, "*S K"]:
    """log sum_{x_0} q(x_{t-1}, x_t | x_0) p(x_0): `p_logits` before it is normalised.

    Args:
        process: the forward process.
        logits_x0: unnormalised logs of the prediction of x_0.
        xt: categories.
        t: steps 1..T.
        belief: what the prediction is.

    Returns:
        Logs in nats, [*S, K].
    """
    if belief == "denoiser":
        logits_x0 = to_leave_one_out(process, logits_x0, xt, t)
    log_p0 = log_p_x0(process, logits_x0)  # [*S, K]

    # q(x_{t-1}, x_t | x_0) = q(x_t | x_{t-1}) q(x_{t-1} | x_0), whose first factor leaves the sum over x_0.
    joint = process.log_q_back(xt, t) + process.log_push(log_p0, t - 1)  # [*S, K]
    if belief != "official":
        return joint

    # At t = 1 x_{t-1} is x_0, and the official code takes the prediction for p(x_0 | x_1) as it is.
    return jnp.where(expand_trailing(t, xt.shape)[..., None] == 1, log_p0, joint)


@declared(xt=CATEGORIES, t=steps(1))
@for_each_place
def p_prev(
    process: Process, logits_prev: Float[Array, "*S K"], xt: Int[Array, "*S"], t: Int[Array, "..."]
) -> Float[Array, "*S K"]:
    """log p(x_{t-1} | x_t) = log_normalize(logits_prev): a network that predicts x_{t-1} itself.

    The direct parameterisation of the D3PM text code and of Multinomial Diffusion, in the place of
    `p_logits`: the step `OwnReverse(p_prev)` of a sampler takes it. Forbid an extra mask at t = 1 only:
    before that x_{t-1} may be it.

    Args:
        process: the forward process, whose K the logits must have.
        logits_prev: the network's unnormalised log p(x_{t-1} | x_t); entries may be -inf.
        xt: categories.
        t: steps 1..T.

    Returns:
        Normalised log-probabilities in nats.
    """
    return log_normalize(promote(process, logits_prev))


@declared(xt=CATEGORIES, t=steps(1), u=NOISE, u_low=NOISE)
@for_each_place
def p_sample(
    process: Process,
    logits_x0: Float[Array, "*S K"],
    xt: Int[Array, "*S"],
    t: Int[Array, "..."],
    u: Float[Array, "*S"],
    belief: Belief = "d3pm",
    u_low: Float[Array, "*S"] | None = None,
) -> Int[Array, "*S"]:
    """x_{t-1} ~ p(x_{t-1} | x_t), from one uniform in [0, 1) per element by `inverse_cdf.categorical`.

    Args:
        process: the forward process.
        logits_x0: unnormalised logs of the prediction of x_0.
        xt: categories.
        t: steps 1..T.
        belief: what the prediction is.
        u: uniform noise.
        u_low: a second word of it (see `numerics.inverse_cdf`).

    Returns:
        int32 categories; -1 where there is no distribution (NaN logits; a prediction that contradicts x_t).
    """
    by_product = belief != "official" and dense_reverse.draws_by_product(process, xt, t)
    if by_product or mixing_reverse.draws_by_rows(process):
        return _draw_previous_by_platform(process, logits_x0, xt, t, u, u_low, belief)
    return _draw_previous(process, logits_x0, xt, t, u, u_low, belief)


def _draw_previous(
    process: Process, logits_x0: Array, xt: Array, t: Array, u: Array, u_low: Array | None, belief: Belief
) -> Array:
    return inverse_cdf.categorical(p_logits(process, logits_x0, xt, t, belief), u, u_low)


@partial(jax.jit, static_argnames="belief")
def _draw_previous_by_platform(
    process: Process, logits_x0: Array, xt: Array, t: Array, u: Array, u_low: Array | None, belief: Belief
) -> Array:
    # A draw is an integer, which has no gradient.
    arguments = jax.lax.stop_gradient((process, logits_x0, xt, t, u, u_low))
    by_definition = partial(_draw_previous, belief=belief)
    elsewhere = partial(_draw_by_product, belief=belief)
    if mixing_reverse.draws_by_rows(process):
        elsewhere = partial(mixing_reverse.draw_by_rows, belief=belief)
    return jax.lax.platform_dependent(*arguments, cpu=by_definition, default=elsewhere)


def _draw_by_product(
    process: Process, logits_x0: Array, xt: Array, t: Array, u: Array, u_low: Array | None, belief: Belief
) -> Array:
    logits_loo = strip_evidence(process, logits_x0, xt, t, belief)
    definition = partial(_draw_previous, process, belief=WITHOUT_EVIDENCE.get(belief, belief))
    return dense_reverse.draw_by_product(process, logits_loo, xt, t, (u, u_low), definition)
