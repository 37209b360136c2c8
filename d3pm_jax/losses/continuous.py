"""Computes the loss in the limit of infinitely many steps: absorbing and uniform have a closed form.

Time runs from 0, clean data, to 1. A schedule says how much of x_0 is left (`schedules.continuous`); it falls
to 0, so that neither a prior nor a reconstruction term remains: the bound on -log p(x_0) is the mean over
time, uniform in (0, 1], and over x_t of the losses below, summed over elements.
"""

from typing import Any

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
from d3pm_jax.losses.limits import (
    level_and_rate,
    ratios_of_certain,
    relative_to_xt,
    weigh_masked,
    weigh_uniform,
)
from d3pm_jax.numerics.logspace import at_least_float32
from d3pm_jax.processes.tables import expand_trailing
from d3pm_jax.schedules.continuous import Schedule


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


AFTER_0 = AllowedRange(
    0, 1, "time runs from 0 (clean data) to 1, and 0 has an infinite weight", open_low=True
)

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
        time: in [0, 1]; its shape is a prefix of that of x0. At 0 no place is masked, and the loss is 0.
        mask_id: which category the mask is.

    Returns:
        Nats per unit of time, +inf where the prediction rules x_0 out.

    Raises:
        ValueError: the logits do not forbid the mask where x_t is it; under `jit` the loss is NaN there.
    """
    ce = -numerics.log_prob(at_least_float32(logits_x0), x0)  # [*S]
    return weigh_masked(schedule, ce, xt, time, mask_id)


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
    # r is of the law that is certain of x_0, s of the predicted one, both [*S, K].
    log_p = numerics.log_normalize(at_least_float32(logits_x0))
    log_r, at_xt = ratios_of_certain(schedule, x0, xt, time, like=log_p)
    log_s, predicted_at_xt = relative_to_xt(schedule(time), log_p, xt)
    loss = jnp.where(predicted_at_xt == -jnp.inf, jnp.inf, numerics.kl(log_r, log_s))
    return weigh_uniform(schedule, loss, at_xt, time, logits_x0.shape[-1])


@declared(schedule=SHARE, x0=CATEGORIES, xt=CATEGORIES, time=AFTER_0)
def uniform_generalized_kl(
    schedule: Schedule,
    logits_x0: Float[Array, "*S K"],
    x0: Int[Array, "*S"],
    xt: Int[Array, "*S"],
    time: Float[Array, "..."],
) -> Float[Array, "*S"]:
    """-alpha' / (1 - alpha) times 1 - p(x_0) where x_t is x_0, else -log p(x_0) - p(x_t).

    The generalised KL divergence of discrete flow matching with a source of uniform noise (Gat et al. 2024,
    arXiv 2407.15595; Shaul et al. 2024, arXiv 2412.03487). Its mean is a bound as `uniform_nelbo` is, and not
    a tight one: with the exact p(x_0 | x_t) it still exceeds -log p(x_0). It is the bound of jumps that go to
    x_0 at once, and x_t does not say whether they have happened.

    Args:
        schedule: of the process.
        logits_x0: the network's unnormalised log p(x_0 | x_t); no category is forbidden.
        x0, xt: categories.
        time: in (0, 1]; its shape is a prefix of that of x0.

    Returns:
        Nats per unit of time, +inf where the prediction rules out an x_0 that x_t is not.
    """
    level, rate = level_and_rate(schedule, time)
    log_p = numerics.log_normalize(at_least_float32(logits_x0))
    log_p_x0 = jnp.take_along_axis(log_p, x0[..., None], axis=-1)[..., 0]
    log_p_xt = jnp.take_along_axis(log_p, xt[..., None], axis=-1)[..., 0]
    loss = jnp.where(xt == x0, -jnp.expm1(log_p_xt), -log_p_x0 - jnp.exp(log_p_xt))  # [*S]

    # Where rounding leaves no noise the weight is infinite.
    weight = jnp.where(level.beta > 0, rate / jnp.where(level.beta > 0, level.beta, 1.0), jnp.inf)
    weight = jnp.broadcast_to(expand_trailing(weight, x0.shape), x0.shape)
    is_0 = loss == 0
    return jnp.where(is_0, 0.0, jnp.where(is_0, 1.0, weight) * loss)
