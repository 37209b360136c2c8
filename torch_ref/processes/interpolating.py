"""Builds a process that moves to a mask and on to tokens (GIDD)."""

import dataclasses

import torch

from torch_ref.checks import declared
from torch_ref.processes.base import Process, from_matrices


@declared(T="count", K="two_or_more", mask_id="categories", p_uniform="below_1", gamma="up_to_2")
def interpolating(T: int, K: int, mask_id: int, p_uniform: float, gamma: float = 1.0) -> Process:
    """Q_t = alpha_t / alpha_{t-1} I + 1 (b_t - alpha_t / alpha_{t-1} b_{t-1})^T, b of Qbar.

    Arguments as in `d3pm_jax.interpolating`.
    """
    r = torch.arange(T + 1, dtype=torch.float64) / T
    c = 2**gamma * p_uniform / (1 - p_uniform) * (r * (1 - r)) ** (gamma / 2)
    alpha = (1 - r) / (1 + c)
    b = (c / (K - 1))[:, None].repeat(1, K)  # [T + 1, K]
    b[:, mask_id] = r
    b = b / (1 + c)[:, None]
    kept = (alpha[1:] / alpha[:-1])[:, None]
    moved = b[1:] - kept * b[:-1]
    Q = kept[..., None] * torch.eye(K, dtype=torch.float64) + moved[:, None]
    return dataclasses.replace(from_matrices(Q, torch.eye(K, dtype=torch.float64)[mask_id]), own_last=True)
