"""Moves x at one level so that its law there stays, or comes closer to, the right one."""

import abc
import dataclasses
import math
from collections.abc import Callable

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float, Int

from d3pm_jax.numerics import inverse_cdf
from d3pm_jax.processes.base import Process, check_elementwise
from d3pm_jax.sampling import laws
from d3pm_jax.sampling.fields import check_fields
from d3pm_jax.sampling.noise import CORRECTOR
from d3pm_jax.sampling.transitions import Leap, Transition

# (x, t [B]) -> leave-one-out logits of x_0 [B, *S, K]: a call of the network
CallNetwork = Callable[[Array, Array], Array]


def _check_moves(moves: int) -> None:
    if moves < 1:
        raise ValueError(f"moves = {moves}: a corrector makes at least 1")


class Corrector(abc.ABC):
    """Says how x moves at a level, in so many moves of one call of the network each."""

    moves: int

    def check(self, process: Process, transition: Transition) -> None:
        """Raises ValueError for a process or a transition that it is not for."""

    @abc.abstractmethod
    def move(
        self,
        call: CallNetwork,
        process: Process,
        transition: Transition,
        x: Int[Array, " B *S"],
        t: Int[Array, " B"],
        may_change: Bool[Array, " B *S"],
        noise: Callable[[int], Float[Array, " B *S"]],
    ) -> Int[Array, " B *S"]:
        """Moves once.

        Args:
            call: the network, on leave-one-out logits.
            process: the forward process.
            transition: of the sampler.
            x: where it is.
            t: the level.
            may_change: the places that may move.
            noise: of this move, by its streams 0 and 1.
        """

    def correct(
        self,
        call: CallNetwork,
        process: Process,
        transition: Transition,
        x: Array,
        t: Array,
        may_change: Array,
        noise: Callable[[Array], Array],
    ) -> Array:
        """Moves `moves` times; noise is by stream."""

        def move(i: Array, x: Array) -> Array:
            moved = self.move(
                call, process, transition, x, t, may_change, lambda n: noise(CORRECTOR + 2 * i + n)
            )
            return jnp.where(x < 0, x, moved)

        return lax.fori_loop(0, self.moves, move, x)


@dataclasses.dataclass(frozen=True)
class Gibbs(Corrector):
    """Draws one place, chosen uniformly, from its law given the others: that leaves p_t as it is.

    Of a process with a mask the place is masked before the network is called, as it was trained to see it.

    The law is that of the leave-one-out belief. A network with belief "denoiser" says nothing of an x_0 that
    x_t rules out, where q(x_t | x_0) = 0: such an x_0 then counts as impossible, and p_t does not stay as it
    is. That happens at small t of a banded process, and for a marginal one whose pi has a 0; with belief
    "official" at t = 1 alone. There take a network of the leave-one-out belief, or no such corrector.
    """

    moves: int = 1
    """how many, one call each"""

    def __post_init__(self) -> None:
        """Raises ValueError for less than one move."""
        check_fields(self)
        _check_moves(self.moves)

    def check(self, process: Process, transition: Transition) -> None:
        check_elementwise(process, "a Gibbs move is of")

    def move(
        self,
        call: CallNetwork,
        process: Process,
        transition: Transition,
        x: Array,
        t: Array,
        may_change: Array,
        noise: Callable[[int], Array],
    ) -> Array:
        # A uniform choice is where one of uniforms is largest.
        num_places = math.prod(x.shape[1:])
        if num_places == 0:
            return x
        order = jnp.where(may_change, noise(1), -1.0).reshape(len(x), num_places)
        places = jnp.arange(num_places).reshape(1, num_places)
        is_chosen = (places == jnp.argmax(order, axis=-1)[:, None]).reshape(x.shape) & may_change
        mask = laws.mask_of(process)
        if mask is not None:
            x = jnp.where(is_chosen, mask, x)
        drawn = inverse_cdf.categorical(laws.gibbs_logits(process, call(x, t), x, t), noise(0))
        return jnp.where(is_chosen, drawn, x)


@dataclasses.dataclass(frozen=True)
class RateCorrector(Corrector):
    """Moves all places along forward and reverse rates, which together keep p_t (tauLDR)."""

    moves: int = 1
    """how many, one call each"""
    h: float = 0.1
    """how long the rates act in each"""

    def __post_init__(self) -> None:
        """Raises ValueError for less than one move, or a time that is not above 0."""
        check_fields(self)
        _check_moves(self.moves)
        if not 0 < self.h < float("inf"):
            raise ValueError(f"h = {self.h}: it must be finite, and above 0")

    def check(self, process: Process, transition: Transition) -> None:
        laws.require_mixing(process, "a corrector of rates")
        if not isinstance(transition, Leap):
            raise ValueError(
                f"a corrector of rates leaps as the sampler does, but {type(transition).__name__} does not: "
                f"take Poisson or Euler as transition, or Gibbs as corrector"
            )

    def move(
        self,
        call: CallNetwork,
        process: Process,
        transition: Transition,
        x: Array,
        t: Array,
        may_change: Array,
        noise: Callable[[int], Array],
    ) -> Array:
        log_rate = laws.corrector_log_rates(process, call(x, t), x, t, self.h)
        assert isinstance(transition, Leap)
        drawn = inverse_cdf.categorical(transition.leap(log_rate, x), noise(0))
        return jnp.where(may_change, drawn, x)
