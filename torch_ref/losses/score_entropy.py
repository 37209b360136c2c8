"""Computes the score entropy of a network of log scores (SEDD): absorbing, uniform noise."""

import torch
from torch import Tensor

from torch_ref.checks import declared
from torch_ref.processes.base import expand_trailing
from torch_ref.schedules.continuous import Schedule, rate


@declared(
    log_scores="*S K floats", x0="*S categories", xt="*S categories", time="... share", mask_id="categories"
)
def absorbing_score_entropy(
    schedule: Schedule, log_scores: Tensor, x0: Tensor, xt: Tensor, time: Tensor, mask_id: int
) -> Tensor:
    """-alpha' / (1 - alpha) (sum over y != mask of w_y - log w_x0 - 1) where x_t is the mask.

    Arguments as in `d3pm_jax.losses.score_entropy.absorbing_score_entropy`.
    """
    beta = schedule(time).beta
    weight = expand_trailing(rate(schedule, time) / torch.where(beta > 0, beta, 1.0), x0.shape)
    is_mask = torch.arange(log_scores.shape[-1]) == mask_id
    log_w = torch.where(is_mask, -torch.inf, log_scores)
    entropy = log_w.exp().sum(dim=-1) - log_w.gather(-1, x0[..., None])[..., 0] - 1
    return torch.where(xt == mask_id, weight * entropy, 0.0)


@declared(log_scores="*S K floats", x0="*S categories", xt="*S categories", time="... share")
def uniform_score_entropy(
    schedule: Schedule, log_scores: Tensor, x0: Tensor, xt: Tensor, time: Tensor
) -> Tensor:
    """-alpha' / (K alpha) sum over y != x_t of (s_y - r_y log s_y + r_y (log r_y - 1)).

    Arguments as in `d3pm_jax.losses.score_entropy.uniform_score_entropy`.
    """
    K = log_scores.shape[-1]
    level = schedule(time)
    alpha = expand_trailing(level.alpha, x0.shape)[..., None]  # [.., 1]
    beta = expand_trailing(level.beta, x0.shape)[..., None]  # [.., 1]
    q = alpha * torch.nn.functional.one_hot(x0, K) + beta / K  # [*S, K]
    at_xt = q.gather(-1, xt[..., None])  # [*S, 1]
    # Without noise other pairs than x_t = x_0 are impossible, and 0 log 0 = 0; without x_0 the loss is 0.
    possible = at_xt > 0
    r = q / torch.where(possible, at_xt, 1.0)
    log_r = torch.where(r > 0, r, 1.0).log()
    attracted = torch.where(r > 0, r * (log_r - log_scores - 1), 0.0)
    is_xt = torch.nn.functional.one_hot(xt, K).bool()
    entropy = torch.where(is_xt, 0.0, log_scores.exp() + attracted).sum(dim=-1)
    left = alpha > 0
    weight = expand_trailing(rate(schedule, time), x0.shape) / (K * torch.where(left, alpha, 1.0)[..., 0])
    return torch.where((left & possible)[..., 0], weight * entropy, 0.0)
