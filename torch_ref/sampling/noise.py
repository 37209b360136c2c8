"""Says what noise is: uniforms of [0, 1) for each element, by step, and for chains also by stream."""

from collections.abc import Callable

from torch import Tensor

DRAW = 0  # the stream that x_s is drawn from

Noise = Callable[[int], Tensor]  # t -> uniforms [B, *S]
Streams = Callable[[int, int], Tensor]  # row, stream -> uniforms [B, *S]; a row of an ancestral chain is t
