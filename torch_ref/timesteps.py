"""Which steps to train on: from uniform noise to t in 1..T."""

import torch
from torch import Tensor


def uniform(u: Tensor, T: int) -> Tensor:
    """t = floor(u T) + 1; where rounding takes u T to T, 1."""
    return torch.floor(u * T).long() % T + 1


def low_discrepancy(u: Tensor, B: int, T: int) -> Tensor:
    """t_i = floor(((u + i / B) mod 1) T) + 1."""
    return uniform((u + torch.arange(B) / B) % 1.0, T)
