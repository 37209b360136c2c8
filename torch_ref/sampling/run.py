"""Runs ancestral chains, with known places or none. Other samplers draw from `laws` in the same loop."""

from collections.abc import Sequence

import torch
from torch import Tensor

from torch_ref.posteriors import p_sample
from torch_ref.sampling.chain import Chain
from torch_ref.sampling.denoiser import Denoiser
from torch_ref.sampling.noise import DRAW, Streams
from torch_ref.sampling.steps import Known


def run(
    denoiser: Denoiser,
    x: Tensor,
    noise: Streams,
    *,
    known: Known | None = None,
    record: Sequence[int] = (),
) -> Chain:
    """x_{t-1} ~ p(x_{t-1} | x_t) for t = T..1, but x_0 at the known places of every x_t."""
    process = denoiser.process
    if known is not None:
        x = torch.where(known.mask, known.x0, x)
    states = {process.T: x}
    failed_at = 0
    for t in range(process.T, 0, -1):
        ts = torch.full(x.shape[:1], t)
        logits = denoiser.network(x, process.time[ts])
        x = p_sample(process, logits, x, ts, noise(t, DRAW), denoiser.belief)
        if known is not None:
            x = torch.where(known.mask, known.x0, x)
        states[t - 1] = x
        if failed_at == 0 and (x < 0).any():
            failed_at = t

    recorded = x.new_empty(0, *x.shape)
    if len(record) > 0:
        recorded = torch.stack([states[t] for t in record])  # [R, B, *S]
    return Chain(x, recorded, torch.tensor(failed_at))
