"""Whole reverse chains."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from torch_ref import beliefs, numerics
from torch_ref.beliefs import Belief
from torch_ref.posteriors import p_logits
from torch_ref.processes.base import Process

Denoise = Callable[[Tensor, Tensor], Tensor]  # xt [B, *S], t [B] -> logits of x_0 [B, *S, K]
Reverse = Callable[
    [Process, Tensor, Tensor, Tensor], Tensor
]  # process, logits, xt, t -> log p(x_{t-1} | x_t)
Noise = Callable[[int], Tensor]  # t -> uniforms [B, *S]


class Chain(NamedTuple):
    """What a reverse chain leaves behind."""

    x0: Tensor  # [B, *S]
    states: Tensor  # [R, B, *S]  x_t at each recorded t
    failed_at: Tensor  # []  the first step t with nothing to draw from; 0 if none


def ancestral(
    denoise: Denoise,
    process: Process,
    xT: Tensor,
    noise: Noise,
    record: Sequence[int] = (),
    reverse: Reverse = p_logits,
    belief: Belief = "d3pm",
) -> Chain:
    """x_{t-1} ~ p(x_{t-1} | x_t) for t = T..1."""
    reverse = beliefs.with_belief(belief, reverse)
    x, states, failed_at = xT, {process.T: xT}, 0
    for t in range(process.T, 0, -1):
        ts = torch.full(x.shape[:1], t)
        logits = denoise(x, process.time[ts])
        x = states[t - 1] = numerics.categorical(reverse(process, logits, x, ts), noise(t))
        if failed_at == 0 and (x < 0).any():
            failed_at = t
    recorded = [states[t] for t in record]
    return Chain(
        x, torch.stack(recorded) if recorded else xT.new_empty(0, *xT.shape), torch.tensor(failed_at)
    )
