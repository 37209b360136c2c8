"""Computes SEDD's score entropy: the bound in continuous time, of a network that gives log scores.

A score s_y is p_t(y) / p_t(x_t): how much likelier x_t would be with the category y at a place (Lou et al.
2024, 2310.16834). Its loss at a place is sigma' sum over y != x_t of R (s_y - r_y log s_y + r_y (log r_y -
1)), with r_y = q(x_t = y | x_0) / q(x_t | x_0), sigma = -log alpha, and R = 1 for masks, 1 / K for uniform
noise. With the scores of a belief in x_0 that is the bound of `losses.continuous`, term by term: a process
whose alpha falls from 1 to 0 needs neither a prior nor a reconstruction term. The program of the paper trains
on times above 0.001 alone, and its alpha ends at 0.001: the prior term of masks is infinite there.
"""

import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from d3pm_jax import numerics
from d3pm_jax.checks import CATEGORIES, CATEGORY, SHARE, TIME, declared
from d3pm_jax.losses.limits import ratios_of_certain, weigh_masked, weigh_uniform
from d3pm_jax.numerics.logspace import at_least_float32
from d3pm_jax.processes.tables import is_category
from d3pm_jax.schedules.continuous import Schedule


@declared(schedule=SHARE, x0=CATEGORIES, xt=CATEGORIES, time=TIME, mask_id=CATEGORY)
def absorbing_score_entropy(
    schedule: Schedule,
    log_scores: Float[Array, "*S K"],
    x0: Int[Array, "*S"],
    xt: Int[Array, "*S"],
    time: Float[Array, "..."],
    mask_id: int,
) -> Float[Array, "*S"]:
    """-alpha' / (1 - alpha) (sum_y w_y - 1 - log w_x0) where x_t is the mask, else 0 (SEDD, masks).

    w_y = (e^sigma - 1) s_y = s_y / r_x0 are scores over that of the law that is certain of y: those of a
    belief p(x_0 | x_t) are its probabilities. They are finite at alpha = 0, where every s_y is 0. The
    program's log s are log w less log(e^sigma - 1).

    Args:
        schedule: of the process.
        log_scores: log w; the entries of the mask and of x_t are not read.
        x0, xt: categories.
        time: in [0, 1]; its shape is a prefix of that of x0. At 0 no place is masked, and the loss is 0.
        mask_id: which category the mask is.

    Returns:
        Nats per unit of time, +inf where the score of x_0 is 0.
    """
    K = log_scores.shape[-1]
    is_left_out = is_category(jnp.full(xt.shape, mask_id), K) | is_category(xt, K)
    log_w = jnp.where(is_left_out, -jnp.inf, at_least_float32(log_scores))
    certain = jnp.where(is_category(x0, K), 0.0, -jnp.inf).astype(log_w.dtype)
    return weigh_masked(schedule, numerics.kl(certain, log_w), xt, time, mask_id)


@declared(schedule=SHARE, x0=CATEGORIES, xt=CATEGORIES, time=TIME)
def uniform_score_entropy(
    schedule: Schedule,
    log_scores: Float[Array, "*S K"],
    x0: Int[Array, "*S"],
    xt: Int[Array, "*S"],
    time: Float[Array, "..."],
) -> Float[Array, "*S"]:
    """-alpha' / (K alpha) sum over y != x_t of (s_y - r_y log s_y + r_y (log r_y - 1)) (SEDD, uniform).

    Where alpha falls to 0 the weight grows like 1 / (1 - time): the mean over time is finite only for scores
    that become 1 there, as those of a belief do by themselves.

    Args:
        schedule: of the process.
        log_scores: log s; the entry of x_t is not read.
        x0, xt: categories.
        time: in [0, 1]; its shape is a prefix of that of x0. At alpha = 0 the loss is 0.

    Returns:
        Nats per unit of time; 0 for an impossible pair (x_0, x_t), +inf where a score is 0 and r is not.
    """
    K = log_scores.shape[-1]
    log_s = jnp.where(is_category(xt, K), 0.0, at_least_float32(log_scores))
    log_r, at_xt = ratios_of_certain(schedule, x0, xt, time, like=log_s)
    return weigh_uniform(schedule, numerics.kl(log_r, log_s), at_xt, time, K)
