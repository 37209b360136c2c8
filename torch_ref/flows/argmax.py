"""Lifts categories x to vectors v in R^K with argmax v = x (Hoogeboom et al. 2021, arXiv 2102.05379)."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from torch_ref.checks import declared
from torch_ref.numerics import log_add, log_sum


@declared(u="*S K finite", x="*S categories")
def softplus_threshold(u: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
    """v_x = u_x, and v_i = u_x - softplus(u_x - u_i) for the others; dv_i/du_i = sigmoid(u_x - u_i)."""
    is_x = _is_category(x, u)
    threshold = _pick(u, x)
    softplus = -F.logsigmoid(u - threshold)  # softplus(a) = -log sigmoid(-a)
    v = torch.where(is_x, u, _below(threshold - softplus, threshold))
    log_det = torch.where(is_x, 0.0, F.logsigmoid(threshold - u)).sum(dim=-1)
    return v, log_det


@declared(phi="*S K finite", x="*S categories", gumbel_noise="*S K finite")
def gumbel(phi: Tensor, x: Tensor, gumbel_noise: Tensor) -> tuple[Tensor, Tensor]:
    """v ~ independent Gumbel(phi_i), given that argmax v = x; and log q(v | x).

    v_x ~ Gumbel(log sum_i exp phi_i). The others solve F(v_i) / F(v_x) = U_i, where
    F(v) = exp(-exp(phi_i - v)) and log U_i = -exp(-noise_i).
    """
    v_x = log_sum(phi)[..., None] + _pick(gumbel_noise, x)
    truncated = phi - log_add(phi - v_x, -gumbel_noise)
    v = torch.where(_is_category(x, phi), v_x, _below(truncated, v_x))
    return v, log_gumbel_posterior(phi, x, v)


@declared(phi="*S K finite", x="*S categories", v="*S K finite")
def log_gumbel_posterior(phi: Tensor, x: Tensor, v: Tensor) -> Tensor:
    """log of the density of the maximum, v_x, and of the others, each divided by F(v_x)."""
    v_x = _pick(v, x)
    maximum = log_gumbel(log_sum(phi)[..., None], v_x)
    log_density = phi - v - torch.exp(phi - v)
    log_cdf_of_maximum = -torch.exp(phi - v_x)
    others = torch.where(_is_category(x, phi), 0.0, log_density - log_cdf_of_maximum).sum(dim=-1)
    return torch.where(v.argmax(dim=-1) == x, maximum + others, float("-inf"))


@declared(phi="*S K finite", v="*S K finite")
def log_gumbel(phi: Tensor, v: Tensor) -> Tensor:
    """sum_i (phi_i - v_i - exp(phi_i - v_i))."""
    return (phi - v - torch.exp(phi - v)).sum(dim=-1)


@declared(u="*S K finite", x="*S categories", phi="*S K finite")
def gumbel_threshold(u: Tensor, x: Tensor, phi: Tensor) -> tuple[Tensor, Tensor]:
    """v of `gumbel` from the noise -log(-log sigmoid(u)), and log |det dv/du| by the chain rule."""
    # exp(-u) underflows for large u, where the noise is u itself long before.
    is_large = u > min(40.0, -0.7 * math.log(torch.finfo(u.dtype).tiny))
    gumbel_noise = torch.where(is_large, u, -torch.log(-F.logsigmoid(torch.where(is_large, 0.0, u))))
    v, _ = gumbel(phi, x, gumbel_noise)

    # d noise / du = sigmoid(-u) / -log sigmoid(u); dv_x / d noise_x = 1. With g = phi + noise the others are
    # -log(exp(-g_i) + exp(-v_x)), whose derivative is sigmoid(v_x - g_i).
    log_slope_of_noise = F.logsigmoid(-u) + gumbel_noise
    log_slope = F.logsigmoid(_pick(v, x) - (phi + gumbel_noise))
    log_det = (log_slope_of_noise + torch.where(_is_category(x, phi), 0.0, log_slope)).sum(dim=-1)
    return v, log_det


@declared(u="*S finite", bits="*S bits")
def signed_softplus(u: Tensor, bits: Tensor) -> tuple[Tensor, Tensor]:
    """v = softplus(u) where the bit is 1, -softplus(u) where it is 0; log |dv/du| = log sigmoid(u)."""
    # As in JAX the gradient of a maximum is shared where both are equal; that of torch.clamp is not.
    smallest = torch.tensor(torch.finfo(u.dtype).tiny, dtype=u.dtype, device=u.device)
    magnitude = torch.maximum(-F.logsigmoid(-u), smallest)
    return torch.where(bits == 1, magnitude, -magnitude), F.logsigmoid(u)


def _is_category(x: Tensor, v: Tensor) -> Tensor:
    """[*S, K], true at x."""
    return F.one_hot(x, v.shape[-1]).bool()


def _pick(v: Tensor, x: Tensor) -> Tensor:
    """v_x, [*S, 1]."""
    return v.gather(-1, x[..., None])


def _below(v: Tensor, threshold: Tensor) -> Tensor:
    """Returns v, or a number just below the threshold where v has been rounded up to it."""
    precision = torch.finfo(v.dtype)
    step = (precision.eps * threshold.abs()).clamp(min=precision.tiny).detach()
    return torch.where(v < threshold, v, threshold - step)
