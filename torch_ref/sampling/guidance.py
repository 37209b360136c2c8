"""Guides samplers: towards a condition by a network with and without it, or to a class by a classifier."""

import abc
import dataclasses
from collections.abc import Callable
from typing import Any, ClassVar

import torch
from torch import Tensor

from torch_ref.numerics import log_normalize
from torch_ref.processes.base import Process
from torch_ref.sampling.denoise import Denoise


class Guided(abc.ABC):
    """Takes the place of `denoise`: calls a network, and guides the samples towards a class or condition."""

    calls = 1
    changes_law: ClassVar[bool] = True

    @abc.abstractmethod
    def beliefs(self, x: Tensor, time: Tensor) -> list[Tensor]:
        """Returns a list of logits of x_0: one for each law that `guide` takes."""

    def guide(self, log_laws: list[Tensor], process: Process, x: Tensor, t: Tensor, s: Tensor) -> Tensor:
        """Returns the guided law of x_s given x_t, from the law that each belief implies."""
        return log_laws[0]

    def __call__(self, x: Tensor, time: Tensor) -> Tensor:
        """Returns logits of x_0."""
        return self.beliefs(x, time)[0]


def classifier_free(
    network: Callable[..., Tensor],
    inputs: Any,
    null: Any,
    gamma: float,
    on: str = "x_s",
    late: int | None = None,
) -> Denoise:
    """log p = gamma log p(. | inputs) + (1 - gamma) log p(. | null), normalised."""
    if gamma == 1:
        return lambda x, time: network(x, time, inputs)
    if gamma == 0 and late is None:
        return lambda x, time: network(x, time, null)
    if on == "x_s":
        return ClassifierFree(network, inputs, null, gamma, late)
    return ClassifierFreeX0(network, inputs, null, gamma, late)


@dataclasses.dataclass(frozen=True, eq=False)
class ClassifierFree(Guided):
    """Guides the law of x_s towards a condition."""

    network: Callable[..., Tensor]
    inputs: Any
    null: Any
    gamma: float
    late: int | None
    calls = 2

    def beliefs(self, x: Tensor, time: Tensor) -> list[Tensor]:
        return [self.network(x, time, self.inputs), self.network(x, time, self.null)]

    def guide(self, log_laws: list[Tensor], process: Process, x: Tensor, t: Tensor, s: Tensor) -> Tensor:
        return combine_logits(log_laws[0], log_laws[1], self.gamma_at(process.time[t]))

    def gamma_at(self, time: Tensor) -> Tensor:
        """Returns gamma at the time of each example."""
        gamma = torch.full(time.shape, self.gamma)
        if self.late is not None:
            gamma[time > self.late] = 1.0
        return gamma


class ClassifierFreeX0(ClassifierFree):
    """Guides the law of x_0 towards a condition."""

    changes_law = False

    def beliefs(self, x: Tensor, time: Tensor) -> list[Tensor]:
        logits, null_logits = super().beliefs(x, time)
        return [combine_logits(logits, null_logits, self.gamma_at(time))]


def combine_logits(logits: Tensor, null_logits: Tensor, gamma: float | Tensor) -> Tensor:
    """gamma logits + (1 - gamma) null_logits, normalised: -inf where either is, but at gamma = 0 and 1."""
    gammas = torch.as_tensor(gamma).expand(len(logits))
    combined = []
    for logits_b, null_b, gamma_b in zip(logits, null_logits, gammas, strict=True):
        if gamma_b == 1:
            combined.append(log_normalize(logits_b))
            continue
        if gamma_b == 0:
            combined.append(log_normalize(null_b))
            continue
        is_possible = (logits_b > -torch.inf) & (null_b > -torch.inf)
        mixed = gamma_b * logits_b + (1 - gamma_b) * null_b
        combined.append(log_normalize(torch.where(is_possible, mixed, -torch.inf)))
    return torch.stack(combined)


def by_classifier(
    denoise: Denoise, log_prob: Callable[[Tensor, Tensor], Tensor], gamma: float = 1.0, exact: bool = False
) -> Denoise:
    """p(x_s | x_t) p(y | x_s)^gamma, normalised for each element on its own."""
    if gamma == 0:
        return denoise
    return ByClassifier(denoise, log_prob, gamma, exact)


@dataclasses.dataclass(frozen=True, eq=False)
class ByClassifier(Guided):
    """Guides the law of x_s towards a class."""

    denoise: Denoise
    log_prob: Callable[[Tensor, Tensor], Tensor]
    gamma: float
    exact: bool

    @property
    def calls(self) -> int:
        return self.denoise.calls if isinstance(self.denoise, Guided) else 1

    def beliefs(self, x: Tensor, time: Tensor) -> list[Tensor]:
        return [self.denoise(x, time)]

    def guide(self, log_laws: list[Tensor], process: Process, x: Tensor, t: Tensor, s: Tensor) -> Tensor:
        changes = all_changes if self.exact else first_order_changes
        return tilt_logits(log_laws[0], changes(self.log_prob, x, process.time[s], process.K), self.gamma)


def tilt_logits(log_p: Tensor, log_likelihood: Tensor, gamma: float) -> Tensor:
    """log_p + gamma log_likelihood, normalised: -inf where either is."""
    is_possible = (log_p > -torch.inf) & (log_likelihood > -torch.inf)
    return log_normalize(torch.where(is_possible, log_p + gamma * log_likelihood, -torch.inf))


def first_order_changes(
    log_prob: Callable[[Tensor, Tensor], Tensor], x: Tensor, time: Tensor, K: int
) -> Tensor:
    """log p(y | x) + g_k - g_x with g its gradient in the one-hots of x: each element changed to each k."""
    one_hots = torch.nn.functional.one_hot(x, K).to(torch.get_default_dtype()).requires_grad_()
    log_p = log_prob(one_hots, time)
    (gradient,) = torch.autograd.grad(log_p.sum(), one_hots)
    at_x = gradient.gather(-1, x[..., None])
    return log_p.detach().reshape(-1, *(1,) * x.ndim) + gradient - at_x


def all_changes(log_prob: Callable[[Tensor, Tensor], Tensor], x: Tensor, time: Tensor, K: int) -> Tensor:
    """log p(y | x with an element changed to k), for each element and each k."""
    num_places = x[0].numel()
    log_p = torch.empty(len(x), num_places, K)
    for place in range(num_places):
        for k in range(K):
            changed = x.flatten(1).clone()
            changed[:, place] = k
            one_hots = torch.nn.functional.one_hot(changed, K).to(log_p.dtype)
            log_p[:, place, k] = log_prob(one_hots.reshape(*x.shape, K), time)
    return log_p.reshape(*x.shape, K)
