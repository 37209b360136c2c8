"""Says what a network is to a sampler."""

from collections.abc import Callable

from torch import Tensor

Denoise = Callable[[Tensor, Tensor], Tensor]  # xt [B, *S], time [B] -> logits of x_0 [B, *S, K]
