"""Lays examples out for block diffusion: blocks of places come one after the other (BD3-LM).

A network of masks is given x_t and x_0 beside each other, 2 L places, and predicts x_0 at the first L of
them, each block from its own masks and from the clean blocks before it: all blocks in one call (Arriola et
al. 2025, arXiv 2503.09573).
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from d3pm_jax.checks import TIME, Count, declared


class Layout(NamedTuple):
    """Says what the n places of a network are, where these are not the places of an example one by one."""

    attended: Bool[Array, "n n"]  # row i: the places that place i may see
    places: Int[Array, " n"]  # which place of the example each is


@declared()
def block_layout(length: Count, block: Count) -> Layout:
    """Lays out [x_t; x_0]: a place of x_t sees its own block of x_t and all blocks of x_0 before it.

    A place of x_0 sees its own block of x_0 and all blocks before it, and none of x_t (equation 6 of the
    paper).

    Args:
        length: L, places of an example.
        block: places of a block, which divides the length.

    Returns:
        The layout of 2 L places.

    Raises:
        ValueError: the block does not divide the length.
    """
    if length % block:
        raise ValueError(f"block = {block} does not divide length = {length}: take a block that does")
    with jax.ensure_compile_time_eval():  # a network compares them with its own places
        places = jnp.tile(jnp.arange(length, dtype=jnp.int32), 2)  # [2 L]
    is_clean = jnp.arange(2 * length, dtype=jnp.int32) >= length  # [2 L]
    block_of_place = places // block
    is_before = block_of_place[None] < block_of_place[:, None]  # [2 L, 2 L]
    in_own_block = (block_of_place[None] == block_of_place[:, None]) & (is_clean[None] == is_clean[:, None])
    return Layout(in_own_block | (is_clean[None] & is_before), places)


@declared(time=TIME)
def block_times(time: Float[Array, " B"], num_blocks: Count) -> Float[Array, "B num_blocks"]:
    """Spreads times over the blocks of an example: time + b / n of block b of n, less 1 if that is above 1.

    Each is uniform in (0, 1] where the time of the example is, so that the mean of a sum over blocks is that
    of times of their own, and varies less. The first block has the time of the example.

    Args:
        time: of each example, in (0, 1].
        num_blocks: n.

    Returns:
        Times in (0, 1].
    """
    spread = time[:, None] + jnp.arange(num_blocks)[None] / num_blocks  # [B, num_blocks]
    return spread - (jnp.ceil(spread) - 1.0)


@declared()
def fill_blocks(network: Callable[..., Any], block: Count) -> Callable[..., Any]:
    """Makes a network of 2 L places one of L, which predicts a block from the blocks before it.

    It is what samplers and the chain rule ask when they go from left to right: the blocks before that of a
    place are clean, and what is in those after it is not seen.

    Args:
        network: (x, ..., layout=Layout) -> logits [B, 2 L, K] of x [B, 2 L], or a `Projection` of them.
        block: places of a block, which divides L.

    Returns:
        (x, ...) -> logits [B, L, K] of x [B, L], with all other arguments as they are: what the network wants
        for each of its 2 L places, such as a weight, is given for 2 L, by `places` of the layout.
    """

    # A `Projection` stands for logits where the network gives one.
    def predict(x: Int[Array, " B L"], *args: object, **inputs: object) -> Any:
        length = x.shape[1]
        layout = block_layout(length, block)
        return network(jnp.concatenate([x, x], axis=1), *args, layout=layout, **inputs)[:, :length]

    return predict
