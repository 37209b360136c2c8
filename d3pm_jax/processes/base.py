"""Describes the forward process q(x_t | x_{t-1}) as a structured operator on categories.

A process is a pytree with static K and T. Rows are "from", columns are "to": Q[t, i, j] = q(x_t = j given
x_{t-1} = i). `t` is an int32 array whose shape is a prefix of the shape of x: () for one step for all, [B]
for one per example, [*S] for one per element; t = 0 is clean data.
"""

import abc
import math
import sys
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, ClassVar

import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float, Int

from d3pm_jax.checks import CATEGORIES, NOISE, declared, like, promote_types, steps
from d3pm_jax.numerics import inverse_cdf
from d3pm_jax.processes.tables import all_steps, expand_trailing

PRIOR_KL_WARNING = 1e-3  # bits per dimension


class _AllSteps:
    """Is the default of `Process.time`: 0, 1, ..., T."""

    # A property would do, but for processes that are dataclasses with a field `time`: `dataclasses` reads the
    # attribute of the class as the default of the field. An AttributeError tells it that there is none.
    def __get__(self, process: Any, cls: type) -> Any:
        if process is None:
            raise AttributeError("time")
        return all_steps(process.T)


class Process(abc.ABC):
    """Defines the interface of forward processes. One of your own defines the abstract methods, K and T.

    The other methods follow from these; the families of this package define them too, in ways that cost less.
    `log_q_back` and `log_q_probs` must agree with each other: x_t given x_0 is t steps of x_t given x_{t-1}.
    One whose element goes by its position in x says `positional = True`: what takes elements one by one, such
    as a mask on top, refuses it. `mixing` is the family to copy: a frozen dataclass that is a pytree, and
    constructors that check. Losses have their definitions; `losses.fused` is where a family registers faster
    ones, and how many numbers an element reads.
    """

    K: int  # number of categories
    T: int  # number of steps
    positional: ClassVar[bool] = False  # whether what a step does to an element goes by its position
    places: tuple[int, ...] = ()  # *S of places with processes of their own; (): one process for all
    time: Any = _AllSteps()  # int32 [T + 1]  the step of the original process: what a network is told of t

    def __init_subclass__(cls, **kwargs: Any):
        """Gives the methods that a family defines the checks that are declared here."""
        super().__init_subclass__(**kwargs)
        for name in METHODS:
            method = getattr(cls, name)
            checked = like(getattr(Process, name), method)
            # A method that is declared already is inherited, from this class or from another family.
            if checked is not method:
                setattr(cls, name, checked)

    @abc.abstractmethod
    @declared(x0=CATEGORIES, t=steps(0))
    def log_q_probs(self, x0: Int[Array, "*S"], t: Int[Array, "..."]) -> Float[Array, "*S K"]:
        """log q(x_t = . | x_0), a row of Qbar[t] (D3PM eq. 3); at t = 0 it is certain of x_0."""

    @abc.abstractmethod
    @declared(xt=CATEGORIES, t=steps(0))
    def log_q_back(self, xt: Int[Array, "*S"], t: Int[Array, "..."]) -> Float[Array, "*S K"]:
        """log q(x_t = xt | x_{t-1} = .), a column of Q[t]: a likelihood, it need not sum to 1."""

    @abc.abstractmethod
    @declared(t=steps(0))
    def log_push(self, log_p: Float[Array, "*S K"], t: Int[Array, "..."]) -> Float[Array, "*S K"]:
        """log(p @ Qbar[t]) for normalised p: the distribution of x_t if x_0 is distributed as p."""

    @abc.abstractmethod
    def log_prior(self) -> Float[Array, " K"]:
        """Returns the log of the distribution that the reverse chain starts from."""

    @declared(t=steps(0))
    def Q(self, t: Int[Array, "*B"]) -> Float[Array, "*B K K"]:
        """Returns the one-step matrix q(x_t | x_{t-1}), dense. For small K; the identity at t = 0."""
        return jnp.swapaxes(jnp.exp(self.log_q_back(self._categories(t), t)), -1, -2)

    @declared(t=steps(0))
    def Qbar(self, t: Int[Array, "*B"]) -> Float[Array, "*B K K"]:
        """Returns the matrix of q(x_t | x_0) = Q[1] ... Q[t], dense. For small K; the identity at t = 0."""
        return jnp.exp(self.log_q_probs(self._categories(t), t))

    @declared(xt=CATEGORIES, t=steps(0))
    def log_q_x0(self, xt: Int[Array, "*S"], t: Int[Array, "..."]) -> Float[Array, "*S K"]:
        """log q(x_t = xt | x_0 = .), a column of Qbar[t]: the evidence of x_t itself for each x_0."""
        ts = jnp.broadcast_to(expand_trailing(t, xt.shape), xt.shape)
        rows = self.log_q_probs(self._categories(ts), ts)  # [*S, K, K]
        return jnp.take_along_axis(rows, xt[..., None, None], axis=-1)[..., 0]

    @declared(x0=CATEGORIES, t=steps(0), u=NOISE, u_low=NOISE)
    def draw_q(
        self,
        x0: Int[Array, "*S"],
        t: Int[Array, "..."],
        u: Float[Array, "*S"],
        u_low: Float[Array, "*S"] | None = None,
    ) -> Int[Array, "*S"]:
        """Draws x_t from q(x_t | x_0), with one uniform in [0, 1) per element.

        By default that is `numerics.categorical`; `numerics.inverse_cdf` explains the second word of noise.
        """
        return inverse_cdf.categorical(self.log_q_probs(x0, t), u, u_low)

    @declared(x=CATEGORIES, t=steps(0), u=NOISE, u_low=NOISE)
    def draw_step(
        self,
        x: Int[Array, "*S"],
        t: Int[Array, "..."],
        u: Float[Array, "*S"],
        u_low: Float[Array, "*S"] | None = None,
    ) -> Int[Array, "*S"]:
        """Draws x_t from q(x_t | x_{t-1} = x), with one uniform in [0, 1) per element; at t = 0 it is x.

        By default that is `numerics.categorical` of a row of Q[t], of which every entry is one of another
        column, `log_q_back`: K calls of that.
        """

        # One column at a time needs no matrix for each element, and lets an element go by its position.
        def log_probability_of(k: Array) -> Array:
            column = self.log_q_back(jnp.full(x.shape, k), t)  # [*S, K]
            return jnp.take_along_axis(column, x.astype(jnp.int32)[..., None], axis=-1)[..., 0]

        by_category = lax.map(log_probability_of, jnp.arange(self.K, dtype=jnp.int32))  # [K, *S]
        return inverse_cdf.categorical(jnp.moveaxis(by_category, 0, -1), u, u_low)

    @declared(u=NOISE, u_low=NOISE)
    def draw_prior(self, u: Float[Array, "*S"], u_low: Float[Array, "*S"] | None = None) -> Int[Array, "*S"]:
        """Draws x_T from the prior, with one uniform in [0, 1) per element; noise as for `draw_q`."""
        return inverse_cdf.categorical(jnp.broadcast_to(self.log_prior(), (*u.shape, self.K)), u, u_low)

    @property
    def common(self) -> "Process | None":
        """Returns a process whose levels are those of all elements: itself, where elements are alike."""
        return self

    def check_places(self, sizes: np.ndarray) -> None:
        """Raises ValueError unless it is for examples with so many categories at each place, [*S]."""
        if sizes.min() < sizes.max():
            raise ValueError(
                f"places have {sizes.min()} to {sizes.max()} categories, but {type(self).__name__} has one K "
                f"for all: take ByPlace, of Uniform, Marginal or Absorbing"
            )

    @declared(grid=steps(1))
    def respaced(self, grid: Sequence[int]) -> "Process":
        """Returns the process that takes the steps of the grid only; see `respace`.

        Raises:
            ValueError: it does not say how.
        """
        raise ValueError(f"{type(self).__name__} cannot take fewer steps: define its method respaced(grid)")

    def _categories(self, t: Array) -> Array:
        """Returns 0, ..., K - 1 for each t, [*B, K]."""
        return jnp.broadcast_to(jnp.arange(self.K, dtype=jnp.int32), (*jnp.shape(t), self.K))


METHODS = frozenset(name for name, member in vars(Process).items() if hasattr(member, "declaration"))


@declared()
def promote(process: Process, logits: Float[Array, "*S K"]) -> Float[Array, "*S K"]:
    """Returns logits in the type of the tables or wider."""
    return logits.astype(promote_types(logits.dtype, process.log_prior().dtype))


def _level_of_caller() -> int:
    """Returns which frame, counted from that of the function that calls this, is outside of the library."""
    frame = sys._getframe(1)
    level = 1
    while frame.f_back is not None and frame.f_globals.get("__name__", "").startswith("d3pm_jax."):
        frame = frame.f_back
        level += 1
    return level


def check_elementwise(process: Process, use: str) -> None:
    """Raises ValueError if a process goes by the position, for a use that needs elements each on its own.

    Args:
        process: the forward process.
        use: how the message begins: "a mask goes on top of", say.
    """
    if process.positional:
        raise ValueError(
            f"{use} a process of elements each on its own; {type(process).__name__} goes by the position"
        )


def check_same_for_all(process: Process, use: str) -> None:
    """Raises ValueError if places have processes of their own, or a process goes by the position.

    Args:
        process: the forward process.
        use: how the message begins, for a use that is of one element, whichever it is.
    """
    check_elementwise(process, use)
    if process.places:
        raise ValueError(
            f"{use} one process, and {type(process).__name__} has one for each place: pass these, one by one"
        )


_identity_allowed = ContextVar("identity_allowed", default=False)


@contextmanager
def allow_identity() -> Iterator[None]:
    """Allows constructors in its block to make a chain that changes nothing, which they refuse elsewhere.

    For comparing with programs that make such a chain, and for studying schedules. Nothing else changes: the
    warning that x_T still depends on x_0 stays. Threads that are started inside do not inherit it.
    """
    token = _identity_allowed.set(True)
    try:
        yield
    finally:
        _identity_allowed.reset(token)


def check_prior(nats: float, stay: float) -> None:
    """Refuses a chain that changes nothing, unless `allow_identity`; warns when x_T still tells of x_0.

    Args:
        nats: the largest KL(q(x_T | x_0) || prior) over x_0.
        stay: the smallest probability, over x_0, that x_T is x_0.
    """
    cure = "raise beta or the number of steps, or end the schedule at beta = 1"
    if stay > 1 - 1e-6 and not _identity_allowed.get():
        raise ValueError(
            f"the chain is the identity: x_T equals x_0 with probability {stay:.12g}; {cure}; if you "
            "mean it, make the process inside `with d3pm_jax.processes.allow_identity():`"
        )
    bits = nats / math.log(2)
    if bits > PRIOR_KL_WARNING:
        warnings.warn(
            f"x_T still depends on x_0: prior KL is up to {bits:.3g} bits per dimension "
            f"(more than {PRIOR_KL_WARNING:g}); {cure}",
            stacklevel=_level_of_caller(),  # so that the warning shows the line of the user
        )
