"""Noise schedules beta_t, float64 [T]; entry i holds beta at t = i + 1."""

import math

import torch
from torch import Tensor


def linear(T: int, start: float = 1e-4, stop: float = 0.02) -> Tensor:
    """beta_t in equal steps from start to stop; a single step gets stop."""
    if T == 1:
        return torch.tensor([stop], dtype=torch.float64)
    return torch.linspace(start, stop, T, dtype=torch.float64)


def cosine(T: int, offset: float = 0.008, largest: float = 0.999) -> Tensor:
    """beta_t = min(1 - f(t/T) / f((t-1)/T), largest), f(u) = cos((u + offset) / (1 + offset) pi / 2)."""
    u = torch.arange(T + 1, dtype=torch.float64) / T
    f = torch.cos((u + offset) / (1 + offset) * math.pi / 2)
    return torch.clamp(1 - f[1:] / f[:-1], max=largest)


def reciprocal(T: int) -> Tensor:
    """beta_t = 1 / (T - t + 1)."""
    t = torch.arange(1, T + 1, dtype=torch.float64)
    return 1 / (T - t + 1)
