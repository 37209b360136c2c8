"""Moves x at one level so that its law there stays, or comes closer to, the right one."""

import abc
import dataclasses
from collections.abc import Callable

import torch
from torch import Tensor

from torch_ref import numerics
from torch_ref.processes.base import Process
from torch_ref.sampling import laws
from torch_ref.sampling.noise import CORRECTOR
from torch_ref.sampling.transitions import Leap, Transition

CallNetwork = Callable[[Tensor, Tensor], Tensor]  # x, t [B] -> leave-one-out logits of x_0 [B, *S, K]
MoveNoise = Callable[[int], Tensor]  # which of the two streams of a move -> uniforms [B, *S]


class Corrector(abc.ABC):
    """Says how x moves at a level, in so many moves of one call of the network each."""

    moves: int

    @abc.abstractmethod
    def move(
        self,
        call: CallNetwork,
        process: Process,
        transition: Transition,
        x: Tensor,
        t: Tensor,
        may_change: Tensor,
        noise: MoveNoise,
    ) -> Tensor:
        """Moves once."""

    def correct(
        self,
        call: CallNetwork,
        process: Process,
        transition: Transition,
        x: Tensor,
        t: Tensor,
        may_change: Tensor,
        noise: Callable[[int], Tensor],
    ) -> Tensor:
        """Moves `moves` times; noise is by stream."""
        for i in range(self.moves):
            streams = [noise(CORRECTOR + 2 * i), noise(CORRECTOR + 2 * i + 1)]
            moved = self.move(call, process, transition, x, t, may_change, streams.__getitem__)
            x = torch.where(x < 0, x, moved)
        return x


@dataclasses.dataclass(frozen=True)
class Gibbs(Corrector):
    """Draws one place, chosen uniformly, from its law given the others."""

    moves: int = 1

    def move(
        self,
        call: CallNetwork,
        process: Process,
        transition: Transition,
        x: Tensor,
        t: Tensor,
        may_change: Tensor,
        noise: MoveNoise,
    ) -> Tensor:
        # A uniform choice is where one of uniforms is largest.
        is_chosen = torch.zeros(x.shape, dtype=torch.bool)
        for b in range(len(x)):
            order = torch.where(may_change[b], noise(1)[b], -1.0).flatten()
            is_chosen[b].view(-1)[order.argmax()] = True
        is_chosen &= may_change

        mask = laws.mask_of(process)
        if mask is not None:
            x = torch.where(is_chosen, mask, x)
        drawn = numerics.categorical(laws.gibbs_logits(process, call(x, t), x, t), noise(0))
        return torch.where(is_chosen, drawn, x)


@dataclasses.dataclass(frozen=True)
class RateCorrector(Corrector):
    """Moves all places along forward and reverse rates, which together keep p_t."""

    moves: int = 1
    h: float = 0.1

    def move(
        self,
        call: CallNetwork,
        process: Process,
        transition: Transition,
        x: Tensor,
        t: Tensor,
        may_change: Tensor,
        noise: MoveNoise,
    ) -> Tensor:
        log_rate = laws.corrector_log_rates(process, call(x, t), x, t, self.h)
        assert isinstance(transition, Leap)
        drawn = numerics.categorical(transition.leap(log_rate, x), noise(0))
        return torch.where(may_change, drawn, x)
