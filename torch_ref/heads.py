"""From the output of a network to logits of x_0."""

import torch
import torch.nn.functional as F
from torch import Tensor


def residual(output: Tensor, xt: Tensor) -> Tensor:
    """output + onehot(x_t)."""
    return output + F.one_hot(xt, output.shape[-1]).to(output.dtype)


def forbid(logits: Tensor, mask_id: int) -> Tensor:
    """The logits with -inf at mask_id."""
    return torch.where(torch.arange(logits.shape[-1], device=logits.device) == mask_id, float("-inf"), logits)


def logistic(loc: Tensor, log_scale: Tensor, K: int) -> Tensor:
    """log(sigmoid(b_k) - sigmoid(a_k)), bins of width 2 / (K - 1) around -1, .., 1, scale exp(log_scale - 2).

    In float64, and as a difference of whichever tail is the smaller.
    """
    centre = torch.linspace(-1, 1, K, dtype=torch.float64, device=loc.device)
    inverse = torch.exp(2 - log_scale.double())[..., None]
    distance = centre - loc.double()[..., None]
    side = torch.where(distance > 0, -1.0, 1.0)  # the logistic distribution is symmetric
    near = (side * distance + 1 / (K - 1)) * inverse
    far = (side * distance - 1 / (K - 1)) * inverse
    log_near, log_far = F.logsigmoid(near), F.logsigmoid(far)
    return (log_near + torch.log1p(-torch.exp(log_far - log_near))).to(loc.dtype)


def residual_logistic(output: Tensor, xt: Tensor, K: int) -> Tensor:
    """logistic(tanh(output_0 + 2 x_t / (K - 1) - 1), output_1, K)."""
    return logistic(torch.tanh(output[..., 0] + 2 * xt / (K - 1) - 1), output[..., 1], K)


def bounded_logistic(output: Tensor, K: int) -> Tensor:
    """logistic(tanh(output_0), output_1, K)."""
    return logistic(torch.tanh(output[..., 0]), output[..., 1], K)
