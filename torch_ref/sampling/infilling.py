"""Samples the unknown elements of examples: known ones stay as they are in every step of the chain."""

from collections.abc import Sequence

from torch import Tensor

from torch_ref.beliefs import Belief
from torch_ref.processes.base import Process
from torch_ref.sampling.ancestral import Reverse
from torch_ref.sampling.chain import Chain
from torch_ref.sampling.denoise import Denoise
from torch_ref.sampling.noise import Noise
from torch_ref.sampling.sampler import Sampler, run_sampler
from torch_ref.sampling.transitions import Bayes, OwnReverse


def infill(
    denoise: Denoise,
    process: Process,
    x0: Tensor,
    known: Tensor,
    xT: Tensor,
    noise: Noise,
    record: Sequence[int] = (),
    reverse: Reverse | None = None,
    belief: Belief = "d3pm",
) -> Chain:
    """Runs `ancestral` with known elements set to x_0 at every t."""
    transition = Bayes() if reverse is None else OwnReverse(reverse)
    return run_sampler(
        Sampler(transition),
        denoise,
        process,
        xT,
        lambda row, stream: noise(row),
        record,
        belief,
        x0=x0,
        known=known,
    )
