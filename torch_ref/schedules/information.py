"""Computes what x_t still says of x_0, from the joint distribution of both."""

import torch
from torch import Tensor

from torch_ref.checks import declared
from torch_ref.processes.base import Numbers, as_float64


@declared(s="*T from_0", p0="K share", pi="K share")
def information_left(s: Numbers, p0: Numbers, pi: Numbers) -> Tensor:
    """I(x_t; x_0) / H(x_0) for Qbar = exp(-s) I + (1 - exp(-s)) 1 pi^T."""
    s = as_float64(s)
    p0 = as_float64(p0)
    pi = as_float64(pi)
    keep = torch.exp(-s)[..., None, None]
    return _left(p0, keep * torch.eye(len(p0), dtype=torch.float64) + (1 - keep) * pi)


@declared(s="*T from_0", p0="K share", rate="K K finite")
def information_left_by_rate(s: Numbers, p0: Numbers, rate: Numbers) -> Tensor:
    """I(x_t; x_0) / H(x_0) for Qbar = exp(s rate)."""
    s = as_float64(s)
    p0 = as_float64(p0)
    rate = as_float64(rate)
    return _left(p0, torch.linalg.matrix_exp(s[..., None, None] * rate))


def _left(p0: Tensor, Qbar: Tensor) -> Tensor:
    """(H(x_0) + H(x_t) - H(x_0, x_t)) / H(x_0)."""
    joint = p0[:, None] * Qbar  # [.., K, K], of x_0 and x_t

    def entropy(p: Tensor) -> Tensor:
        return -torch.xlogy(p, p).sum(dim=-1)

    return (entropy(p0) + entropy(joint.sum(dim=-2)) - entropy(joint.flatten(-2))) / entropy(p0)
