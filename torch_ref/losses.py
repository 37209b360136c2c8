"""Training losses, per element and in nats."""

from typing import NamedTuple

import torch
from torch import Tensor

from torch_ref import numerics
from torch_ref.diffusion import FirstStep, log_p_x0, p_logits, p_prev, q_posterior
from torch_ref.transitions import Process


def posterior_kl(
    tr: Process, logits_x0: Tensor, x0: Tensor, xt: Tensor, t: Tensor, first_step: FirstStep = "bayes"
) -> Tensor:
    """KL(q(x_{t-1} | x_t, x_0) || p(x_{t-1} | x_t)); at t = 1 this is -log p(x_0 | x_1).

    0 for an impossible pair (x_0, x_t).
    """
    return numerics.kl(q_posterior(tr, x0, xt, t), p_logits(tr, logits_x0, xt, t, first_step))


def cross_entropy(tr: Process, logits_x0: Tensor, x0: Tensor) -> Tensor:
    """-log p(x_0 | x_t)."""
    return -log_p_x0(tr, logits_x0).gather(-1, x0[..., None])[..., 0]


def direct_kl(tr: Process, logits_prev: Tensor, x0: Tensor, xt: Tensor, t: Tensor) -> Tensor:
    """KL(q(x_{t-1} | x_t, x_0) || softmax(logits_prev)); 0 for an impossible pair (x_0, x_t)."""
    return numerics.kl(q_posterior(tr, x0, xt, t), p_prev(tr, logits_prev, xt, t))


def smoothed_cross_entropy(
    tr: Process, logits_x0: Tensor, x0: Tensor, smoothing: float, mask_id: int | None = None
) -> Tensor:
    """-sum_k r_k log p_k, r = (1 - smoothing) onehot(x_0) + smoothing / K; without mask_id, if given."""
    allowed = torch.arange(tr.K) != (-1 if mask_id is None else mask_id)
    r = smoothing * allowed / allowed.sum() + (1 - smoothing) * (torch.arange(tr.K) == x0[..., None])
    return -torch.where(r > 0, r * log_p_x0(tr, logits_x0), 0.0).sum(dim=-1)


class Hybrid(NamedTuple):
    """The hybrid loss and its two terms, [*S] each."""

    loss: Tensor
    kl: Tensor
    ce: Tensor


def hybrid(
    tr: Process,
    logits_x0: Tensor,
    x0: Tensor,
    xt: Tensor,
    t: Tensor,
    ce_weight: float,
    first_step: FirstStep = "bayes",
) -> Hybrid:
    """`posterior_kl` + ce_weight `cross_entropy`."""
    kl = posterior_kl(tr, logits_x0, x0, xt, t, first_step)
    ce = cross_entropy(tr, logits_x0, x0)
    return Hybrid(kl if ce_weight == 0 else kl + ce_weight * ce, kl, ce)


def prior_kl(tr: Process, x0: Tensor) -> Tensor:
    """KL(q(x_T | x_0) || p(x_T))."""
    return numerics.kl(tr.log_q_probs(x0, torch.tensor(tr.T)), tr.log_prior())


def stochastic_bound(tr: Process, kl: Tensor, x0: Tensor, p_t: Tensor) -> Tensor:
    """sum of kl / p_t + sum of prior KL, per example."""
    return kl.flatten(1).sum(dim=1) / p_t + prior_kl(tr, x0).flatten(1).sum(dim=1)
