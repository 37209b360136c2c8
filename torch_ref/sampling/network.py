"""Says what a network is to a chain and to a bound."""

from collections.abc import Callable
from typing import Literal

from torch import Tensor

TimeUnit = Literal["steps", "unit"]  # 1..T, or that divided by T
Network = Callable[[Tensor, Tensor], Tensor]  # xt [B, *S], time [B] -> logits of x_0 [B, *S, K]
