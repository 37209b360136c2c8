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
from collections.abc import Sequence
from typing import Literal, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float, Int

from d3pm_jax.types import Leaf

Spec = TypeVar("Spec")
FirstStep = Literal["bayes", "x0"]

PRIOR_KL_WARNING = 1e-3  # bits per dimension


class Transition(abc.ABC):
    """What every forward process offers. `Q` and `Qbar` are the definition, the rest is speed."""

    K: int
    T: int
    time: Leaf  # int32 [T + 1]  the step of the original process: what a network is told of t

    @property
    @abc.abstractmethod
    def matrices(self) -> bool:
        """Whether a loss reads a matrix [K, K] for each t."""

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
    def draw_q(
        self,
        x0: Int[Array, "*S"],
        t: Int[Array, "..."],
        u: Float[Array, "*S"],
        u_low: Float[Array, "*S"] | None = None,
    ) -> Int[Array, "*S"]:
        """A draw of x_t from q(x_t | x_0), from one uniform in [0, 1) per element (two words: `drawing`)."""

    @abc.abstractmethod
    def draw_prior(self, u: Float[Array, "*S"], u_low: Float[Array, "*S"] | None = None) -> Int[Array, "*S"]:
        """A draw of x_T from the prior, from one uniform in [0, 1) per element (two words: `drawing`)."""

    @abc.abstractmethod
    def loss_terms(
        self,
        logits_x0: Float[Array, "*S K"],
        x0: Int[Array, "*S"],
        xt: Int[Array, "*S"],
        t: Int[Array, "..."],
        first_step: FirstStep,
    ) -> tuple[Float[Array, "*S"], Float[Array, "*S"]]:
        """(`bayes.posterior_kl`, `bayes.cross_entropy`), in the fastest way that is exact."""

    @abc.abstractmethod
    def marginal_kl(
        self, logits_x0: Float[Array, "*S K"], x0: Int[Array, "*S"], t: Int[Array, "..."]
    ) -> Float[Array, "*S"]:
        """KL(q(x_t | x_0) || sum_{x_0} p(x_0) q(x_t | x_0)), for t in 0..T: without knowing x_{t+1}."""

    @abc.abstractmethod
    def respaced(self, grid: Sequence[int]) -> "Transition":
        """The process that takes the steps of the grid only; see `respace`."""


def respace(tr: Transition, grid: Sequence[int]) -> Transition:
    """The same process with fewer steps: its one-step matrices are the products between the kept times.

    Made from the one-step probabilities in float64, as the process itself was. Its `time` is that of the
    kept steps, so a network trained on tr serves it: strided sampling and strided bounds are the ordinary
    functions on this process.

    Args:
        tr: what a constructor returned.
        grid: the steps to keep, increasing, in 1..T; the last is T.

    Returns:
        A process of len(grid) steps, with the Qbar of tr at these.

    Raises:
        ValueError: the grid does not increase from at least 1 to T; or tr has been through a JAX
            transformation, which keeps only its rounded tables.
    """
    steps = [int(t) for t in grid]
    if not steps or steps[0] < 1 or steps[-1] != tr.T or steps != sorted(set(steps)):
        raise ValueError(f"grid = {steps}: it must increase from at least 1 and end at T = {tr.T}")
    return tr.respaced(steps)


def given(spec: Spec | None) -> Spec:
    """The float64 numbers that a process was made from. Raises ValueError where it has them no longer."""
    if spec is None:
        raise ValueError(
            "this process came out of a JAX transformation (jit, device_put, tree.map), which keeps only its "
            "rounded tables: respace the one that the constructor returned"
        )
    return spec


def steps_between(grid: Sequence[int]) -> list[range]:
    """For each kept time the steps since the one before."""
    return [range(a + 1, b + 1) for a, b in zip([0, *grid], grid, strict=False)]


def joined(p: np.ndarray, grid: Sequence[int]) -> np.ndarray:
    """1 - prod(1 - p_t) over the steps between kept times, from p [T]."""
    with np.errstate(divide="ignore"):
        never = np.log1p(-p)
    return -np.expm1(np.array([sum(never[t - 1] for t in steps) for steps in steps_between(grid)]))


def all_steps(T: int) -> np.ndarray:
    """`time` of a process that was not respaced."""
    return np.arange(T + 1, dtype=np.int32)


def log_bars(beta: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """log alpha_bar and log(1 - alpha_bar), float64 [T + 1] each."""
    with np.errstate(divide="ignore"):
        log_alpha_bar = np.cumsum(np.concatenate([[0.0], np.log1p(-beta)]))
        return log_alpha_bar, np.log(-np.expm1(log_alpha_bar))


def two_floats(x: np.ndarray) -> Array:
    """float64 numbers as two rows whose sum they are, in JAX's default float type."""
    high = x.astype(jax.dtypes.canonicalize_dtype(float))
    return jnp.asarray(np.stack([high, (x - high).astype(high.dtype)]))


def check_first_step(first_step: str) -> None:
    """Raises ValueError unless it is one of the two rules."""
    if first_step not in ("bayes", "x0"):
        raise ValueError(f'first_step = {first_step!r}: it must be "bayes" or "x0"')


def widen(tr: Transition, logits: Float[Array, "*S K"]) -> Float[Array, "*S K"]:
    """Logits in the type of the tables or wider. Raises ValueError unless there are K of them."""
    if logits.shape[-1] != tr.K:
        raise ValueError(f"logits have {logits.shape[-1]} categories, the process has K = {tr.K}")
    return logits.astype(jnp.promote_types(logits.dtype, tr.log_prior().dtype))


def spread(t: Array, shape: tuple[int, ...]) -> Array:
    """t with trailing axes of size 1. Raises ValueError unless its shape is a prefix of that of x."""
    if jnp.shape(t) != shape[: jnp.ndim(t)]:
        raise ValueError(f"t has shape {jnp.shape(t)}: it must be a prefix of the shape of x, {shape}")
    return jnp.reshape(t, jnp.shape(t) + (1,) * (len(shape) - jnp.ndim(t)))


def read(table: Array, *index: Array) -> Array:
    """table[index]; NaN, not the nearest entry or one from the end, where jit lets a wrong index through."""
    wide = (jnp.asarray(i, jnp.int32) for i in index)
    inside = [jnp.where(i < 0, n, i) for i, n in zip(wide, table.shape, strict=False)]
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
