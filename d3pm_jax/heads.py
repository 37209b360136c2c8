"""From the output of a network to logits of x_0."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from d3pm_jax.checks import check_categories


def residual(output: Float[Array, "*S K"], xt: Int[Array, "*S"]) -> Float[Array, "*S K"]:
    """output + onehot(x_t): a network that says nothing predicts x_t itself (D3PM appendix B.2).

    Args:
        output: what the network returned.
        xt: the categories it was given.

    Returns:
        Logits of x_0, same type as output.
    """
    check_categories("xt", xt, output.shape[-1])
    return output + jax.nn.one_hot(xt.astype(jnp.int32), output.shape[-1], dtype=output.dtype)


def forbid(logits: Float[Array, "*S K"], mask_id: int) -> Float[Array, "*S K"]:
    """The logits with -inf at mask_id: for a mask that the data never contains.

    Args:
        logits: unnormalised log-probabilities of x_0.
        mask_id: the category that x_0 cannot be.

    Returns:
        Logits of the same shape.

    Raises:
        ValueError: mask_id is not one of the K categories.
    """
    K = logits.shape[-1]
    if not 0 <= mask_id < K:
        raise ValueError(f"mask_id = {mask_id} is outside 0..{K - 1}")
    is_mask = jnp.arange(K).reshape((1,) * (logits.ndim - 1) + (K,)) == mask_id
    return jnp.where(is_mask, -jnp.inf, logits)
