"""Says what the logits of x_0 are: the denoiser p(x_0 | x_t), or p(x_0 | x_t at all other elements)."""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor

from torch_ref import numerics
from torch_ref.checks import Belief, declared
from torch_ref.processes.base import Process, expand_trailing

__all__ = ["to_denoiser", "to_leave_one_out"]


@declared(logits_loo="*S K floats", xt="*S categories", t="... steps_or_0")
def to_denoiser(process: Process, logits_loo: Tensor, xt: Tensor, t: Tensor) -> Tensor:
    """logits_loo + log q(x_t | x_0)."""
    evidence = process.log_q_x0(xt, t)  # [*S, K]
    return logits_loo.to(torch.promote_types(logits_loo.dtype, process.pi.dtype)) + evidence


@declared(logits_denoiser="*S K floats", xt="*S categories", t="... steps_or_0")
def to_leave_one_out(process: Process, logits_denoiser: Tensor, xt: Tensor, t: Tensor) -> Tensor:
    """logits_denoiser - log q(x_t | x_0); -inf where q(x_t | x_0) = 0."""
    evidence = process.log_q_x0(xt, t)  # [*S, K]
    logits = logits_denoiser.to(torch.promote_types(logits_denoiser.dtype, process.pi.dtype))
    return torch.where(evidence == -torch.inf, -torch.inf, logits - evidence)


@declared(logits="*S K floats", xt="*S categories", t="... steps_or_0")
def denoiser_of(process: Process, logits: Tensor, xt: Tensor, t: Tensor, belief: Belief) -> Tensor:
    """log p(x_0 | x_t) of logits with a belief: "d3pm" is leave-one-out, "official" but at t = 1."""
    converted = to_denoiser(process, logits, xt, t)
    if belief == "denoiser":
        is_possible = process.log_q_x0(xt, t) > -torch.inf
        converted = torch.where(is_possible, logits.to(converted.dtype), -torch.inf)
    if belief == "official":
        converted = torch.where(_is_first_step(t, xt), logits, converted)
    return numerics.log_normalize(converted)


@declared(logits="*S K floats", xt="*S categories", t="... steps_or_0")
def leave_one_out_of(process: Process, logits: Tensor, xt: Tensor, t: Tensor, belief: Belief) -> Tensor:
    """Returns leave-one-out logits of logits with a belief."""
    converted = to_leave_one_out(process, logits, xt, t)
    if belief == "denoiser":
        return converted
    if belief == "official":
        return torch.where(_is_first_step(t, xt), converted, logits)
    return logits


def _is_first_step(t: Tensor, xt: Tensor) -> Tensor:
    return expand_trailing(t, xt.shape)[..., None] == 1


def with_belief(belief: Belief, f: Callable[..., Any]) -> Callable[..., Any]:
    """f(..., belief=belief), and f itself for "d3pm"."""
    if belief == "d3pm":
        return f
    return partial(f, belief=belief)
