"""What the logits of x_0 are: the denoiser p(x_0 | x_t), or p(x_0 | x_t at all other elements)."""

from collections.abc import Callable
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor

from torch_ref.processes.base import Process

Belief = Literal["d3pm", "leave_one_out", "denoiser"]


def to_denoiser(process: Process, logits_loo: Tensor, xt: Tensor, t: Tensor) -> Tensor:
    """logits_loo + log q(x_t | x_0)."""
    evidence = process.log_q_x0(xt, t)
    return logits_loo.to(torch.promote_types(logits_loo.dtype, process.pi.dtype)) + evidence


def to_leave_one_out(process: Process, logits_denoiser: Tensor, xt: Tensor, t: Tensor) -> Tensor:
    """logits_denoiser - log q(x_t | x_0); -inf where q(x_t | x_0) = 0."""
    evidence = process.log_q_x0(xt, t)
    logits = logits_denoiser.to(torch.promote_types(logits_denoiser.dtype, process.pi.dtype))
    return torch.where(evidence == -torch.inf, -torch.inf, logits - evidence)


def with_belief(belief: Belief, f: Callable[..., Any]) -> Callable[..., Any]:
    """f(..., belief=belief)."""
    return f if belief == "d3pm" else partial(f, belief=belief)
