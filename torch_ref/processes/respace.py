"""Makes the same process in fewer steps from its float64 matrices before they were rounded."""

import dataclasses
from collections.abc import Sequence
from functools import reduce

import torch

from torch_ref.processes.base import Process, from_matrices
from torch_ref.processes.by_place import ByPlace, by_place


def respace(process: Process, grid: Sequence[int]) -> Process:
    """Takes only the steps of the grid: one-step matrices are the products of those between.

    Arguments as in `d3pm_jax.respace`.
    """
    if isinstance(process, ByPlace):
        return by_place([respace(of_place, grid) for of_place in process.each], process.places)
    Q = [reduce(torch.matmul, process.Q64[a + 1 : b + 1]) for a, b in zip([0, *grid], grid, strict=False)]
    shorter = from_matrices(torch.stack(Q), process.pi64)
    time = process.time[torch.tensor([0, *grid])]
    tables = {"Q_step": shorter.Q_step, "Q_cum": shorter.Q_cum, "Q64": shorter.Q64}
    inner = process.inner
    if inner is not None:
        inner = respace(inner, grid)
    return dataclasses.replace(process, **tables, time=time, inner=inner)
