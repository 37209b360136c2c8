"""Says in continuous time how much of x_0 is left, from 1 at time 0 to 0 at time 1."""

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from torch_ref.checks import declared


class Level(NamedTuple):
    """Holds alpha, and beta = 1 - alpha."""

    alpha: Tensor
    beta: Tensor


Schedule = Callable[[Tensor], Level]


@declared(time="*T share")
def linear(time: Tensor) -> Level:
    """alpha = 1 - time."""
    return Level(1 - time, time)


@declared(time="*T share")
def cosine(time: Tensor) -> Level:
    """alpha = cos(time pi / 2), and 1 - cos(x) = 2 sin(x / 2)^2."""
    return Level(torch.cos(time * math.pi / 2), 2 * torch.sin(time * math.pi / 4) ** 2)


@declared(time="*T share", power="positive")
def polynomial(time: Tensor, power: float = 2.0) -> Level:
    """alpha = 1 - time^power."""
    return Level(1 - time**power, time**power)


def rate(schedule: Schedule, time: Tensor) -> Tensor:
    """-d alpha / d time."""
    with torch.enable_grad():
        time = time.detach().requires_grad_()
        return torch.autograd.grad(schedule(time).beta.sum(), time)[0]
