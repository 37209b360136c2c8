"""Takes one training step: AdamW after clipping by the global norm, warm-up and decay, averaged weights."""

import math
from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor

from torch_ref.beliefs import Belief
from torch_ref.losses import hybrid
from torch_ref.posteriors import q_sample
from torch_ref.processes.base import Process
from torch_ref.sampling.network import Network


class Metrics(NamedTuple):
    """Holds means over a batch, in nats per element; the norm is that of the gradient before clipping."""

    loss: Tensor
    kl: Tensor
    ce: Tensor
    grad_norm: Tensor


def train_step(
    denoise: Network,
    optimizer: torch.optim.Optimizer,
    process: Process,
    x0: Tensor,
    t: Tensor,
    u: Tensor,
    ce_weight: float,
    clip: float,
    belief: Belief = "d3pm",
    weight: Tensor | None = None,
) -> Metrics:
    """Takes one update of the parameters that the optimizer holds, which are those of denoise.

    The mean over elements is sum(weight loss) / sum(weight). A network that has to leave padding out is
    called with the weight by denoise itself.
    """
    xt = q_sample(process, x0, t, u)
    terms = hybrid(process, denoise(xt, process.time[t]), x0, xt, t, ce_weight, belief=belief)
    loss = _mean(terms.loss, weight)
    kl = _mean(terms.kl, weight)
    ce = _mean(terms.ce, weight)
    optimizer.zero_grad()
    loss.backward()
    norm = clip_by_global_norm([p for group in optimizer.param_groups for p in group["params"]], clip)
    optimizer.step()
    return Metrics(loss.detach(), kl.detach(), ce.detach(), norm.detach())


def _mean(x: Tensor, weight: Tensor | None) -> Tensor:
    """sum(weight x) / sum(weight), without elements of weight 0."""
    if weight is None:
        return x.mean()
    return torch.where(weight > 0, weight * x, 0.0).sum() / weight.sum()


def adamw(model: torch.nn.Module, betas: tuple[float, float], weight_decay: float) -> torch.optim.AdamW:
    """Returns AdamW without weight decay of arrays of one axis: biases, scales, the frequencies of time."""
    kernels = [p for p in model.parameters() if p.ndim > 1]
    others = [p for p in model.parameters() if p.ndim <= 1]
    groups = [{"params": kernels}, {"params": others, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, betas=betas, weight_decay=weight_decay)


def clip_by_global_norm(parameters: list[Tensor], clip: float) -> Tensor:
    """g <- g min(1, clip / |g|), |g| over all parameters together, which is returned.

    `torch.nn.utils.clip_grad_norm_` has |g| + 1e-6 in its place.
    """
    gradients = [p.grad for p in parameters if p.grad is not None]
    norm = torch.sqrt(sum((g.square().sum() for g in gradients), torch.zeros(())))
    if norm >= clip:
        for g in gradients:
            g.mul_(clip / norm)
    return norm


def learning_rate(step: int, lr: float, warmup_steps: int = 0, decay_steps: int | None = None) -> float:
    """lr min(1, (step + 1) / warmup_steps) (1 + cos(pi min(1, step / decay_steps))) / 2, step from 0."""
    warm = 1.0
    if warmup_steps:
        warm = min(1.0, (step + 1) / warmup_steps)
    decayed = 1.0
    if decay_steps:
        decayed = (1 + math.cos(math.pi * min(1.0, step / decay_steps))) / 2
    return lr * warm * decayed


@torch.no_grad()
def average(ema: dict[str, Tensor], parameters: Mapping[str, Tensor], decay: float, step: int) -> None:
    """ema <- d ema + (1 - d) parameters, d = min(decay, (1 + step) / (10 + step)), step from 0."""
    d = min(decay, (1 + step) / (10 + step))
    for name, x in parameters.items():
        ema[name] = d * ema[name] + (1 - d) * x
