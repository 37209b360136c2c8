"""Chooses the steps to train on, from uniform noise to t in 1..T."""

from typing import NamedTuple

import torch
from torch import Tensor

from torch_ref import numerics
from torch_ref.checks import declared


@declared(u="B noise", T="count")
def uniform(u: Tensor, T: int) -> Tensor:
    """t = floor(u T) + 1; where rounding takes u T to T, 1."""
    wide_u = u.to(torch.promote_types(u.dtype, torch.float32))  # 16 bits do not count up to T
    return torch.floor(wide_u * T).long() % T + 1


@declared(u="noise", B="count", T="count")
def low_discrepancy(u: Tensor, B: int, T: int) -> Tensor:
    """t_i = floor(((u + i / B) mod 1) T) + 1.

    Arguments as in `d3pm_jax.low_discrepancy`.
    """
    return uniform((u + torch.arange(B) / B) % 1.0, T)


@declared(u="noise", B="count")
def antithetic(u: Tensor, B: int) -> Tensor:
    """time_i = 1 - ((u + i / B) mod 1), in (0, 1]."""
    return 1.0 - (u + torch.arange(B) / B) % 1.0


@declared(u="n B noise", T="count")
def stratified(u: Tensor, T: int) -> tuple[Tensor, Tensor]:
    """Cuts 1..T at floor(j T / n) into n parts; returns the t at u of the way through each, and its size."""
    n = len(u)
    parts = [range(j * T // n + 1, (j + 1) * T // n + 1) for j in range(n)]
    sizes = torch.tensor([len(part) for part in parts])
    wide_u = u.to(torch.promote_types(u.dtype, torch.float32))
    inside = torch.minimum(torch.floor(wide_u * sizes[:, None]).long(), sizes[:, None] - 1)
    return torch.stack([torch.tensor(part)[i] for part, i in zip(parts, inside, strict=True)]), sizes


class LossHistory(NamedTuple):
    """Holds of each step t, in entry t - 1, the running mean of kl^2 and how many examples it has had."""

    mean_square: Tensor
    counts: Tensor


def empty_history(T: int) -> LossHistory:
    """Returns the history before the first batch."""
    return LossHistory(torch.zeros(T), torch.zeros(T, dtype=torch.int64))


@declared(least_count="index", inner="positive", outer="from_0")
def probabilities(
    history: LossHistory, least_count: int = 10, inner: float = 1e-10, outer: float = 1e-4
) -> Tensor:
    """p_t ~ sqrt(mean_square + inner) + outer, p_1 = p_2; uniform until every count is above least_count."""
    weight = torch.sqrt(history.mean_square + inner) + outer
    if len(weight) > 1:
        weight[0] = weight[1]
    if not (history.counts > least_count).all():
        weight = torch.ones_like(weight)
    return weight / weight.sum()


@declared(u="B noise", p="T share")
def importance(u: Tensor, p: Tensor) -> tuple[Tensor, Tensor]:
    """Returns the first t with p_1 + ... + p_t > u, and its p_t."""
    index = numerics.categorical(p.log().expand(*u.shape, -1), u)
    return index + 1, p[index]


@declared(t="B steps", kl="B floats", decay="share")
def update(history: LossHistory, t: Tensor, kl: Tensor, decay: float = 0.9) -> LossHistory:
    """Decays the mean square of each t of the batch towards the mean of its kl^2, and counts it."""
    mean_square = history.mean_square.clone()
    counts = history.counts.clone()

    # Examples with an infinite loss would leave nothing of the mean: they are not counted.
    finite = kl.isfinite()
    t = t[finite]
    kl = kl[finite].to(torch.promote_types(kl.dtype, mean_square.dtype))
    for step in t.unique():
        kl_of_step = kl[t == step]
        mean_square[step - 1] = decay * mean_square[step - 1] + (1 - decay) * kl_of_step.square().mean()
        counts[step - 1] += len(kl_of_step)
    return LossHistory(mean_square, counts)
