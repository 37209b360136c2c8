"""Any one-step matrices, as dense tables."""

import dataclasses
import itertools
from collections.abc import Iterable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from d3pm_jax import numerics
from d3pm_jax.checks import check_categories, check_steps
from d3pm_jax.transitions.base import Transition, check_distribution, check_prior, read, spread
from d3pm_jax.types import Leaf


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Dense(Transition):
    """Any row-stochastic one-step matrices, as tables of T x K x K. Make one with `dense` or `gaussian`.

    Exact relative to its tables, whose entries below `numerics.smallest_entry` are 0.
    """

    Q_back: Leaf  # [T + 1, K, K]  Q_back[t, j, i] = Q[t, i, j]
    Q_cum: Leaf  # [T + 1, K, K]  Qbar
    log_pi: Leaf  # [K]
    K: int = dataclasses.field(metadata={"static": True})
    T: int = dataclasses.field(metadata={"static": True})

    def Q(self, t: Int[Array, "*B"]) -> Float[Array, "*B K K"]:
        check_steps(t, 0, self.T)
        return jnp.swapaxes(read(self.Q_back, t), -1, -2)

    def Qbar(self, t: Int[Array, "*B"]) -> Float[Array, "*B K K"]:
        check_steps(t, 0, self.T)
        return read(self.Q_cum, t)

    def log_q_probs(self, x0: Int[Array, "*S"], t: Int[Array, "..."]) -> Float[Array, "*S K"]:
        check_categories("x0", x0, self.K)
        check_steps(t, 0, self.T)
        return jnp.log(read(self.Q_cum, spread(t, x0.shape), x0))

    def log_q_back(self, xt: Int[Array, "*S"], t: Int[Array, "..."]) -> Float[Array, "*S K"]:
        check_categories("xt", xt, self.K)
        check_steps(t, 0, self.T)
        return jnp.log(read(self.Q_back, spread(t, xt.shape), xt))

    def log_push(self, log_p: Float[Array, "*S K"], t: Int[Array, "..."]) -> Float[Array, "*S K"]:
        check_steps(t, 0, self.T)
        spread(t, log_p.shape[:-1])
        rows = jnp.reshape(log_p, (*jnp.shape(t), -1, self.K))
        return jnp.reshape(numerics.log_matmul(rows, read(self.Q_cum, t)), log_p.shape)

    def log_prior(self) -> Float[Array, " K"]:
        return self.log_pi

    def draw_q(self, x0: Int[Array, "*S"], t: Int[Array, "..."], u: Float[Array, "*S"]) -> Int[Array, "*S"]:
        """The inverse of the cumulative row of Qbar at u (see `numerics.categorical`)."""
        return numerics.categorical(self.log_q_probs(x0, t), u)

    def draw_prior(self, u: Float[Array, "*S"]) -> Int[Array, "*S"]:
        """The inverse of the cumulative prior at u (see `numerics.categorical`)."""
        return numerics.categorical(jnp.broadcast_to(self.log_pi, (*u.shape, self.K)), u)


def dense(Q: Iterable[np.ndarray], prior: np.ndarray | None = None) -> Dense:
    """A process from its one-step matrices.

    Args:
        Q: the T matrices [K, K] for t = 1..T, in order: an array [T, K, K] or any iterable. Rows sum to 1.
        prior: [K], where the reverse chain starts; by default the mean row of Qbar[T].

    Returns:
        The process, with tables in JAX's default float type.

    Raises:
        ValueError: a matrix is not row-stochastic, or the chain is the identity.
    """
    back, cum, Qbar = _tables(Q)
    K = len(Qbar)
    pi = Qbar.mean(0) if prior is None else check_distribution("prior", prior, K)
    with np.errstate(divide="ignore", invalid="ignore"):
        nats = np.where(Qbar > 0, Qbar * np.log(Qbar / pi), 0.0).sum(1).max()
        log_pi = np.log(pi)
    check_prior(float(nats), float(np.diag(Qbar).min()))
    return Dense(jnp.asarray(back), jnp.asarray(cum), jnp.asarray(log_pi), K=K, T=len(cum) - 1)


def _tables(Q: Iterable[np.ndarray]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The rounded tables of transposed Q and of Qbar, row 0 the identity, and the float64 Qbar[T]."""
    steps = iter(Q)
    first = next(steps, None)
    if first is None:
        raise ValueError("Q is empty: a process needs at least 1 step")
    Qbar = np.eye(len(first))
    back, cum = [_round(Qbar)], [_round(Qbar)]
    for t, q in enumerate(itertools.chain([first], steps), 1):
        q = _check_stochastic(q, t, len(Qbar))
        Qbar = Qbar @ q
        back.append(_round(q.T))
        cum.append(_round(Qbar))
    return np.stack(back), np.stack(cum), Qbar


def _round(matrix: np.ndarray) -> np.ndarray:
    """The matrix in JAX's default float type, with entries too small for `numerics.log_matmul` set to 0."""
    dtype = jnp.zeros(0).dtype
    return np.where(matrix < numerics.smallest_entry(dtype), 0.0, matrix).astype(dtype)


def _check_stochastic(q: np.ndarray, t: int, K: int) -> np.ndarray:
    q = np.asarray(q, np.float64)
    if q.shape != (K, K) or K < 2:
        raise ValueError(
            f"Q at t = {t} has shape {q.shape}, expected [K, K] with the same K >= 2 for every t"
        )
    worst = np.abs(q.sum(1) - 1).max()
    if not (np.all(q >= 0) and worst < 1e-9):
        raise ValueError(
            f"Q at t = {t} is not row-stochastic (smallest entry {q.min():g}, row sums off by up to "
            f"{worst:.2g}): rows are 'from', columns are 'to'; transpose a column-stochastic matrix"
        )
    return q
