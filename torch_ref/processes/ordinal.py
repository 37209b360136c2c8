"""Builds processes of ordinal data, which move to near values."""

import torch
from torch import Tensor

from torch_ref.checks import declared
from torch_ref.processes.base import Numbers, Process, as_float64
from torch_ref.processes.dense import dense


@declared(K="two_or_more", bands="count")
def gaussian(beta: Numbers, K: int, bands: int | None = None) -> Process:
    """w_{i-j} / sum_{n=-bands}^{bands} w_n, w_n = exp(-4 n^2 / ((K-1)^2 beta)), for 0 < |i-j| <= bands.

    Arguments as in `d3pm_jax.gaussian`.
    """
    if bands is None:
        bands = K - 1
    n = torch.arange(-bands, bands + 1, dtype=torch.float64)
    w = torch.exp(-4 * n**2 / ((K - 1) ** 2 * as_float64(beta)[:, None]))
    return _by_distance(w[:, bands:] / w.sum(-1, keepdim=True), K)


@declared(K="two_or_more", bands="count")
def banded(beta: Numbers, K: int, bands: int) -> Process:
    """beta / K for 0 < |i-j| <= bands.

    Arguments as in `d3pm_jax.banded`.
    """
    return _by_distance((as_float64(beta) / K)[:, None].expand(-1, bands + 1), K)


def _by_distance(p: Tensor, K: int) -> Process:
    """Off the diagonal Q[t, i, j] = p[t, |i-j|], p being [T, bands + 1], and rows that sum to 1."""
    Q = torch.zeros(len(p), K, K, dtype=torch.float64)
    for i in range(K):
        for j in range(K):
            if 0 < abs(i - j) < p.shape[1]:
                Q[:, i, j] = p[:, abs(i - j)]
    return dense(Q + torch.diag_embed(1 - Q.sum(-1)), prior=torch.full((K,), 1 / K, dtype=torch.float64))
