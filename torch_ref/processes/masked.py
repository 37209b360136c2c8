"""Puts an absorbing mask on top of any process."""

import dataclasses

import torch

from torch_ref.processes.base import Numbers, Process, as_float64, from_matrices


def masked(inner: Process, gamma: Numbers) -> Process:
    """Q = (1 - gamma) Q_inner, and gamma to one more category, the mask, which keeps itself.

    Arguments as in `d3pm_jax.masked`.
    """
    gamma = as_float64(gamma)
    Q = torch.zeros(inner.T, inner.K + 1, inner.K + 1, dtype=torch.float64)
    Q[:, :-1, :-1] = (1 - gamma)[:, None, None] * inner.Q64[1:]
    Q[:, :-1, -1] = gamma[:, None]
    Q[:, -1, -1] = 1
    hidden = 1 - torch.prod(1 - gamma)
    prior = torch.cat([(1 - hidden) * inner.pi64, hidden[None]])
    return dataclasses.replace(from_matrices(Q, prior), own_last=inner.own_last, inner=inner)
