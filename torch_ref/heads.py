"""From the output of a network to logits of x_0."""

import torch
from torch import Tensor


def residual(output: Tensor, xt: Tensor) -> Tensor:
    """output + onehot(x_t)."""
    return output + torch.nn.functional.one_hot(xt, output.shape[-1]).to(output.dtype)


def forbid(logits: Tensor, mask_id: int) -> Tensor:
    """The logits with -inf at mask_id."""
    return torch.where(torch.arange(logits.shape[-1]) == mask_id, float("-inf"), logits)
