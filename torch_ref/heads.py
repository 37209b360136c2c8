"""Makes logits of x_0 from the output of a network."""

import math

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from torch_ref.checks import declared


@declared(output="*S K floats", xt="*S integers")
def residual(output: Tensor, xt: Tensor) -> Tensor:
    """output + onehot(x_t).

    Arguments as in `d3pm_jax.residual`.
    """
    return output + F.one_hot(xt, output.shape[-1]).to(output.dtype)


@declared(output="*S K floats", xt="*S categories")
def log_scores(output: Tensor, xt: Tensor) -> Tensor:
    """Returns the output with 0 at x_t.

    Arguments as in `d3pm_jax.heads.log_scores`.
    """
    return output.scatter(-1, xt[..., None], 0.0)


@declared(output="*S K floats", xt="*S categories")
def absorbing_log_scores(output: Tensor, xt: Tensor) -> Tensor:
    """output - log(K - 1), with 0 at x_t.

    Arguments as in `d3pm_jax.heads.absorbing_log_scores`.
    """
    K = output.shape[-1]
    if K < 2:
        raise ValueError(f"output has {K} categories: scores are of at least 2")
    return log_scores(output - math.log(K - 1), xt)


@declared(logits="*S K floats", mask_id="categories")
def forbid(logits: Tensor, mask_id: int) -> Tensor:
    """Returns the logits with -inf at mask_id.

    Arguments as in `d3pm_jax.forbid`.
    """
    return torch.where(torch.arange(logits.shape[-1], device=logits.device) == mask_id, float("-inf"), logits)


@declared(logits="*B K floats")
def forbid_beyond(logits: Tensor, sizes: np.ndarray) -> Tensor:
    """Returns the logits with -inf at k >= K_i of each place i.

    Arguments as in `d3pm_jax.heads.forbid_beyond`.
    """
    if logits.shape[:-1][-sizes.ndim :] != sizes.shape:
        raise ValueError(f"sizes are {list(sizes.shape)}, logits {list(logits.shape)}: give each place one")
    is_own = torch.arange(logits.shape[-1]) < torch.as_tensor(sizes)[..., None]
    return torch.where(is_own.to(logits.device), logits, float("-inf"))


@declared(loc="*S floats", log_scale="*S floats", K="two_or_more")
def logistic(loc: Tensor, log_scale: Tensor, K: int) -> Tensor:
    """log(sigmoid(b_k) - sigmoid(a_k)), bins of width 2 / (K - 1) around -1, .., 1, scale exp(log_scale - 2).

    In float64, and as a difference of whichever tail is the smaller.

    Arguments as in `d3pm_jax.logistic`.
    """
    centre = torch.linspace(-1, 1, K, dtype=torch.float64, device=loc.device)
    inverse = torch.exp(2 - log_scale.double())[..., None]  # [*S, 1]
    distance = centre - loc.double()[..., None]  # [*S, K]

    # The logistic distribution is symmetric, so that a bin above the mean can be mirrored to one below it,
    # where the sigmoids of both ends are small and their difference has all its digits.
    side = torch.where(distance > 0, -1.0, 1.0)
    near = (side * distance + 1 / (K - 1)) * inverse
    far = (side * distance - 1 / (K - 1)) * inverse
    log_near = F.logsigmoid(near)
    log_far = F.logsigmoid(far)
    return (log_near + torch.log1p(-torch.exp(log_far - log_near))).to(loc.dtype)


@declared(output="*S 2 floats", xt="*S integers", K="two_or_more")
def residual_logistic(output: Tensor, xt: Tensor, K: int) -> Tensor:
    """logistic(tanh(output_0 + 2 x_t / (K - 1) - 1), output_1, K)."""
    return logistic(torch.tanh(output[..., 0] + 2 * xt / (K - 1) - 1), output[..., 1], K)


@declared(output="*S 2 floats", K="two_or_more")
def bounded_logistic(output: Tensor, K: int) -> Tensor:
    """logistic(tanh(output_0), output_1, K)."""
    return logistic(torch.tanh(output[..., 0]), output[..., 1], K)
