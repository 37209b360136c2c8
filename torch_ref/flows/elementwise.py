"""Holds bijections of single numbers, v -> (z, log |dz/dv|) and z -> v."""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from torch_ref.checks import declared
from torch_ref.numerics import log_normalize, log_sum

HALVINGS = 100  # an interval is then narrower than the last digit of a float64, wherever its ends were


class Transformed(NamedTuple):
    """Holds numbers that were transformed, and log |dz/dv| of each."""

    z: Tensor
    log_slope: Tensor


@declared(v="*V finite", shift="*V finite", log_scale="*V finite")
def affine(v: Tensor, shift: Tensor, log_scale: Tensor) -> Transformed:
    """z = exp(log_scale) v + shift."""
    return Transformed(torch.exp(log_scale) * v + shift, log_scale)


@declared(z="*V finite", shift="*V finite", log_scale="*V finite")
def invert_affine(z: Tensor, shift: Tensor, log_scale: Tensor) -> Tensor:
    """v = (z - shift) exp(-log_scale)."""
    return (z - shift) * torch.exp(-log_scale)


@declared(v="*V finite", logit_weights="*V m finite", means="*V m finite", log_scales="*V m finite")
def mixture_logit(v: Tensor, logit_weights: Tensor, means: Tensor, log_scales: Tensor) -> Transformed:
    """z = log F(v) - log(1 - F(v)), F(v) = sum_j w_j sigmoid(a_j), a_j = (v - mean_j) / scale_j.

    dz/dv = F'(v) / (F(v) (1 - F(v))). A logistic density is exp(-a) sigmoid(a)^2 / scale.
    """
    log_w = log_normalize(logit_weights)
    a = (v[..., None] - means) * torch.exp(-log_scales)  # [*V, m]
    log_cdf = log_sum(log_w + F.logsigmoid(a))
    log_survival = log_sum(log_w + F.logsigmoid(-a))
    log_density = log_sum(log_w - a + 2 * F.logsigmoid(a) - log_scales)
    return Transformed(log_cdf - log_survival, log_density - log_cdf - log_survival)


@declared(z="*V finite", logit_weights="*V m finite", means="*V m finite", log_scales="*V m finite")
@torch.no_grad()
def invert_mixture_logit(z: Tensor, logit_weights: Tensor, means: Tensor, log_scales: Tensor) -> Tensor:
    """Inverts `mixture_logit`: finds v by bisection between mean_j + scale_j z of the parts."""
    ends = means + torch.exp(log_scales) * z[..., None]  # [*V, m]
    low = ends.amin(dim=-1)
    high = ends.amax(dim=-1)
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        is_above = mixture_logit(middle, logit_weights, means, log_scales).z > z
        low = torch.where(is_above, low, middle)
        high = torch.where(is_above, middle, high)
    return (low + high) / 2


@declared(raw="*V finite", log_bound="*V finite")
def bounded_log_scale(raw: Tensor, log_bound: Tensor) -> Tensor:
    """exp(a) tanh(s / max(exp(a), 1)), s = raw and a = log_bound."""
    bound = torch.exp(log_bound)
    # Training starts at exp(a) = 1, where versions of torch.clamp have another gradient.
    return bound * torch.tanh(raw / torch.where(bound >= 1.0, bound, 1.0))


@declared(v="*V finite", params="*V P finite")
def mixture_affine(v: Tensor, params: Tensor) -> Transformed:
    """z = exp(log_scale) mixture_logit(v) + shift, the parameters of each number in one array."""
    shift, log_scale, mixture = _split_params(params)
    logit = mixture_logit(v, *mixture)
    scaled = affine(logit.z, shift, log_scale)
    return Transformed(scaled.z, scaled.log_slope + logit.log_slope)


@declared(z="*V finite", params="*V P finite")
def invert_mixture_affine(z: Tensor, params: Tensor) -> Tensor:
    """Inverts `mixture_affine`: returns v."""
    shift, log_scale, mixture = _split_params(params)
    return invert_mixture_logit(invert_affine(z, shift, log_scale), *mixture)


def _split_params(params: Tensor) -> tuple[Tensor, Tensor, tuple[Tensor, Tensor, Tensor]]:
    """[*V, 2 + 3 m] -> shift, log_scale, and three of [*V, m]."""
    logit_weights, means, log_scales = params[..., 2:].chunk(3, dim=-1)
    return params[..., 0], params[..., 1], (logit_weights, means, log_scales)
