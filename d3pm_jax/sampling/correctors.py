"""Moves x at one level so that its law there stays, or comes closer to, the right one."""

import abc
import dataclasses
import math
from collections.abc import Sequence

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Int

from d3pm_jax.checks.hints import Count, Positive, check_value
from d3pm_jax.numerics import inverse_cdf
from d3pm_jax.processes.base import Process, check_elementwise
from d3pm_jax.sampling import laws, network, transitions
from d3pm_jax.sampling.chain import Row
from d3pm_jax.sampling.denoiser import Answer
from d3pm_jax.sampling.fields import Slot, check_returned
from d3pm_jax.sampling.noise import CORRECTOR
from d3pm_jax.sampling.steps import LawStep, Memory, Step, Taken, View, in_line


class Corrector(Slot, abc.ABC):
    """Says how x moves at a level, in so many moves of one call of the network each."""

    moves: int

    def check(self, process: Process, step: LawStep) -> None:
        """Raises ValueError for a process, or a step between the levels, that it is not for."""

    @abc.abstractmethod
    def move(self, view: View, step: LawStep) -> Int[Array, " B *S"]:
        """Returns where x is after a move.

        Args:
            view: of x at the level t, with the noise of this move in its streams 0 and 1.
            step: what moves between the levels.
        """


@dataclasses.dataclass(frozen=True)
class Gibbs(Corrector):
    """Draws one place, chosen uniformly, from its law given the others: that leaves p_t as it is.

    Of a process with a mask the place is masked before the network is called, as it was trained to see it.

    The law is that of the leave-one-out belief. A network with belief "denoiser" says nothing of an x_0 that
    x_t rules out, where q(x_t | x_0) = 0: such an x_0 then counts as impossible, and p_t does not stay as it
    is. That happens at small t of a banded process, and for a marginal one whose pi has a 0; with belief
    "official" at t = 1 alone. There take a network of the leave-one-out belief, or no such corrector.
    """

    moves: Count = 1
    """how many, one call each"""

    def check(self, process: Process, step: LawStep) -> None:
        check_elementwise(process, "a Gibbs move is of")

    def move(self, view: View, step: LawStep) -> Array:
        # A uniform choice is where one of uniforms is largest.
        x = view.x
        num_places = math.prod(x.shape[1:])
        if num_places == 0:
            return x
        may_change = jnp.ones(x.shape, bool) if view.may_change is None else view.may_change
        order = in_line(jnp.where(may_change, view.noise(1), -1.0))
        places = jnp.arange(num_places).reshape(1, num_places)
        is_chosen = (places == jnp.argmax(order, axis=-1)[:, None]).reshape(x.shape) & may_change
        mask = laws.mask_of(view.process)
        if mask is not None:
            x = jnp.where(is_chosen, mask, x)

        def draw(answer: Answer, u: Array) -> Array:
            law = laws.gibbs_logits(view.process, answer.logits_loo, answer.x, answer.t)
            return inverse_cdf.categorical(law, u)

        return jnp.where(is_chosen, view.ask(x, view.t).by_rows(draw, view.noise(0)), x)


@dataclasses.dataclass(frozen=True)
class RateCorrector(Corrector):
    """Moves all places along forward and reverse rates, which together keep p_t (tauLDR)."""

    moves: Count = 1
    """how many, one call each"""
    h: Positive = 0.1
    """how long the rates act in each"""

    def check(self, process: Process, step: LawStep) -> None:
        laws.require_mixing(process, "a corrector of rates")
        if not step.leaps:
            raise ValueError(
                f"a corrector of rates leaps as the sampler does, but {type(step).__name__} does not: "
                f"take Poisson or Euler between the levels, or Gibbs as corrector"
            )

    def move(self, view: View, step: LawStep) -> Array:
        def draw(answer: Answer, u: Array) -> Array:
            x = answer.x
            log_rate = laws.corrector_log_rates(view.process, answer.logits_loo, x, answer.t, self.h)
            law = step.leap(log_rate, x)
            check_returned(step, "leap", law, jnp.floating, log_rate.shape)
            return inverse_cdf.categorical(law, u)

        return view.ask(view.x, view.t).by_rows(draw, view.noise(0))


@dataclasses.dataclass(frozen=True)
class Corrected(Step):
    """Moves from level to level by a step, and then at the level by a corrector."""

    corrector: Corrector
    between: LawStep = transitions.Bayes()
    """what moves between the levels"""

    @property
    def takes_long_steps(self) -> bool:  # pyright: ignore
        return self.between.takes_long_steps

    @property
    def needs_extra_mask(self) -> bool:  # pyright: ignore
        return self.between.needs_extra_mask

    def check(self, process: Process) -> None:
        self.between.check(process)
        # A corrector of the user's own may have none.
        check_value(f"{type(self.corrector).__name__}.moves", getattr(self.corrector, "moves", None), Count)
        self.corrector.check(process, self.between)

    def law_step(self, guided: type[network.Guided]) -> LawStep:
        raise ValueError(f"guidance changes the law of x_s, and a corrector moves by another: {guided.cure}")

    def plan(self, process: Process, places: int) -> tuple[Row, ...]:
        return self.between.plan(process, places)

    def start(self, view: View) -> Memory:
        return self.between.start(view)

    def draw(self, view: View) -> Taken:
        taken = self.between.take(view)
        # At s = 0, where the data is, there is nothing to correct.
        x = lax.cond(view.row.s > 0, lambda: self._correct(view, taken.x), lambda: taken.x)
        return taken._replace(x=x)

    def _correct(self, view: View, x: Array) -> Array:
        """Moves x at s."""

        def move(i: Array, x: Array) -> Array:
            def noise(stream: int | Array) -> Array:
                return view.noise(CORRECTOR + 2 * i + stream)

            moved = self.corrector.move(view._replace(x=x, t=view.s, noise=noise), self.between)
            check_returned(self.corrector, "move", moved, jnp.integer, x.shape)
            moved = moved if view.may_change is None else jnp.where(view.may_change, moved, x)
            return jnp.where(x < 0, x, moved)

        return lax.fori_loop(0, self.corrector.moves, move, x)

    def count_calls(self, plan: Sequence[Row]) -> int:
        moves = self.corrector.moves * sum(0 < row.s <= row.t for row in plan)
        return sum(row.s <= row.t for row in plan) + moves
