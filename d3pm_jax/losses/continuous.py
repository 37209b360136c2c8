"""Computes the loss in the limit of infinitely many steps: absorbing and uniform have a closed form.

Time runs from 0, clean data, to 1. A schedule says how much of x_0 is left (`schedules.continuous`); it falls
to 0, so that neither a prior nor a reconstruction term remains: the bound on -log p(x_0) is the mean over
time, uniform in (0, 1], and over x_t of the losses below, summed over elements.
"""

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from d3pm_jax import numerics
from d3pm_jax.checks import (
    CATEGORIES,
    CATEGORY,
    INDEX,
    NOISE,
    NUM_CATEGORIES,
    SHARE,
    TIME,
    AllowedRange,
    Measure,
    declared,
)
from d3pm_jax.numerics.logspace import at_least_float32
from d3pm_jax.processes.tables import expand_trailing, is_category
from d3pm_jax.schedules.continuous import Level, Schedule


@declared(schedule=SHARE, x0=INDEX, time=TIME, u=NOISE, mask_id=INDEX)
def absorbing_draw(
    schedule: Schedule, x0: Int[Array, "*S"], time: Float[Array, "..."], u: Float[Array, "*S"], mask_id: int
) -> Int[Array, "*S"]:
    """Draws x_t of an absorbing process: the mask where u < 1 - alpha(time), else x_0.

    Args:
        schedule: of the process.
        x0: categories.
        time: in [0, 1]; its shape is a prefix of that of x0.
        u: uniform noise in [0, 1).
        mask_id: which category the mask is.

    Returns:
        int32 categories.
    """
    masked_share = expand_trailing(schedule(time).beta, x0.shape)  # 1 - alpha(time)
    return jnp.where(u < masked_share, mask_id, x0)


@declared(schedule=SHARE, x0=CATEGORIES, time=TIME, u=NOISE, K=NUM_CATEGORIES)
def uniform_draw(
    schedule: Schedule, x0: Int[Array, "*S"], time: Float[Array, "..."], u: Float[Array, "*S"], K: int
) -> Int[Array, "*S"]:
    """Draws x_t of a uniform process: the j-th category but x_0 if j = floor(u K / (1 - alpha)) < K - 1.

    Else x_0: the rule of `Mixing.draw_q`.

    Args:
        schedule: of the process.
        x0: categories.
        time: in [0, 1]; its shape is a prefix of that of x0.
        u: uniform noise in [0, 1).
        K: number of categories.

    Returns:
        int32 categories.
    """
    beta = expand_trailing(schedule(time).beta, x0.shape)
    u = at_least_float32(u)  # 16 bits do not count up to K

    # Each of the other K - 1 categories has an interval of length beta / K, from u = 0 on; x_0 has all that
    # is left.
    j = jnp.floor(u * K / jnp.where(beta > 0, beta, 1.0))
    moved = (beta > 0) & (j < K - 1)
    j = jnp.where(moved, j, 0.0).astype(jnp.int32)

    # The j-th of the others is j itself below x_0, and one more from there on.
    return jnp.where(moved, j + (j >= x0).astype(j.dtype), x0).astype(jnp.int32)


def _measure_mask(values: dict[str, Any]) -> Array:
    """Returns p(x_0 = mask_id) where x_t is the mask, and 0 elsewhere, [*S]."""
    is_masked = jnp.asarray(values["xt"]) == values["mask_id"]
    mask = jnp.full(is_masked.shape, values["mask_id"], jnp.int32)
    p = jnp.exp(numerics.log_prob(at_least_float32(jnp.asarray(values["logits_x0"])), mask))
    # A network that broke down is no question of the mask.
    return jnp.where(is_masked & (p > 0), p, 0.0)


# More than 0 by less than rounding, as where a program makes a logit -1e6 or so.
NO_MASK = AllowedRange(
    0,
    1e-7,
    "this bound is for a network that forbids the mask; pass d3pm.forbid(logits_x0, mask_id)",
    measure=Measure("p(x_0 = mask_id) of logits_x0", _measure_mask, like="xt"),
)


@declared(schedule=SHARE, x0=CATEGORIES, xt=CATEGORIES, time=TIME, mask_id=CATEGORY, logits_x0=NO_MASK)
def absorbing_nelbo(
    schedule: Schedule,
    logits_x0: Float[Array, "*S K"],
    x0: Int[Array, "*S"],
    xt: Int[Array, "*S"],
    time: Float[Array, "..."],
    mask_id: int,
) -> Float[Array, "*S"]:
    """-alpha' / (1 - alpha) times -log p(x_0 | x_t) where x_t is the mask, else 0 (Shi et al. 2024).

    This is what T times `posterior_kl`, at t = time T, comes to as T grows. The mask is an extra symbol that
    the network forbids (`heads.forbid`): otherwise the limit has another term.

    Args:
        schedule: of the process.
        logits_x0: the network's unnormalised log p(x_0 | x_t), -inf at mask_id.
        x0, xt: categories.
        time: in (0, 1]; its shape is a prefix of that of x0.
        mask_id: which category the mask is.

    Returns:
        Nats per unit of time, +inf where the prediction rules x_0 out.

    Raises:
        ValueError: the logits do not forbid the mask where x_t is it; under `jit` the loss is NaN there.
    """
    level, rate = _level_and_rate(schedule, time)
    ce = -numerics.log_prob(at_least_float32(logits_x0), x0)  # [*S]

    # -alpha' / (1 - alpha). At time 0, 1 - alpha is 0, but nothing is masked: the weight then counts for no
    # element, and any finite number will do.
    weight = rate / jnp.where(level.beta > 0, level.beta, 1.0)
    weighted_ce = expand_trailing(weight, x0.shape) * ce  # [*S]
    return jnp.where(xt == mask_id, weighted_ce, 0.0)


@declared(schedule=SHARE, x0=CATEGORIES, xt=CATEGORIES, time=TIME)
def uniform_nelbo(
    schedule: Schedule,
    logits_x0: Float[Array, "*S K"],
    x0: Int[Array, "*S"],
    xt: Int[Array, "*S"],
    time: Float[Array, "..."],
) -> Float[Array, "*S"]:
    """-alpha' / (K alpha) sum_j (r_j log(r_j / s_j) - r_j + s_j): the uniform process (Schiff et al. 2024).

    r_j = q(x_t = j | x_0) / q(x_t | x_0), and s_j the same of the prediction. The limit of T `posterior_kl`.

    Args:
        schedule: of the process.
        logits_x0: the network's unnormalised log p(x_0 | x_t); no category is forbidden.
        x0, xt: categories.
        time: in [0, 1]; its shape is a prefix of that of x0. At alpha = 0 the loss is 0.

    Returns:
        Nats per unit of time; 0 for an impossible pair (x_0, x_t), +inf where the prediction rules x_t out.
    """
    K = logits_x0.shape[-1]
    level, rate = _level_and_rate(schedule, time)
    log_alpha = expand_trailing(jnp.log(level.alpha), x0.shape)[..., None]  # [.., 1]
    log_beta = expand_trailing(jnp.log(level.beta), x0.shape)[..., None]  # [.., 1]

    # r is of the law that is certain of x_0, s of the predicted one, both [*S, K].
    log_p0 = jnp.where(is_category(x0, K), 0.0, -jnp.inf)
    log_r, at_xt = _relative_to_xt(log_alpha, log_beta, log_p0.astype(at_least_float32(logits_x0).dtype), xt)
    log_p = numerics.log_normalize(at_least_float32(logits_x0))
    log_s, predicted_at_xt = _relative_to_xt(log_alpha, log_beta, log_p, xt)

    # At alpha = 0 nothing of x_0 is left to be learnt, and 1 / alpha is not to make a NaN of it.
    left = level.alpha > 0
    weight = jnp.where(left, rate / jnp.where(left, level.alpha, 1.0), 0.0) / K
    loss = jnp.where(predicted_at_xt == -jnp.inf, jnp.inf, numerics.kl(log_r, log_s))
    weight = jnp.broadcast_to(expand_trailing(weight, x0.shape), x0.shape)
    return jnp.where((at_xt == -jnp.inf) | (weight == 0), 0.0, weight * loss)


def _level_and_rate(schedule: Schedule, time: Array) -> tuple[Level, Array]:
    """Returns the level, and -alpha', the derivative of 1 - alpha by time."""
    level, derivative = jax.jvp(schedule, (time,), (jnp.ones_like(time),))
    return level, derivative.beta


def _relative_to_xt(log_alpha: Array, log_beta: Array, log_p: Array, xt: Array) -> tuple[Array, Array]:
    """Returns log(q_j / q_xt) and log(K q_xt) of q = alpha p + beta / K, [*S, K] and [*S]."""
    K = log_p.shape[-1]
    pushed = numerics.log_add(*jnp.broadcast_arrays(jnp.log(K) + log_alpha + log_p, log_beta))  # log(K q)
    at_xt = jnp.take_along_axis(pushed, xt[..., None].astype(jnp.int32), axis=-1)
    return pushed - jnp.where(at_xt == -jnp.inf, 0.0, at_xt), at_xt[..., 0]
