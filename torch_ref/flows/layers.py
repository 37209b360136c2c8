"""Holds the layers of a flow on vectors v [B, *S, D]: v -> (z, log |det dz/dv| [B]) and z -> v."""

from collections.abc import Callable

import torch
from torch import Tensor

from torch_ref.checks import declared
from torch_ref.flows.elementwise import Transformed

Conditioner = Callable[[Tensor], Tensor]  # numbers [B, *S, n] -> parameters [B, *S, m, P] of others
Transform = Callable[[Tensor, Tensor], Transformed]  # v and params
InverseTransform = Callable[[Tensor, Tensor], Tensor]  # z and params


@declared(v="B *S D finite", num_fixed="count")
def coupling(
    conditioner: Conditioner, v: Tensor, num_fixed: int, transform: Transform
) -> tuple[Tensor, Tensor]:
    """z_a = v_a, z_b = transform(v_b, conditioner(v_a)), where a are the first numbers of each vector."""
    fixed = v[..., :num_fixed]
    moved, log_slope = transform(v[..., num_fixed:], conditioner(fixed))
    return torch.cat([fixed, moved], dim=-1), log_slope.flatten(1).sum(dim=1)


@declared(z="B *S D finite", num_fixed="count")
def invert_coupling(conditioner: Conditioner, z: Tensor, num_fixed: int, inverse: InverseTransform) -> Tensor:
    """v_a = z_a, v_b = inverse(z_b, conditioner(z_a))."""
    fixed = z[..., :num_fixed]
    return torch.cat([fixed, inverse(z[..., num_fixed:], conditioner(fixed))], dim=-1)


@declared(v="B *S D finite")
def autoregressive(conditioner: Conditioner, v: Tensor, transform: Transform) -> tuple[Tensor, Tensor]:
    """z_i = transform(v_i, params_i), where params_i depends on v_1, .., v_{i-1} alone."""
    z, log_slope = transform(v, conditioner(v))
    return z, log_slope.flatten(1).sum(dim=1)


@declared(z="B *S D finite")
def invert_autoregressive(conditioner: Conditioner, z: Tensor, inverse: InverseTransform) -> Tensor:
    """v_i = inverse(z_i, params_i) for one i after the other: those before it are there by then."""
    v = torch.zeros_like(z)
    for i in range(z[0].numel()):
        is_next = (torch.arange(z[0].numel()) == i).reshape(z.shape[1:])
        v = torch.where(is_next, inverse(z, conditioner(v)), v)
    return v


@declared(v="B *S D finite", matrix="D D finite")
def linear(v: Tensor, matrix: Tensor) -> tuple[Tensor, Tensor]:
    """z = matrix v of each vector; log |det dz/dv| is a log |det matrix| for each of them."""
    z = torch.einsum("ij,...j->...i", matrix, v)
    log_dets = torch.linalg.slogdet(matrix).logabsdet.expand(v.shape[:-1])  # [B, *S]
    return z, log_dets.reshape(len(v), -1).sum(dim=1)


@declared(z="B *S D finite", matrix="D D finite")
def invert_linear(z: Tensor, matrix: Tensor) -> Tensor:
    """v = matrix^-1 z of each vector."""
    return torch.linalg.solve(matrix, z[..., None])[..., 0]
