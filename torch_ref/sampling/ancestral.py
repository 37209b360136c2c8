"""Runs whole reverse chains."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from torch_ref import beliefs, numerics
from torch_ref.beliefs import Belief
from torch_ref.posteriors import p_logits
from torch_ref.processes.base import Process

Denoise = Callable[[Tensor, Tensor], Tensor]  # xt [B, *S], t [B] -> logits of x_0 [B, *S, K]
# process, logits, xt, t -> log p(x_{t-1} | x_t)
Reverse = Callable[[Process, Tensor, Tensor, Tensor], Tensor]
Noise = Callable[[int], Tensor]  # t -> uniforms [B, *S]


class Chain(NamedTuple):
    """Holds what a reverse chain has drawn."""

    x0: Tensor  # [B, *S]
    states: Tensor  # [R, B, *S]  x_t at each recorded t
    failed_at: Tensor  # []  the first step t with nothing to draw from; 0 if none


def ancestral(
    denoise: Denoise,
    process: Process,
    xT: Tensor,
    noise: Noise,
    record: Sequence[int] = (),
    reverse: Reverse | None = None,
    belief: Belief = "d3pm",
) -> Chain:
    """x_{t-1} ~ p(x_{t-1} | x_t) for t = T..1."""
    reverse = beliefs.with_belief(belief, reverse or p_logits)
    x = xT
    states = {process.T: xT}
    failed_at = 0
    for t in range(process.T, 0, -1):
        ts = torch.full(x.shape[:1], t)
        logits = denoise(x, process.time[ts])  # [B, *S, K]
        x = numerics.categorical(reverse(process, logits, x, ts), noise(t))
        states[t - 1] = x
        if failed_at == 0 and (x < 0).any():
            failed_at = t

    recorded = xT.new_empty(0, *xT.shape)
    if len(record) > 0:
        recorded = torch.stack([states[t] for t in record])  # [R, B, *S]
    return Chain(x, recorded, torch.tensor(failed_at))
