"""Says what a network is to a chain and to a bound."""

from collections.abc import Callable

from torch import Tensor

Network = Callable[[Tensor, Tensor], Tensor]  # xt [B, *S], time [B] -> logits of x_0 [B, *S, K]
