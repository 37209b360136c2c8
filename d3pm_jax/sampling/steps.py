"""Defines what takes a row of a chain: a step, which sees a view of the row and returns what it drew.

A step of your own derives from `LawStep` if it draws all places from a law of x_s, and else from `Step`:

    @dataclasses.dataclass(frozen=True)
    class Uncertain(LawStep):
        def law(self, view, answer):
            return d3pm.p_logits(view.process, answer.logits / 2, view.x, view.t, answer.belief)

    sampler = Sampler(Uncertain())
"""

import abc
import math
from collections.abc import Callable, Sequence
from typing import Any, ClassVar, NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from d3pm_jax.errors import describe_returned
from d3pm_jax.numerics import inverse_cdf
from d3pm_jax.processes.base import Process
from d3pm_jax.sampling.chain import Row, plan_levels
from d3pm_jax.sampling.denoiser import Answer
from d3pm_jax.sampling.fields import Slot, check_memory, check_returned
from d3pm_jax.sampling.laws import mask_of
from d3pm_jax.sampling.network import Guided
from d3pm_jax.sampling.noise import DRAW
from d3pm_jax.schedules.continuous import Schedule

__all__ = ["Known", "LawStep", "Step", "Taken", "View"]

# What a step remembers from row to row: arrays, or trees of them, by name.
Memory = dict[str, Any]


class Known(NamedTuple):
    """Holds the places of examples that are given."""

    x0: Int[Array | np.ndarray, " B *S"]  # what they hold; any category elsewhere
    mask: Bool[Array | np.ndarray, " B *S"]  # which they are


class View(NamedTuple):
    """Holds what a step sees of a row."""

    process: Process
    x: Int[Array, " B *S"]
    t: Int[Array, " B"]  # the step that x is at
    s: Int[Array, " B"]  # where it goes
    row: Row
    rows: int  # how many rows there are, or of a block
    memory: Memory
    noise: Callable[[int | Array], Float[Array, " B *S"]]  # uniforms of this row, by stream
    ask_each: Callable[..., list[Answer]]  # what `ask` returns, for each law that guidance makes one of
    see: Callable[[Answer | None], Any]  # takes what the network said of x, before the step returns
    hold: Callable[[Array], Array]  # puts back the places that must not change
    may_change: Bool[Array, " B *S"] | None  # the places that the row may change; None: all
    unknown: Bool[Array, " B *S"] | None  # the places that any row may change; None: all

    def ask(self, x: Int[Array, " B *S"], t: Int[Array, " B"], time: Array | None = None) -> Answer:
        """Asks the network at x_t, whose answer is shaped; by default at the time of the step t."""
        return self.ask_each(x, t, time)[0]

    def by_rows(self, answer: Answer, f: Callable[..., Any], *rows: Any) -> Any:
        """Returns f(view, answer, *rows), arrays with one number for each place, as `Answer.by_rows` does.

        Of some places at a time x, t and s of the view are theirs, and nothing else of it: what f needs of
        places besides, as of what the step remembers, comes in rows.
        """

        def call(answer: Answer, x: Array, t: Array, s: Array, *rows: Any) -> Any:
            return f(self._replace(x=x, t=t, s=s), answer, *rows)

        return answer.by_rows(call, self.x, self.t, self.s, *rows)

    def is_masked(self, which: Bool[Array, " B *S"] | None) -> Bool[Array, " B *S"]:
        """Tells which places are masked, of those that are marked; None: of all."""
        masked = self.x == mask_of(self.process)
        if which is None:
            return masked
        return masked & which


class Taken(NamedTuple):
    """Holds what a step returns."""

    x: Int[Array, " B *S"]  # x_s, -1 where there was nothing to draw from: then the chain has failed
    memory: Memory
    seen: Any = None  # what `View.see` returned
    calls: Int[Array, " B"] | None = None  # inputs of the network, of each example; None: `Step.count_calls`
    program_calls: Int[Array, ""] | None = (
        None  # of the network, one after the other; None: the most of calls
    )


class Step(Slot, abc.ABC):
    """Takes a row: from x_t, the noise of the row and what a network says when it is asked it makes x_s."""

    takes_long_steps: ClassVar[bool] = False
    """whether s may be any step up to t; else it is t - 1"""
    needs_extra_mask: ClassVar[bool] = False
    """whether it takes every mask for a place that is unknown, so that no x_0 may be one"""
    goes_by_masks: ClassVar[bool] = False
    """whether it goes by which places are masked, and not by levels: its rows are all from T to 0"""
    starts_from_noise: ClassVar[bool] = False
    """whether it takes x_T alone to start from, and no x_t on the way"""
    tells_time: ClassVar[bool] = False
    """whether it calls the network at times between steps"""
    takes_scores: ClassVar[bool] = False
    """whether log scores are enough for it, of a network that has no logits of x_0"""
    asks_many: ClassVar[bool] = False
    """whether a call may take several inputs for an example, so that these are more than calls"""

    def check(self, process: Process) -> None:
        """Raises ValueError for a process that it is not for."""

    def with_schedule(self, schedule: Callable[[], Schedule]) -> "Step":
        """Returns the step with the schedule of the process, called for it if it needs one and has none."""
        return self

    def law_step(self, guided: type[Guided]) -> "LawStep":
        """Returns the step, if it draws from a law of x_s that guidance of this class may change.

        Raises:
            ValueError: it does not.
        """
        raise ValueError(
            f"guidance changes the law of x_s, and {type(self).__name__} draws from none: {guided.cure}"
        )

    def plan(self, process: Process, places: int) -> tuple[Row, ...]:
        """Returns the rows that it takes by default, for so many places: from T to 0."""
        return plan_levels(range(process.T, -1, -1))

    def start(self, view: View) -> Memory:
        """Returns what it remembers before the first row; the view is of x_T, with the noise of row 0."""
        return {}

    @abc.abstractmethod
    def draw(self, view: View) -> Taken:
        """Takes a row; what it returns for places that must not change does not count."""

    def checked_draw(self, view: View) -> Taken:
        """Takes a row as `draw` does, which may be that of a step of the user's own.

        Raises:
            TypeError: it returns something else.
        """
        taken = self.draw(view)
        if not isinstance(taken, Taken):
            returned = describe_returned(taken)
            raise TypeError(f"{type(self).__name__}.draw returns {returned}: return Taken(x, view.memory)")
        check_returned(self, "draw", taken.x, jnp.integer, view.x.shape)
        check_memory(self, taken.memory, view.memory)
        return taken

    def take(self, view: View) -> Taken:
        """Takes a row, and leaves the places as they are that must not change."""
        taken = self.checked_draw(view)
        return taken._replace(x=view.hold(taken.x))

    def count_calls(self, plan: Sequence[Row]) -> int | None:
        """Returns the calls that every example needs for the rows; None where each row counts its own."""
        return sum(row.s <= row.t for row in plan)


class LawStep(Step):
    """Draws every place from a law of x_s, which guidance may change."""

    can_be_guided: ClassVar[bool] = True
    """whether x_s may be drawn from its law after that was changed"""
    leaps: ClassVar[bool] = False
    """whether it makes a law of rates, by `leap`"""

    @abc.abstractmethod
    def law(self, view: View, answer: Answer) -> Float[Array, " B *S K"]:
        """Returns log p(x_s | x_t) of each category, normalised; all -inf where there is none."""

    def checked_law(self, view: View, answer: Answer) -> Float[Array, " B *S K"]:
        """Returns the law, which may be that of a step of the user's own.

        Raises:
            TypeError: it is no such array.
        """
        law = self.law(view, answer)
        check_returned(self, "law", law, jnp.floating, (*view.x.shape, view.process.K))
        return law

    def choose(self, view: View, answer: Answer) -> Int[Array, " B *S"]:
        """Draws x_s from the law, -1 where there is none."""

        def draw(view: View, answer: Answer, u: Array) -> Array:
            return inverse_cdf.categorical(self.checked_law(view, answer), u)

        return view.by_rows(answer, draw, view.noise(DRAW))

    def leap(self, log_rate: Float[Array, " B *S K"], x: Array) -> Float[Array, " B *S K"]:
        """Returns the law of a leap from x along rates, normalised logs; of a step that `leaps`."""
        raise NotImplementedError(f"{type(self).__name__} has no leap: define it, or set leaps = False")

    def remember(self, view: View, answer: Answer, x: Array) -> Memory:
        """Returns what it remembers after a row that drew x."""
        return view.memory

    def draw(self, view: View) -> Taken:
        answer = view.ask(view.x, view.t)
        x = self.choose(view, answer)
        return Taken(x, self.remember(view, answer, x), view.see(answer))

    def law_step(self, guided: type[Guided]) -> "LawStep":
        if not self.can_be_guided:
            name = type(self).__name__
            raise ValueError(f"guidance changes the law of x_s, and {name} moves by a clock: {guided.cure}")
        return self


def in_line(x: Array) -> Array:
    """Returns the places of each example in one line, [B, L]."""
    return x.reshape(len(x), math.prod(x.shape[1:]))


def count_places(which: Bool[Array, " B *S"]) -> Int[Array, " B"]:
    """Counts the places of each example that are marked."""
    return jnp.sum(in_line(which), axis=-1, dtype=jnp.int32)
