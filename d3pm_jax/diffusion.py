"""One step of the forward and of the reverse process: pure functions, noise is an argument.

`t` is int32, its shape a prefix of the shape of x; t = 1 is the least noisy step. The network predicts
logits of x_0, from which p(x_{t-1} | x_t) follows by Bayes' rule (`p_logits`), or logits of x_{t-1}
itself (`p_prev`).
"""

from jaxtyping import Array, Float, Int

from d3pm_jax import drawing, numerics
from d3pm_jax.checks import check_categories, check_steps
from d3pm_jax.transitions.base import FirstStep, Transition, widen
from d3pm_jax.transitions.bayes import log_p_x0, p_logits, q_posterior

__all__ = ["FirstStep", "log_p_x0", "p_logits", "p_prev", "p_sample", "q_posterior", "q_sample"]


def q_sample(
    tr: Transition,
    x0: Int[Array, "*S"],
    t: Int[Array, "..."],
    u: Float[Array, "*S"],
    u_low: Float[Array, "*S"] | None = None,
) -> Int[Array, "*S"]:
    """x_t ~ q(x_t | x_0) (D3PM eq. 3), from one uniform in [0, 1) per element.

    Args:
        tr: the forward process.
        x0: clean categories.
        t: steps 0..T; 0 returns x0.
        u: uniform noise.
        u_low: a second word of it, for events rarer than its grid (see `drawing`).

    Returns:
        int32 categories. Which one a given u yields is defined by `tr.draw_q`.
    """
    return tr.draw_q(x0, t, u, u_low)


def p_sample(
    tr: Transition,
    logits_x0: Float[Array, "*S K"],
    xt: Int[Array, "*S"],
    t: Int[Array, "..."],
    u: Float[Array, "*S"],
    first_step: FirstStep = "bayes",
    u_low: Float[Array, "*S"] | None = None,
) -> Int[Array, "*S"]:
    """x_{t-1} ~ p(x_{t-1} | x_t), from one uniform in [0, 1) per element by `drawing.categorical`.

    Args:
        tr, logits_x0, xt, t, first_step: as for `p_logits`.
        u: uniform noise.
        u_low: a second word of it (see `drawing`).

    Returns:
        int32 categories; -1 where there is no distribution (NaN logits; a prediction that contradicts x_t).
    """
    return drawing.categorical(p_logits(tr, logits_x0, xt, t, first_step), u, u_low)


def p_prev(
    tr: Transition, logits_prev: Float[Array, "*S K"], xt: Int[Array, "*S"], t: Int[Array, "..."]
) -> Float[Array, "*S K"]:
    """log p(x_{t-1} | x_t) = log_normalize(logits_prev): a network that predicts x_{t-1} itself.

    The direct parameterisation of the D3PM text code and of Multinomial Diffusion, in the place of
    `p_logits`: pass it as `reverse` to `sampling.ancestral`. Forbid an extra mask at t = 1 only: before
    that x_{t-1} may be it.

    Args:
        tr: the forward process, whose K the logits must have.
        logits_prev: the network's unnormalised log p(x_{t-1} | x_t); entries may be -inf.
        xt: categories.
        t: steps 1..T.

    Returns:
        Normalised log-probabilities in nats.
    """
    xt = check_categories("xt", xt, tr.K)
    t = check_steps(t, 1, tr.T)
    return numerics.log_normalize(widen(tr, logits_prev))
