"""Weighs losses in continuous time by the derivative of a schedule; takes ratios of probabilities at x_t."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from d3pm_jax import numerics
from d3pm_jax.processes.tables import expand_trailing, is_category
from d3pm_jax.schedules.continuous import Level, Schedule


def weigh_masked(
    schedule: Schedule, loss: Float[Array, "*S"], xt: Array, time: Array, mask_id: int
) -> Float[Array, "*S"]:
    """-alpha' / (1 - alpha) loss where x_t is the mask, else 0."""
    level, rate = level_and_rate(schedule, time)

    # At time 0, 1 - alpha is 0, but nothing is masked: the weight then counts for no element, and any finite
    # number will do.
    weight = rate / jnp.where(level.beta > 0, level.beta, 1.0)
    weighted = expand_trailing(weight, xt.shape) * loss  # [*S]
    return jnp.where(xt == mask_id, weighted, 0.0)


def weigh_uniform(
    schedule: Schedule, loss: Float[Array, "*S"], at_xt: Float[Array, "*S"], time: Array, K: int
) -> Float[Array, "*S"]:
    """-alpha' / (K alpha) loss, and 0 for an impossible pair (x_0, x_t), where log q(x_t | x_0) is -inf."""
    level, rate = level_and_rate(schedule, time)

    # At alpha = 0 nothing of x_0 is left to be learnt, and 1 / alpha is not to make a NaN of it.
    left = level.alpha > 0
    weight = jnp.where(left, rate / jnp.where(left, level.alpha, 1.0), 0.0) / K
    weight = jnp.broadcast_to(expand_trailing(weight, loss.shape), loss.shape)
    return jnp.where((at_xt == -jnp.inf) | (weight == 0), 0.0, weight * loss)


def ratios_of_certain(
    schedule: Schedule, x0: Array, xt: Array, time: Array, like: Float[Array, "*S K"]
) -> tuple[Float[Array, "*S K"], Float[Array, "*S"]]:
    """Returns log(q_j / q_xt) and log(K q_xt) of q(x_t | x_0) for uniform noise, in the type of `like`."""
    certain = jnp.where(is_category(x0, like.shape[-1]), 0.0, -jnp.inf).astype(like.dtype)
    return relative_to_xt(schedule(time), certain, xt)


def level_and_rate(schedule: Schedule, time: Array) -> tuple[Level, Array]:
    """Returns the level, and -alpha', the derivative of 1 - alpha by time."""
    level, derivative = jax.jvp(schedule, (time,), (jnp.ones_like(time),))
    return level, derivative.beta


def relative_to_xt(level: Level, log_p: Array, xt: Array) -> tuple[Array, Array]:
    """Returns log(q_j / q_xt) and log(K q_xt) of q = alpha p + beta / K, [*S, K] and [*S]."""
    K = log_p.shape[-1]
    log_alpha, log_beta = (expand_trailing(jnp.log(share), xt.shape)[..., None] for share in level)  # [.., 1]
    pushed = numerics.log_add(*jnp.broadcast_arrays(jnp.log(K) + log_alpha + log_p, log_beta))  # log(K q)
    at_xt = jnp.take_along_axis(pushed, xt[..., None].astype(jnp.int32), axis=-1)
    return pushed - jnp.where(at_xt == -jnp.inf, 0.0, at_xt), at_xt[..., 0]
