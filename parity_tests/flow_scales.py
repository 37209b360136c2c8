"""The size of the terms of flows: see `scales`."""

import torch
from torch import Tensor

import torch_ref
from parity_tests import calls
from parity_tests.scales import Scale, entries, rows
from torch_ref import flows
from torch_ref.numerics import log_sum


def softplus_threshold(u: Tensor, x: Tensor) -> Scale:
    """The noise, of which the log-determinant has K terms."""
    return rows(u), u.shape[-1] * rows(u)


def gumbel(phi: Tensor, x: Tensor, gumbel_noise: Tensor) -> Scale:
    """Locations and noise, and the density that they are an argument of."""
    v, _ = flows.gumbel(phi, x, gumbel_noise)
    return rows(phi, gumbel_noise), log_gumbel_posterior(phi, x, v)


def log_gumbel_posterior(phi: Tensor, x: Tensor, v: Tensor) -> Tensor:
    """The terms of `log_gumbel`, and those of a maximum."""
    v_x = v.gather(-1, x[..., None])[..., 0]
    return log_gumbel(phi, v) + rows(phi, v) * torch.exp(log_sum(phi) - v_x)


def log_gumbel(phi: Tensor, v: Tensor) -> Tensor:
    """K differences, and their exponentials, which have a relative error of the size of the difference."""
    return rows(phi, v) * (1 + torch.exp(phi - v)).sum(dim=-1)


def gumbel_threshold(u: Tensor, x: Tensor, phi: Tensor) -> Scale:
    """Noise and locations, of which the log-determinant has K terms."""
    return rows(u, phi), u.shape[-1] * rows(u, phi)


def signed_softplus(u: Tensor, bits: Tensor) -> Scale:
    """Where they are exp(u) and exp(-u), these have a relative error of the size of u."""
    v, log_slope = flows.signed_softplus(u, bits)
    return v.abs() * entries(u.clamp(max=0)), log_slope.abs() * entries(u.clamp(min=0))


def affine(v: Tensor, shift: Tensor, log_scale: Tensor) -> Scale:
    """Both terms; exp(log_scale) has a relative error of the size of log_scale."""
    product = torch.exp(log_scale) * (1 + v.abs()) * entries(log_scale)
    return product + shift.abs(), entries(log_scale)


def invert_affine(z: Tensor, shift: Tensor, log_scale: Tensor) -> Tensor:
    """Both terms, divided."""
    return affine(z.abs() + shift.abs(), torch.zeros_like(shift), -log_scale)[0]


def mixture_logit(v: Tensor, logit_weights: Tensor, means: Tensor, log_scales: Tensor) -> Tensor:
    """The terms of the logs: distances, scales and weights."""
    return rows(_distances(v, means, log_scales), logit_weights, log_scales)


def mixture_gradient(v: Tensor, logit_weights: Tensor, means: Tensor, log_scales: Tensor) -> Tensor:
    """A part of the mixture has a relative error of `mixture_logit`, and counts 1 / scale or a distance."""
    terms = mixture_logit(v, logit_weights, means, log_scales)
    return terms * rows(_distances(v, means, log_scales), torch.exp(-log_scales))


def _distances(v: Tensor, means: Tensor, log_scales: Tensor) -> Tensor:
    """Both terms of each distance; exp(-log_scale) has a relative error of the size of log_scale."""
    return (v.abs()[..., None] + means.abs()) * torch.exp(-log_scales) * entries(log_scales)


def invert_mixture_logit(z: Tensor, logit_weights: Tensor, means: Tensor, log_scales: Tensor) -> Tensor:
    """v itself, and what the rounding of z makes of it."""
    v = flows.invert_mixture_logit(z, logit_weights, means, log_scales)
    log_slope = flows.mixture_logit(v, logit_weights, means, log_scales).log_slope
    terms = z.abs() + mixture_logit(v, logit_weights, means, log_scales)
    return v.abs() + torch.exp(log_scales).amin(dim=-1) + terms * torch.exp(-log_slope)


def bounded_log_scale(raw: Tensor, log_bound: Tensor) -> Tensor:
    """The bound, which has a relative error of the size of its log."""
    return torch.exp(log_bound) * entries(log_bound)


def mixture_affine(v: Tensor, params: Tensor) -> Scale:
    """The terms of the logit, scaled and shifted."""
    shift, log_scale, mixture = _split_params(params)
    logit = mixture_logit(v, *mixture)
    return affine(logit, shift, log_scale)[0], entries(log_scale) + logit


def mixture_affine_gradient(v: Tensor, params: Tensor) -> Tensor:
    """The gradient of the logit, scaled."""
    _, log_scale, mixture = _split_params(params)
    return torch.exp(log_scale).clamp(min=1.0) * entries(log_scale) * mixture_gradient(v, *mixture)


def invert_mixture_affine(z: Tensor, params: Tensor) -> Tensor:
    """What the rounding of its argument makes of the inverse of `mixture_logit`."""
    shift, log_scale, mixture = _split_params(params)
    logit = flows.invert_affine(z, shift, log_scale)
    error = invert_affine(z, shift, log_scale)
    log_slope = flows.mixture_logit(flows.invert_mixture_logit(logit, *mixture), *mixture).log_slope
    return invert_mixture_logit(logit, *mixture) + error * torch.exp(-log_slope)


def _split_params(params: Tensor) -> tuple[Tensor, Tensor, tuple[Tensor, Tensor, Tensor]]:
    logit_weights, means, log_scales = params[..., 2:].chunk(3, dim=-1)
    return params[..., 0], params[..., 1], (logit_weights, means, log_scales)


def importance_bound(log_weights: Tensor) -> Tensor:
    """The weights of an example."""
    return rows(log_weights.T)


def linear(v: Tensor, matrix: Tensor) -> Scale:
    """Sums of products; the determinant of a matrix that is rounded is off by the size of its inverse."""
    num_vectors = v[0, ..., 0].numel()
    return rows(v) * matrix.abs().sum(), num_vectors * torch.linalg.cond(matrix).expand(len(v))


def linear_gradient(v: Tensor, matrix: Tensor) -> Tensor:
    """The vectors, the matrix and, for each vector, its inverse."""
    num_vectors = v[0, ..., 0].numel()
    inverse = torch.linalg.inv(matrix).abs().max() * torch.linalg.cond(matrix)
    return torch.stack([rows(v).max(), matrix.abs().max(), num_vectors * inverse]).max()


def invert_linear(z: Tensor, matrix: Tensor) -> Tensor:
    """The vectors times the inverse, by whose size a rounded matrix is off."""
    return rows(z) * torch.linalg.inv(matrix).abs().max() * torch.linalg.cond(matrix)


def invert_linear_gradient(z: Tensor, matrix: Tensor) -> Tensor:
    """The inverse once more."""
    return invert_linear(z, matrix) * torch.linalg.inv(matrix).abs().max()


def coupling(v: Tensor, weights: Tensor, num_fixed: int, transform: str) -> Scale:
    """The largest term of an example, and the sum over its numbers."""
    fixed = v[..., :num_fixed]
    return _conditioned(v[..., num_fixed:], fixed, weights, transform)


def autoregressive(v: Tensor, weights: Tensor, transform: str) -> Scale:
    """The largest term of an example, and the sum over its numbers."""
    return _conditioned(v, v, weights, transform)


def _conditioned(moved: Tensor, read: Tensor, weights: Tensor, transform: str) -> tuple[Tensor, Tensor]:
    """The gradient by the parameters times the terms that these are sums of."""
    params = calls.linear_conditioner(torch_ref, weights)(read)
    terms = rows(calls.linear_conditioner(torch_ref, weights.abs())(read.abs()))
    if transform == "affine":
        size, _ = affine(moved, params[..., 0], params[..., 1])
    else:
        size = mixture_affine_gradient(moved, params)
    size = (terms * size).flatten(1)
    return size.amax(dim=1), size.sum(dim=1)


def invert_coupling(z: Tensor, weights: Tensor, num_fixed: int, inverse: str) -> Tensor:
    """What the rounding of z and of the parameters makes of v, where the coupling is least steep."""
    fixed = z[..., :num_fixed]
    params = calls.linear_conditioner(torch_ref, weights)(fixed)
    moved = calls.inverse(torch_ref, inverse)(z[..., num_fixed:], params)
    return _inverted(moved, fixed, weights, inverse, z)


def invert_autoregressive(z: Tensor, weights: Tensor, inverse: str) -> Tensor:
    """What the rounding of z and of the parameters makes of v, where the layer is least steep."""
    condition = calls.linear_conditioner(torch_ref, weights)
    v = flows.invert_autoregressive(condition, z, calls.inverse(torch_ref, inverse))
    return _inverted(v, v, weights, inverse, z)


def _inverted(moved: Tensor, read: Tensor, weights: Tensor, transform: str, z: Tensor) -> Tensor:
    params = calls.linear_conditioner(torch_ref, weights)(read)
    log_slope = calls.transform(torch_ref, transform)(moved, params).log_slope.flatten(1)
    _, size = _conditioned(moved, read, weights, transform)
    return (z.abs().flatten(1).amax(dim=1) + size) * torch.exp(-log_slope).amax(dim=1)
