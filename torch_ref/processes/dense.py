"""Builds a process of any one-step matrices."""

import dataclasses
from collections.abc import Iterable

import torch

from torch_ref import numerics
from torch_ref.processes.base import Numbers, Process, as_float64, from_matrices


def dense(Q: Iterable[Numbers], prior: Numbers | None = None) -> Process:
    """Builds a process of any Q[1], .., Q[T]; the prior is by default the mean row of Qbar[T].

    Entries below `numerics.smallest_entry` become 0.

    Arguments as in `d3pm_jax.dense`.
    """
    process = from_matrices(torch.stack([as_float64(q) for q in Q]), prior)
    floor = numerics.smallest_entry(process.pi.dtype)
    Q_step = torch.where(process.Q_step < floor, 0.0, process.Q_step)
    Q_cum = torch.where(process.Q_cum < floor, 0.0, process.Q_cum)
    return dataclasses.replace(process, Q_step=Q_step, Q_cum=Q_cum)
