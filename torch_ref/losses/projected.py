"""Sums a loss over places with weights."""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from torch_ref.checks import declared
from torch_ref.processes.base import Process, expand_trailing
from torch_ref.projection import Projection


class Projected(NamedTuple):
    """Holds a weighted sum, and what the loss returned of each place, without gradient."""

    total: Tensor
    values: Any


@declared(weight="*S finite_from_0")
def projected(
    process: Process,
    loss: Callable[..., Any],
    projection: Projection,
    rows: tuple[Tensor, ...],
    weight: Tensor,
) -> Projected:
    """sum_i w_i loss_i over the places i with weight, of logits in memory.

    Arguments as in `d3pm_jax.losses.projected`.
    """
    _check(process, projection, rows, weight)
    has_weight = weight > 0
    of_places = [expand_trailing(x, weight.shape).expand(weight.shape)[has_weight] for x in rows]
    values = loss(process, projection.logits()[has_weight], *of_places)

    def at_all_places(value: Tensor) -> Tensor:
        everywhere = torch.zeros(weight.shape, dtype=value.dtype)
        everywhere[has_weight] = value.detach()
        return everywhere

    if isinstance(values, Tensor):
        return Projected((weight[has_weight] * values).sum(), at_all_places(values))
    total = (weight[has_weight] * values[0]).sum()
    return Projected(total, type(values)(*map(at_all_places, values)))


def _check(process: Process, projection: Projection, rows: tuple[Tensor, ...], weight: Tensor) -> None:
    """Raises TypeError, ValueError for parts that do not fit each other, or the process."""
    if not isinstance(projection, Projection):
        raise TypeError(f"projection is {projection!r}: pass a projection.Projection")
    S = tuple(projection.xt.shape)
    kernel = projection.kernel.T if projection.tied else projection.kernel
    if kernel.ndim != 2 or kernel.shape[1] != process.K:
        raise ValueError(f"the kernel has shape {list(kernel.shape)}: expected [width, {process.K}]")
    if tuple(projection.hidden.shape) != (*S, len(kernel)):
        shape = list(projection.hidden.shape)
        raise ValueError(f"hidden has shape {shape}: expected {[*S, len(kernel)]}, of each place of x_t")
    if projection.bias is not None and tuple(projection.bias.shape) != (process.K,):
        raise ValueError(f"bias has shape {list(projection.bias.shape)}: expected [{process.K}]")
    for x in (weight, *rows):
        if not isinstance(x, Tensor):
            raise TypeError(f"rows hold {x!r}: pass tensors")
        if tuple(x.shape) != S[: x.ndim]:
            raise ValueError(f"an array has shape {list(x.shape)}, with which {list(S)} does not begin")
    if weight.ndim != len(S) or not (weight > 0).any():
        raise ValueError(f"weight is 0 at all places, or not of each of {list(S)}")
