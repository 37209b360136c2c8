"""Says what noise is: uniforms of [0, 1) for each element, by step, and for chains also by stream."""

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from torch_ref.checks import declared

DRAW = 0  # the stream that x_s is drawn from

Noise = Callable[[int], Tensor]  # t -> uniforms [B, *S]
Streams = Callable[[int, int], Tensor]  # row, stream -> uniforms [B, *S]; a row of an ancestral chain is t


@declared(index="B index")
def per_example(key: int, index: Tensor, shape: tuple[int, ...]) -> Callable[..., Tensor]:
    """Makes a function (row, stream=0) -> u [B, *shape] of values that (key, index_b, row, stream) decide."""

    def draw(row: int, stream: int = DRAW) -> Tensor:
        u = torch.empty(len(index), *shape)
        for b, number in enumerate(index.tolist()):
            seed = np.random.SeedSequence((key, number, row, stream)).generate_state(1, np.uint64)
            generator = torch.Generator().manual_seed(int(seed[0]))
            u[b] = torch.rand(shape, generator=generator)
        return u

    return draw
