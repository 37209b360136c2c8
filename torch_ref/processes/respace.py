"""The same process in fewer steps, made from its float64 matrices before they were rounded."""

import dataclasses
from collections.abc import Sequence

import torch

from torch_ref.processes.base import Process, from_matrices


def respace(process: Process, grid: Sequence[int]) -> Process:
    """Only the steps of the grid: one-step matrices are the products of those between."""
    Q = [
        torch.linalg.multi_dot([torch.eye(process.K, dtype=torch.float64), *process.Q64[a + 1 : b + 1]])
        for a, b in zip([0, *grid], grid, strict=False)
    ]
    kept = from_matrices(torch.stack(Q), process.pi64)
    return dataclasses.replace(
        kept, time=process.time[torch.tensor([0, *grid])], own_last=process.own_last, masked=process.masked
    )
