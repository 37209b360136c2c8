"""Runs ancestral chains, with known places or none. Other samplers draw from `laws` in the same loop."""

from collections.abc import Sequence

import torch
from torch import Tensor

from torch_ref.checks import declared
from torch_ref.posteriors import p_sample
from torch_ref.sampling.chain import Chain
from torch_ref.sampling.denoiser import Denoiser
from torch_ref.sampling.noise import DRAW, Streams, per_example
from torch_ref.sampling.steps import Known

PRIOR_STEP = 0  # the row of the noise that x_T is drawn with


@declared(first="index")
def sample(
    key: int,
    denoiser: Denoiser,
    shape: tuple[int, ...],
    *,
    first: int = 0,
    known: Known | None = None,
    record: Sequence[int] = (),
) -> Chain:
    """Draws examples first, first + 1, ... of the endless sample that a seed stands for.

    Arguments as in `d3pm_jax.sample`, of its ancestral sampler alone; the key is a seed.
    """
    if not shape:
        raise ValueError("shape = (): it must be (B, *S), the number of examples and the shape of each")
    noise = per_example(key, first + torch.arange(shape[0]), shape[1:])
    x = denoiser.process.draw_prior(noise(PRIOR_STEP, DRAW))
    return run(denoiser, x, noise, known=known, record=record)


@declared(x="B *S categories")
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
        logits = denoiser(x, process.time[ts])
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
