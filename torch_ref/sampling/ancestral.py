"""Samples ancestrally: every x_{t-1} is drawn from p(x_{t-1} | x_t)."""

from collections.abc import Callable, Sequence

from torch import Tensor

from torch_ref.beliefs import Belief
from torch_ref.processes.base import Process
from torch_ref.sampling.chain import Chain
from torch_ref.sampling.denoise import Denoise
from torch_ref.sampling.noise import Noise
from torch_ref.sampling.sampler import Sampler, run_sampler
from torch_ref.sampling.transitions import Bayes, OwnReverse

# process, logits, xt, t -> log p(x_{t-1} | x_t)
Reverse = Callable[[Process, Tensor, Tensor, Tensor], Tensor]


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
    transition = Bayes() if reverse is None else OwnReverse(reverse)
    return run_sampler(
        Sampler(transition), denoise, process, xT, lambda row, stream: noise(row), record, belief
    )
