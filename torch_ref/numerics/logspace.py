"""Computes in log space, where probability 0 is exact: 0 log 0 = 0, and no NaN in values or gradients."""

import torch
from torch import Tensor

from torch_ref.checks import declared

NEG_INF = float("-inf")


@declared(a="*S floats", b="*S floats")
def log_add(a: Tensor, b: Tensor) -> Tensor:
    """log(exp a + exp b).

    Arguments as in `d3pm_jax.log_add`.
    """
    return log_sum(torch.stack([a, b], dim=-1))


@declared(x="*S K floats")
def log_sum(x: Tensor) -> Tensor:
    """log sum_k exp x_k over the last axis; -inf, with gradient 0, where every x_k is -inf.

    Arguments as in `d3pm_jax.log_sum`.
    """
    empty = (x == NEG_INF).all(dim=-1)
    total = torch.logsumexp(torch.where(empty[..., None], 0.0, x), dim=-1)
    return torch.where(empty, NEG_INF, total)


@declared(logits="*S K floats")
def log_normalize(logits: Tensor) -> Tensor:
    """logits - log_sum(logits); a row of -inf stays.

    Arguments as in `d3pm_jax.log_normalize`.
    """
    total = log_sum(logits)[..., None]
    return logits - torch.where(total == NEG_INF, 0.0, total)


@declared(logits="*S K floats", k="*S categories")
def log_prob(logits: Tensor, k: Tensor) -> Tensor:
    """log_normalize(logits)[k].

    Arguments as in `d3pm_jax.log_prob`.
    """
    return log_normalize(logits).gather(-1, k[..., None])[..., 0]


@declared(log_q="*S K floats", log_p="*S K floats")
def kl(log_q: Tensor, log_p: Tensor) -> Tensor:
    """sum_k q_k (log q_k - log p_k); inf where q > 0 meets p = 0; 0 where q is all zero.

    Arguments as in `d3pm_jax.kl`.
    """
    possible = log_q > NEG_INF
    ruled_out = possible & (log_p == NEG_INF)
    log_ratio = torch.where(possible & ~ruled_out, log_q - log_p, 0.0)
    return torch.where(ruled_out.any(dim=-1), float("inf"), (log_q.exp() * log_ratio).sum(dim=-1))


@declared(log_q="*S K floats", logits="*S K floats")
def kl_logits(log_q: Tensor, logits: Tensor) -> Tensor:
    """KL(q || softmax(logits)); q is a constant.

    Arguments as in `d3pm_jax.kl_logits`.
    """
    return kl(log_q.detach(), log_normalize(logits))


@declared(log_x="*S floats")
def log1mexp(log_x: Tensor) -> Tensor:
    """log(1 - exp(-exp(log_x)))."""
    return torch.log(-torch.expm1(-log_x.double().exp())).to(log_x.dtype)
