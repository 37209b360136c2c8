"""Says what noise is to a sampler: uniforms of [0, 1) for each element, by row and stream."""

from collections.abc import Callable

from torch import Tensor

# What is drawn, which places come first, and the phases of events. A corrector has two streams for each of
# its moves, from CORRECTOR on. Steering has two behind all of these: the x_0 that is scored, and which
# particles go on.
DRAW = 0
ORDER = 1
PHASE = 2
CORRECTOR = 3
CLEAN = 2**30
SELECT = 2**30 + 1

Noise = Callable[[int], Tensor]  # t -> uniforms [B, *S]
Streams = Callable[[int, int], Tensor]  # row, stream -> uniforms [B, *S]
