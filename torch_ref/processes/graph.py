"""Processes along a graph of categories: nearest neighbours of embeddings, random walks, any rate matrix."""

import torch
from torch import Tensor

from torch_ref.processes.base import Numbers, Process, as_float64
from torch_ref.processes.dense import dense


def knn_graph(embeddings: Numbers, k: int) -> Tensor:
    """G + G^T + 2 I, rows and columns divided by their sums in turn; G as in `_nearest`."""
    G = _nearest(embeddings, k)
    W = G + G.T + 2 * torch.eye(len(G), dtype=torch.float64)
    for _ in range(1000):
        W = W / W.sum(dim=1, keepdim=True)
        W = W / W.sum(dim=0, keepdim=True)
    return W


def knn_rate(embeddings: Numbers, k: int) -> Tensor:
    """A - diag(A 1) with A = (G + G^T) / (2 k)."""
    G = _nearest(embeddings, k)
    A = (G + G.T) / (2 * k)
    return A - torch.diag(A.sum(dim=1))


def random_walk(beta: Numbers, W: Numbers, prior: Numbers | None = None) -> Process:
    """Q = (1 - beta) I + beta W; the prior is by default the mean row of Qbar[T]."""
    beta, W = as_float64(beta)[:, None, None], as_float64(W)
    return dense((1 - beta) * torch.eye(len(W), dtype=torch.float64) + beta * W, prior)


def from_rate(R: Numbers, durations: Numbers) -> Process:
    """Q = exp(s R)."""
    return dense(torch.linalg.matrix_exp(as_float64(durations)[:, None, None] * as_float64(R)))


def _nearest(embeddings: Numbers, k: int) -> Tensor:
    """G[i, j] = 1 where j is one of the k nearest to i; the lower index first among equals."""
    x = as_float64(embeddings)
    G = torch.zeros(len(x), len(x), dtype=torch.float64)
    for i in range(len(x)):
        others = [j for j in range(len(x)) if j != i]
        for j in sorted(others, key=lambda j: (((x[i] - x[j]) ** 2).sum().item(), j))[:k]:
            G[i, j] = 1
    return G
