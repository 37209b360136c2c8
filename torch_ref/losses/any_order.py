"""Computes the loss of networks that fill in masks in any order, without time (ARDM)."""

import torch
from torch import Tensor

from torch_ref.checks import declared
from torch_ref.numerics import log_prob


@declared(x0="B *S index", n="B index", u="B *S noise", mask_id="index", weight="B *S from_0")
def any_order_draw(x0: Tensor, n: Tensor, u: Tensor, mask_id: int, weight: Tensor | None = None) -> Tensor:
    """Masks the n places with the lowest u among those that have weight, example by example."""
    xt = x0.clone()
    for b in range(len(x0)):
        flat = xt[b].view(-1)
        places = u[b].flatten().argsort(stable=True)
        if weight is not None:
            places = places[weight[b].flatten()[places] > 0]
        flat[places[: int(n[b])]] = mask_id
    return xt


@declared(
    logits_x0="B *S K floats",
    x0="B *S categories",
    xt="B *S categories",
    mask_id="categories",
    weight="B *S from_0",
)
def any_order_nelbo(
    logits_x0: Tensor, x0: Tensor, xt: Tensor, mask_id: int, weight: Tensor | None = None
) -> Tensor:
    """L / n times the cross entropy of the n masks among L places with weight."""
    counts = torch.ones_like(x0, dtype=torch.bool) if weight is None else weight > 0
    is_masked = counts & (xt == mask_id)
    # Log probabilities of the mask where it is masked.
    of_mask = log_prob(logits_x0, torch.full_like(x0, mask_id)).exp()
    if (of_mask[is_masked] > 1e-7).any():
        raise ValueError("logits_x0 give the mask a probability: pass heads.forbid(logits_x0, mask_id)")
    ce = -log_prob(logits_x0, x0)
    loss = torch.zeros_like(ce)
    for b in range(len(x0)):
        n = int(is_masked[b].sum())
        if n > 0:
            loss[b][is_masked[b]] = int(counts[b].sum()) / n * ce[b][is_masked[b]]
    return loss
