"""Checks drafts: how often one is accepted, and what is drawn in its place."""

import torch
from torch import Tensor

from torch_ref.checks import declared


@declared(log_p="*S K log_probability", log_q="*S K log_probability", drafted="*S categories")
def acceptance(log_p: Tensor, log_q: Tensor, drafted: Tensor) -> Tensor:
    """min(1, q / p) at what was drafted."""
    p = log_p.exp().gather(-1, drafted[..., None])[..., 0]
    q = log_q.exp().gather(-1, drafted[..., None])[..., 0]
    return (q / p).clamp(max=1.0)


@declared(log_p="*S K log_probability", log_q="*S K log_probability")
def leftover_logits(log_p: Tensor, log_q: Tensor) -> Tensor:
    """log max(q - p, 0), unnormalised; log_q where nothing is left."""
    is_above = log_q > log_p
    leftover = torch.where(is_above, log_q + torch.log(-torch.expm1(log_p - log_q)), -torch.inf)
    return torch.where(is_above.any(dim=-1, keepdim=True), leftover, log_q)
