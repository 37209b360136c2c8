"""Holds cross entropies of x_0, per element and in nats: the auxiliary losses."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from d3pm_jax import numerics
from d3pm_jax.beliefs import Belief, to_denoiser
from d3pm_jax.checks import CATEGORIES, CATEGORY, SHARE, declared
from d3pm_jax.processes import Process, for_each_place, for_each_size, promote


@declared(x0=CATEGORIES)
@for_each_place
def cross_entropy(
    process: Process, logits_x0: Float[Array, "*S K"], x0: Int[Array, "*S"]
) -> Float[Array, "*S"]:
    """-log p(x_0 | x_t), the auxiliary loss of D3PM eq. 5.

    Args:
        process: the forward process, whose K the logits must have.
        logits_x0: the network's unnormalised log p(x_0 | x_t).
        x0: categories.

    Returns:
        Nats, +inf where the prediction rules x_0 out.
    """
    return -numerics.log_prob(promote(process, logits_x0), x0)


@declared(x0=CATEGORIES, smoothing=SHARE, mask_id=CATEGORY)
@for_each_size
def smoothed_cross_entropy(
    process: Process,
    logits_x0: Float[Array, "*S K"],
    x0: Int[Array, "*S"],
    smoothing: float,
    mask_id: int | None = None,
) -> Float[Array, "*S"]:
    """-sum_k r_k log p_k with r = (1 - smoothing) onehot(x_0) + smoothing / K: label smoothing.

    Args:
        process: the forward process, whose K the logits must have.
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
    log_p = numerics.log_normalize(promote(process, logits_x0))
    num_allowed = process.K - (mask_id is not None)
    smoothed = jnp.full(process.K, smoothing / num_allowed, log_p.dtype)  # [K]
    if mask_id is not None:
        smoothed = smoothed.at[mask_id].set(0.0)
    onehot = jax.nn.one_hot(x0, process.K, dtype=log_p.dtype)  # [*S, K]
    target = (1 - smoothing) * onehot + jnp.broadcast_to(smoothed, onehot.shape)

    # 0 (-inf) = 0: a category without mass costs nothing, forbidden or not.
    return -jnp.sum(jnp.where(target > 0, target * log_p, 0.0), axis=-1)


def denoiser_cross_entropy(
    process: Process, logits_x0: Array, x0: Array, xt: Array, t: Array, belief: Belief
) -> Array:
    """Computes `cross_entropy` of the denoiser: of `to_denoiser` for "leave_one_out", else of the logits."""
    if belief == "leave_one_out":
        logits_x0 = to_denoiser(process, logits_x0, xt, t)
    return cross_entropy(process, logits_x0, x0)
