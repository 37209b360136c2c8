"""Takes the limit of infinitely many steps, time from 0 (clean data) to 1: absorbing, uniform noise."""

import torch
from torch import Tensor

from torch_ref.checks import declared
from torch_ref.numerics import log_normalize
from torch_ref.processes.base import expand_trailing
from torch_ref.schedules.continuous import Schedule, rate


@declared(x0="*S index", time="... share", u="*S noise", mask_id="index")
def absorbing_draw(schedule: Schedule, x0: Tensor, time: Tensor, u: Tensor, mask_id: int) -> Tensor:
    """Draws the mask with probability beta, else x_0."""
    return torch.where(u < expand_trailing(schedule(time).beta, x0.shape), mask_id, x0)


@declared(x0="*S categories", time="... share", u="*S noise", K="two_or_more")
def uniform_draw(schedule: Schedule, x0: Tensor, time: Tensor, u: Tensor, K: int) -> Tensor:
    """Draws the first k but x_0 at which the sum of beta / K so far exceeds u; x_0 if none does."""
    others = ~torch.nn.functional.one_hot(x0, K).bool()  # [*S, K]
    probability = expand_trailing(schedule(time).beta, x0.shape)[..., None].double() / K
    hit = (u[..., None].double() < (probability * others).cumsum(dim=-1)) & others
    return torch.where(hit.any(dim=-1), hit.int().argmax(dim=-1), x0)


@declared(
    logits_x0="*S K floats", x0="*S categories", xt="*S categories", time="... share", mask_id="categories"
)
def absorbing_nelbo(
    schedule: Schedule, logits_x0: Tensor, x0: Tensor, xt: Tensor, time: Tensor, mask_id: int
) -> Tensor:
    """-alpha' / (1 - alpha) (-log p(x_0)) where x_t is the mask."""
    beta = schedule(time).beta
    weight = expand_trailing(rate(schedule, time) / torch.where(beta > 0, beta, 1.0), x0.shape)
    log_p = log_normalize(logits_x0)
    if (log_p[..., mask_id].exp()[xt == mask_id] > 1e-7).any():
        raise ValueError("logits_x0 give the mask a probability: pass heads.forbid(logits_x0, mask_id)")
    ce = -log_p.gather(-1, x0[..., None])[..., 0]
    return torch.where(xt == mask_id, weight * ce, 0.0)


@declared(logits_x0="*S K floats", x0="*S categories", xt="*S categories", time="... share")
def uniform_nelbo(schedule: Schedule, logits_x0: Tensor, x0: Tensor, xt: Tensor, time: Tensor) -> Tensor:
    """alpha' / (K alpha) [K / a_i - K / b_i - sum_j (a_j / a_i) log((b_i a_j) / (b_j a_i))], i = x_t.

    a = K alpha onehot(x_0) + 1 - alpha, b = K alpha p + 1 - alpha (Schiff et al. 2024, UDLM).
    """
    K = logits_x0.shape[-1]
    level = schedule(time)
    alpha = expand_trailing(level.alpha, x0.shape)[..., None]  # [.., 1]
    beta = expand_trailing(level.beta, x0.shape)[..., None]  # [.., 1]
    a = K * alpha * torch.nn.functional.one_hot(x0, K) + beta  # [*S, K]
    b = K * alpha * log_normalize(logits_x0).exp() + beta  # [*S, K]
    a_i = a.gather(-1, xt[..., None])  # [*S, 1]
    b_i = b.gather(-1, xt[..., None])  # [*S, 1]
    # Without noise other pairs than x_t = x_0 are impossible, and 0 log 0 = 0; without x_0 the loss is 0.
    possible = a_i > 0
    a_i = torch.where(possible, a_i, 1.0)
    b_i = torch.where(possible, b_i, 1.0)
    counts = (a > 0) & possible & ~torch.nn.functional.one_hot(xt, K).bool()  # log 1 = 0 at x_t
    ratio = torch.where(counts, b_i * a / torch.where(counts, b * a_i, 1.0), 1.0)
    terms = (K / a_i - K / b_i)[..., 0] - (a / a_i * torch.log(ratio)).sum(dim=-1)
    left = alpha > 0
    weight = -expand_trailing(rate(schedule, time), x0.shape) / (K * torch.where(left, alpha, 1.0)[..., 0])
    return torch.where((left & possible)[..., 0], weight * terms, 0.0)


@declared(logits_x0="*S K floats", x0="*S categories", xt="*S categories", time="... probability")
def uniform_generalized_kl(
    schedule: Schedule, logits_x0: Tensor, x0: Tensor, xt: Tensor, time: Tensor
) -> Tensor:
    """alpha' / (1 - alpha) [p(x_t) - 1{x_t = x_0} + (1 - 1{x_t = x_0}) log p(x_0)] (Gat et al. 2024)."""
    weight = expand_trailing(rate(schedule, time) / schedule(time).beta, x0.shape)
    log_p = log_normalize(logits_x0)
    log_p_x0 = log_p.gather(-1, x0[..., None])[..., 0]
    p_xt = log_p.gather(-1, xt[..., None])[..., 0].exp()
    return -weight * torch.where(xt == x0, p_xt - 1, p_xt + log_p_x0)
