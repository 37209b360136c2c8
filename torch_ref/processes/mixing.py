"""Builds processes that keep x_0 or draw anew: Q = (1 - beta) I + beta 1 pi^T."""

import dataclasses

import torch

from torch_ref.checks import declared
from torch_ref.processes.base import Numbers, Process, as_float64, from_matrices


def marginal(beta: Numbers, pi: Numbers) -> Process:
    """Q = (1 - beta) I + beta 1 pi^T.

    Arguments as in `d3pm_jax.marginal`.
    """
    beta = as_float64(beta)
    pi = as_float64(pi)
    Q = (1 - beta)[:, None, None] * torch.eye(len(pi), dtype=torch.float64) + beta[:, None, None] * pi
    return dataclasses.replace(from_matrices(Q, pi), own_last=True)


@declared(K="two_or_more")
def uniform(beta: Numbers, K: int) -> Process:
    """Q = (1 - beta) I + beta / K.

    Arguments as in `d3pm_jax.uniform`.
    """
    return marginal(beta, torch.full((K,), 1 / K, dtype=torch.float64))


@declared(K="two_or_more", mask_id="categories")
def absorbing(beta: Numbers, K: int, mask_id: int) -> Process:
    """Q = (1 - beta) I + beta 1 e_mask^T.

    Arguments as in `d3pm_jax.absorbing`.
    """
    return marginal(beta, torch.eye(K, dtype=torch.float64)[mask_id])
