"""Selects particles by their weights, where chains are steered by a score."""

import torch
from torch import Tensor

from torch_ref.checks import declared


@declared(log_weights="N P floats", u="N noise")
def resample(log_weights: Tensor, u: Tensor) -> Tensor:
    """Draws particle j of P at (j + u) / P of the sum of all weights; -1 where there is none."""
    N, P = log_weights.shape
    log_weights = log_weights.to(torch.promote_types(log_weights.dtype, torch.float32))
    ancestors = torch.full((N, P), -1)
    for i in range(N):
        top = log_weights[i].max()
        if not torch.isfinite(top):
            continue
        ends = (log_weights[i] - top).exp().cumsum(0)
        scaled = ends * (P / ends[-1])
        scaled[ends == ends[-1]] = P
        for j in range(P):
            # j + u < end, where whole numbers are compared first.
            is_before = scaled.floor() + (u[i] < scaled - scaled.floor()) > j
            ancestors[i, j] = is_before.int().argmax()
    return ancestors


@declared(log_weights="N P floats")
def effective_size(log_weights: Tensor) -> Tensor:
    """(sum w)^2 / sum w^2; 0 where there are no weights."""
    log_weights = log_weights.to(torch.promote_types(log_weights.dtype, torch.float32))
    top = log_weights.max(dim=-1, keepdim=True).values
    weights = (log_weights - top).exp()
    size = weights.sum(dim=-1) ** 2 / (weights**2).sum(dim=-1)
    return torch.where(torch.isfinite(top[:, 0]), size, 0.0)
