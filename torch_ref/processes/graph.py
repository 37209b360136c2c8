"""Builds processes along a graph of categories: neighbours of embeddings, random walks, any rate matrix."""

import torch
from torch import Tensor

from torch_ref.checks import declared
from torch_ref.processes.base import Numbers, Process, as_float64
from torch_ref.processes.dense import dense
from torch_ref.processes.neighbours import Weights, adjacency


@declared(embeddings="N D finite", k="count")
def knn_graph(embeddings: Numbers, k: int, weights: Weights | None = None) -> Tensor:
    """G + G^T + 2 I, rows and columns divided by their sums in turn; G as in `adjacency`.

    Arguments as in `d3pm_jax.knn_graph`.
    """
    G = adjacency(embeddings, k, weights)
    W = G + G.T + 2 * torch.eye(len(G), dtype=torch.float64)
    for _ in range(1000):
        W = W / W.sum(dim=1, keepdim=True)
        W = W / W.sum(dim=0, keepdim=True)
    return W


@declared(embeddings="N D finite", k="count")
def knn_rate(embeddings: Numbers, k: int, weights: Weights | None = None) -> Tensor:
    """A - diag(A 1) with A = (G + G^T) / (2 k).

    Arguments as in `d3pm_jax.knn_rate`.
    """
    G = adjacency(embeddings, k, weights)
    A = (G + G.T) / (2 * k)
    return A - torch.diag(A.sum(dim=1))


@declared(level_rates="n from_0")
def hierarchical_rate(level_rates: Numbers) -> Tensor:
    """level_rates[l] over the number of leaves in the other half, l the first bit that differs.

    Arguments as in `d3pm_jax.hierarchical_rate`.
    """
    rates = as_float64(level_rates)
    N = len(rates)
    leaves = [f"{i:0{N}b}" for i in range(2**N)]
    R = torch.zeros(2**N, 2**N, dtype=torch.float64)
    for i, a in enumerate(leaves):
        for j, b in enumerate(leaves):
            if i != j:
                l = next(l for l in range(N) if a[l] != b[l])  # the first bit that differs
                R[i, j] = rates[l] / 2 ** (N - 1 - l)
    return R - torch.diag(R.sum(dim=1))


def random_walk(beta: Numbers, W: Numbers, prior: Numbers | None = None) -> Process:
    """Q = (1 - beta) I + beta W; the prior is by default the mean row of Qbar[T].

    Arguments as in `d3pm_jax.random_walk`.
    """
    beta = as_float64(beta)[:, None, None]
    W = as_float64(W)
    return dense((1 - beta) * torch.eye(len(W), dtype=torch.float64) + beta * W, prior)


def from_rate(R: Numbers, durations: Numbers) -> Process:
    """Q = exp(s R).

    Arguments as in `d3pm_jax.from_rate`.
    """
    return dense(torch.linalg.matrix_exp(as_float64(durations)[:, None, None] * as_float64(R)))
