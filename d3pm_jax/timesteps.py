"""Which steps to train on: from uniform noise to t in 1..T."""

import jax.numpy as jnp
from jaxtyping import Array, Float, Int


def uniform(u: Float[Array, " B"], T: int) -> Int[Array, " B"]:
    """t = floor(u T) + 1: independent uniform steps.

    Args:
        u: uniform noise in [0, 1), one per example.
        T: number of steps, below 2^23 (the grid of a float32 uniform).

    Returns:
        int32 in 1..T.
    """
    return jnp.floor(u * T).astype(jnp.int32) % T + 1  # u T can round up to T


def low_discrepancy(u: Float[Array, ""], B: int, T: int) -> Int[Array, " B"]:
    """Steps spread evenly over 1..T by one shared offset: t_i = floor(((u + i / B) mod 1) T) + 1.

    Each t_i alone is uniform, so the mean loss is unbiased; together they cover 1..T, so it varies less
    (Kingma et al. 2021, appendix I.1).

    Args:
        u: one uniform in [0, 1).
        B: batch size.
        T: number of steps.

    Returns:
        int32 [B] in 1..T.
    """
    return uniform((u + jnp.arange(B) / B) % 1.0, T)
