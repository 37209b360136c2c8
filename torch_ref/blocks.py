"""Lays examples out for block diffusion: blocks of places come one after the other (BD3-LM)."""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from torch_ref.checks import declared


class Layout(NamedTuple):
    """Says what the n places of a network are."""

    attended: Tensor  # bool [n, n]  which places each may see
    places: Tensor  # [n]  of the example


@declared(length="count", block="count")
def block_layout(length: int, block: int) -> Layout:
    """Lays out [x_t; x_0], place by place.

    Arguments as in `d3pm_jax.blocks.block_layout`.
    """
    if length % block:
        raise ValueError(f"block = {block} does not divide length = {length}: take a block that does")
    attended = torch.zeros(2 * length, 2 * length, dtype=torch.bool)
    for i in range(length):
        start = i // block * block
        attended[i, start : start + block] = True  # the noised block
        attended[i, length : length + start] = True  # clean blocks before it
        attended[length + i, length : length + start + block] = True  # of x_0, its own too
    return Layout(attended, torch.arange(length).repeat(2))


@declared(time="B share", num_blocks="count")
def block_times(time: Tensor, num_blocks: int) -> Tensor:
    """Returns time + b / n in (0, 1], modulo 1.

    Arguments as in `d3pm_jax.blocks.block_times`.
    """
    spread = time[:, None] + torch.arange(num_blocks) / num_blocks
    return torch.where(spread > 1, spread - 1, torch.where(spread > 0, spread, 1.0))


@declared(block="count")
def fill_blocks(network: Callable[..., Tensor], block: int) -> Callable[..., Tensor]:
    """Makes a network of 2 L places one of L, which predicts a block from the blocks before it.

    Arguments as in `d3pm_jax.blocks.fill_blocks`.
    """

    def predict(x: Tensor, *args: Any, **inputs: Any) -> Tensor:
        layout = block_layout(x.shape[1], block)
        return network(torch.cat([x, x], dim=1), *args, layout=layout, **inputs)[:, : x.shape[1]]

    return predict
