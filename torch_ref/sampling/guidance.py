"""Guides samplers: the logits of a condition and those of none combined, and laws tilted by a classifier."""

from collections.abc import Callable

import torch
from torch import Tensor

from torch_ref.checks import declared
from torch_ref.numerics import log_normalize

LogProb = Callable[[Tensor, Tensor], Tensor]  # one-hots of x [B, *S, K], time [B] -> log p(y | x) [B]


@declared(logits="B *S K floats", null_logits="B *S K floats")
def combine_logits(logits: Tensor, null_logits: Tensor, gamma: float | Tensor) -> Tensor:
    """gamma logits + (1 - gamma) null_logits, normalised: -inf where either is, but at gamma = 0 and 1."""
    gammas = torch.as_tensor(gamma).expand(len(logits))
    combined = []
    for logits_b, null_b, gamma_b in zip(logits, null_logits, gammas, strict=True):
        if gamma_b == 1:
            combined.append(log_normalize(logits_b))
            continue
        if gamma_b == 0:
            combined.append(log_normalize(null_b))
            continue
        is_possible = (logits_b > -torch.inf) & (null_b > -torch.inf)
        mixed = gamma_b * logits_b + (1 - gamma_b) * null_b
        combined.append(log_normalize(torch.where(is_possible, mixed, -torch.inf)))
    return torch.stack(combined)


@declared(log_p="*S K floats", log_likelihood="*S K floats", gamma="finite")
def tilt_logits(log_p: Tensor, log_likelihood: Tensor, gamma: float) -> Tensor:
    """log_p + gamma log_likelihood, normalised: -inf where either is."""
    is_possible = (log_p > -torch.inf) & (log_likelihood > -torch.inf)
    return log_normalize(torch.where(is_possible, log_p + gamma * log_likelihood, -torch.inf))


@declared(x="B *S categories", time="B index", K="two_or_more")
def first_order_changes(log_prob: LogProb, x: Tensor, time: Tensor, K: int) -> Tensor:
    """log p(y | x) + g_k - g_x with g its gradient in the one-hots of x: each element changed to each k."""
    one_hots = torch.nn.functional.one_hot(x, K).to(torch.get_default_dtype()).requires_grad_()
    log_p = log_prob(one_hots, time)
    (gradient,) = torch.autograd.grad(log_p.sum(), one_hots)
    at_x = gradient.gather(-1, x[..., None])
    return log_p.detach().reshape(-1, *(1,) * x.ndim) + gradient - at_x


@declared(x="B *S categories", time="B index", K="two_or_more")
def all_changes(log_prob: LogProb, x: Tensor, time: Tensor, K: int) -> Tensor:
    """log p(y | x with an element changed to k), for each element and each k."""
    num_places = x[0].numel()
    log_p = torch.empty(len(x), num_places, K)
    for place in range(num_places):
        for k in range(K):
            changed = x.flatten(1).clone()
            changed[:, place] = k
            one_hots = torch.nn.functional.one_hot(changed, K).to(log_p.dtype)
            log_p[:, place, k] = log_prob(one_hots.reshape(*x.shape, K), time)
    return log_p.reshape(*x.shape, K)
