"""Runs whole reverse chains in which some elements are known."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from torch_ref import beliefs
from torch_ref.beliefs import Belief
from torch_ref.posteriors import p_logits
from torch_ref.processes.base import Process
from torch_ref.sampling.ancestral import Chain, Denoise, Noise, Reverse, ancestral


def infill(
    denoise: Denoise,
    process: Process,
    x0: Tensor,
    known: Tensor,
    xT: Tensor,
    noise: Noise,
    record: Sequence[int] = (),
    reverse: Reverse = p_logits,
    belief: Belief = "d3pm",
) -> Chain:
    """Runs `ancestral` with known elements those of x_0 at every t."""
    reverse = beliefs.with_belief(belief, reverse)

    def reverse_with_known(process: Process, logits: Tensor, xt: Tensor, t: Tensor) -> Tensor:
        certain = F.one_hot(x0, process.K).to(logits.dtype).log()  # [B, *S, K]
        return torch.where(known[..., None], certain, reverse(process, logits, xt, t))

    return ancestral(denoise, process, torch.where(known, x0, xT), noise, record, reverse_with_known)
