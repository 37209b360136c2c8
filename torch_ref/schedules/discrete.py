"""Makes noise schedules beta_t, float64 [T]; entry i holds beta at t = i + 1."""

import math

import torch
from torch import Tensor

from torch_ref.checks import declared


@declared(T="count", start="finite", stop="finite")
def linear(T: int, start: float = 1e-4, stop: float = 0.02) -> Tensor:
    """beta_t in equal steps from start to stop; a single step gets stop.

    Arguments as in `d3pm_jax.linear`.
    """
    if T == 1:
        return torch.tensor([stop], dtype=torch.float64)
    return torch.linspace(start, stop, T, dtype=torch.float64)


@declared(T="count", offset="from_0", largest="probability")
def cosine(T: int, offset: float = 0.008, largest: float = 0.999) -> Tensor:
    """beta_t = min(1 - f(t/T) / f((t-1)/T), largest), f(u) = cos((u + offset) / (1 + offset) pi / 2).

    Arguments as in `d3pm_jax.cosine`.
    """
    u = torch.arange(T + 1, dtype=torch.float64) / T
    f = torch.cos((u + offset) / (1 + offset) * math.pi / 2)
    return torch.clamp(1 - f[1:] / f[:-1], max=largest)


@declared(T="count", offset="from_0", smallest="noise")
def cosine_squared(T: int, offset: float = 0.008, smallest: float = 0.001) -> Tensor:
    """alpha_t^2 = max(f(t/T) / f((t-1)/T), smallest), f(u) = cos((u + offset) / (1 + offset) pi / 2)^2.

    Arguments as in `d3pm_jax.cosine_squared`.
    """
    u = torch.arange(T + 1, dtype=torch.float64) / T
    f = torch.cos((u + offset) / (1 + offset) * math.pi / 2) ** 2
    return 1 - torch.sqrt(torch.clamp(f[1:] / f[:-1], min=smallest))


@declared(T="count", scale="from_1")
def reciprocal(T: int, scale: float = 1.0) -> Tensor:
    """beta_t = 1 / (scale T - t + 1).

    Arguments as in `d3pm_jax.reciprocal`.
    """
    t = torch.arange(1, T + 1, dtype=torch.float64)
    return 1 / (scale * T - t + 1)


@declared(T="count", eps="noise")
def log_linear(T: int, eps: float = 1e-3) -> Tensor:
    """alpha_bar_t = exp(-sigma_t), sigma_t = -log(1 - (1 - eps) t / T).

    Arguments as in `d3pm_jax.log_linear`.
    """
    sigma = -torch.log1p(-(1 - eps) * torch.arange(T + 1, dtype=torch.float64) / T)
    return from_alpha_bar(torch.exp(-sigma))


@declared(T="count", power="positive")
def polynomial(T: int, power: float = 2.0) -> Tensor:
    """alpha_bar_t = 1 - (t / T)^power.

    Arguments as in `d3pm_jax.polynomial`.
    """
    return from_alpha_bar(1 - (torch.arange(T + 1, dtype=torch.float64) / T) ** power)


@declared(alpha_bar="n share")
def from_alpha_bar(alpha_bar: Tensor) -> Tensor:
    """beta_t = 1 - alpha_bar_t / alpha_bar_{t-1}.

    Arguments as in `d3pm_jax.from_alpha_bar`.
    """
    return 1 - alpha_bar[1:] / alpha_bar[:-1]
