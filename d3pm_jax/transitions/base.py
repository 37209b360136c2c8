"""The forward process q(x_t | x_{t-1}) as a structured operator on categories.

A process is a pytree with static K and T. Tables have T + 1 rows, and row 0 is the identity, so they
are indexed by t itself. They are made in float64 on the host and rounded once. They are constants: no
gradient reaches them. Rows are "from", columns are "to": Q[t, i, j] = q(x_t = j | x_{t-1} = i).

`t` is an int32 array whose shape is a prefix of the shape of x: () for one step for all, [B] for one
per example, [*S] for one per element.
"""

import abc
import math
import warnings

import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float, Int

PRIOR_KL_WARNING = 1e-3  # bits per dimension


class Transition(abc.ABC):
    """What every forward process offers. `Q` and `Qbar` are the definition, the rest is speed."""

    K: int
    T: int

    @abc.abstractmethod
    def Q(self, t: Int[Array, "*B"]) -> Float[Array, "*B K K"]:
        """The one-step matrix q(x_t | x_{t-1}), dense. For small K; the identity at t = 0."""

    @abc.abstractmethod
    def Qbar(self, t: Int[Array, "*B"]) -> Float[Array, "*B K K"]:
        """The matrix of q(x_t | x_0) = Q[1] ... Q[t], dense. For small K; the identity at t = 0."""

    @abc.abstractmethod
    def log_q_probs(self, x0: Int[Array, "*S"], t: Int[Array, "..."]) -> Float[Array, "*S K"]:
        """log q(x_t = . | x_0), a row of Qbar[t] (D3PM eq. 3)."""

    @abc.abstractmethod
    def log_q_back(self, xt: Int[Array, "*S"], t: Int[Array, "..."]) -> Float[Array, "*S K"]:
        """log q(x_t = xt | x_{t-1} = .), a column of Q[t]: a likelihood, it need not sum to 1."""

    @abc.abstractmethod
    def log_push(self, log_p: Float[Array, "*S K"], t: Int[Array, "..."]) -> Float[Array, "*S K"]:
        """log(p @ Qbar[t]) for normalised p: where a distribution over x_0 is after t steps."""

    @abc.abstractmethod
    def log_prior(self) -> Float[Array, " K"]:
        """log of the distribution that the reverse chain starts from."""

    @abc.abstractmethod
    def draw_q(self, x0: Int[Array, "*S"], t: Int[Array, "..."], u: Float[Array, "*S"]) -> Int[Array, "*S"]:
        """A draw of x_t from q(x_t | x_0), from one uniform in [0, 1) per element."""

    @abc.abstractmethod
    def draw_prior(self, u: Float[Array, "*S"]) -> Int[Array, "*S"]:
        """A draw of x_T from the prior, from one uniform in [0, 1) per element."""


def spread(t: Array, shape: tuple[int, ...]) -> Array:
    """t with trailing axes of size 1. Raises ValueError unless its shape is a prefix of that of x."""
    if jnp.shape(t) != shape[: jnp.ndim(t)]:
        raise ValueError(f"t has shape {jnp.shape(t)}: it must be a prefix of the shape of x, {shape}")
    return jnp.reshape(t, jnp.shape(t) + (1,) * (len(shape) - jnp.ndim(t)))


def read(table: Array, *index: Array) -> Array:
    """table[index]; NaN, not the nearest entry or one from the end, where jit lets a wrong index through."""
    inside = [jnp.where(i < 0, n, i) for i, n in zip(index, table.shape, strict=False)]
    return lax.stop_gradient(table).at[tuple(inside)].get(mode="fill", fill_value=jnp.nan)


def check_distribution(name: str, p: np.ndarray, K: int) -> np.ndarray:
    """p as float64 [K]. Raises ValueError unless it holds K probabilities that sum to 1."""
    p = np.asarray(p, np.float64)
    if p.shape != (K,) or not np.all(p >= 0) or abs(p.sum() - 1) > 1e-9:
        raise ValueError(
            f"{name} must be {K} probabilities that sum to 1, got shape {p.shape}, sum {p.sum():.12g}"
        )
    return p


def check_prior(nats: float, stay: float) -> None:
    """Refuse a chain that changes nothing; warn when x_T still tells of x_0."""
    cure = "raise beta or the number of steps, or end the schedule at beta = 1"
    if stay > 1 - 1e-6:
        raise ValueError(f"the chain is the identity: x_T equals x_0 with probability {stay:.12g}; {cure}")
    bits = nats / math.log(2)
    if bits > PRIOR_KL_WARNING:
        warnings.warn(
            f"x_T still depends on x_0: prior KL is up to {bits:.3g} bits per dimension "
            f"(more than {PRIOR_KL_WARNING:g}); {cure}",
            stacklevel=3,
        )
