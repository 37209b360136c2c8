"""Computes the loss of GIDD, in continuous time from 0 (clean data) to 1 (all masked)."""

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import one_hot

from torch_ref.checks import declared
from torch_ref.numerics import log_normalize
from torch_ref.processes.base import expand_trailing


def _moved(time: Tensor, K: int, mask_id: int, p_uniform: float, gamma: float) -> tuple[Tensor, Tensor]:
    """Returns c [..] and b [.., K], what q(x_t | x_0) adds to (1 - time) / (1 + c) onehot(x_0)."""
    c = 2**gamma * p_uniform / (1 - p_uniform) * (time * (1 - time)) ** (gamma / 2)
    is_mask = one_hot(torch.tensor(mask_id, device=time.device), K).bool()
    b = torch.where(is_mask, time[..., None], (c / (K - 1))[..., None])
    return c, b / (1 + c)[..., None]


@declared(
    x0="*S index", time="... time", u="*S noise", mask_id="index", K="two_or_more", p_uniform="below_1",
    gamma="up_to_2",
)  # fmt: skip
def gidd_draw(
    x0: Tensor, time: Tensor, u: Tensor, mask_id: int, K: int, p_uniform: float, gamma: float
) -> Tensor:
    """Draws the first k but x_0 at which the sum of b so far exceeds u; x_0 if none does."""
    others = ~one_hot(x0, K).bool()  # [*S, K]
    _, b = _moved(expand_trailing(time, x0.shape), K, mask_id, p_uniform, gamma)
    hit = (u[..., None].double() < torch.where(others, b.double(), 0.0).cumsum(dim=-1)) & others
    return torch.where(hit.any(dim=-1), hit.int().argmax(dim=-1), x0)


class GiddLoss(NamedTuple):
    """Holds the loss by the name of its weight."""

    bound: Tensor
    clipped: Tensor
    dynamic: Tensor


@declared(
    logits_x0="*S K floats", x0="*S categories", xt="*S categories", time="... inner_time",
    mask_id="categories", p_uniform="below_1", gamma="up_to_2",
)  # fmt: skip
def gidd_nelbo(
    logits_x0: Tensor, x0: Tensor, xt: Tensor, time: Tensor, mask_id: int, p_uniform: float, gamma: float
) -> GiddLoss:
    """w(x_t) (KL(q || p) + r - log r - 1), r = q(x_t) / p(x_t); not at time 1, where w is infinite."""
    log_p0 = log_normalize(logits_x0)
    if (log_p0[..., mask_id].exp() > 1e-7).any():
        raise ValueError("logits_x0 give the mask a probability: pass heads.forbid(logits_x0, mask_id)")
    K = logits_x0.shape[-1]
    t = expand_trailing(time, x0.shape).expand(x0.shape)
    c, b = _moved(t, K, mask_id, p_uniform, gamma)
    alpha = ((1 - t) / (1 + c))[..., None]
    q = alpha * one_hot(x0, K) + b  # [*S, K]
    p = alpha * log_p0.exp() + b  # [*S, K]
    q_xt = q.gather(-1, xt[..., None])[..., 0]
    p_xt = p.gather(-1, xt[..., None])[..., 0]

    # The rate into x_t over q(x_t): 0 where no rate leads, and the loss of an impossible pair is 0.
    is_mask = xt == mask_id
    dc = gamma / 2 * (1 - 2 * t) / (t * (1 - t)) * c
    rate = torch.where(is_mask, 1.0, (c + (1 - t) * dc) / (K - 1)) / ((1 - t) * (1 + c))
    counts = (rate > 0) & (q_xt > 0)
    weight = torch.where(counts, rate / torch.where(counts, q_xt, 1.0), 0.0)
    r = torch.where(counts, q_xt, 1.0) / torch.where(counts, p_xt, 1.0)
    has_term = (q > 0) & counts[..., None]
    ratio = torch.where(has_term, q, 1.0) / torch.where(has_term, p, 1.0)
    divergence = (torch.where(has_term, q, 0.0) * ratio.log()).sum(dim=-1) + r - r.log() - 1

    B = 2**gamma * p_uniform / (1 - p_uniform)
    at_x0 = (B / K * torch.exp(gamma / 2 * torch.sigmoid(-t))).clamp(max=2.0)
    dynamic = torch.where(is_mask, 2.0, torch.where(xt == x0, at_x0, 1.0))
    return GiddLoss(weight * divergence, weight.clamp(max=2.0) * divergence, dynamic * divergence)
