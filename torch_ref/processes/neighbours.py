"""Finds the nearest neighbours of embeddings, weighed by rank or by distance."""

from collections.abc import Callable

import torch
from torch import Tensor

from torch_ref.checks import declared
from torch_ref.processes.base import Numbers, as_float64

Weights = Callable[[Tensor], Tensor]  # distances [K, k], nearest first, to weights [K, k]


@declared(embeddings="K D finite")
def unit_rows(embeddings: Numbers) -> Tensor:
    """Divides each row by its norm."""
    x = as_float64(embeddings)
    return x / (x**2).sum(dim=1, keepdim=True).sqrt()


@declared(distances="N k from_0")
def rank_weights(distances: Numbers) -> Tensor:
    """k exp(-2 r^2 / k), divided by their sum over the ranks r = 0..k - 1, for each row."""
    d = as_float64(distances)
    k = d.shape[1]
    w = torch.exp(-2 * torch.arange(k, dtype=torch.float64) ** 2 / k)
    return (k * w / w.sum()).expand(d.shape)


@declared(distances="N k from_0", scale="positive")
def gaussian_weights(distances: Numbers, scale: float) -> Tensor:
    """k exp(-d^2 / (2 scale^2)), divided by their sum over the row."""
    d = as_float64(distances)
    w = torch.exp(-(d**2) / (2 * scale**2))
    return d.shape[1] * w / w.sum(dim=1, keepdim=True)


def adjacency(embeddings: Numbers, k: int, weights: Weights | None) -> Tensor:
    """G[i, j] = weight of j where j is one of the k nearest to i; the lower index first among equals."""
    x = as_float64(embeddings)
    G = torch.zeros(len(x), len(x), dtype=torch.float64)
    for i in range(len(x)):
        distance = ((x - x[i]) ** 2).sum(dim=1).sqrt()
        others = [j for j in range(len(x)) if j != i]
        nearest = sorted(others, key=lambda j: (distance[j].item(), j))[:k]
        if weights is None:
            G[i, nearest] = 1.0
        else:
            G[i, nearest] = weights(distance[nearest][None])[0]
    return G
