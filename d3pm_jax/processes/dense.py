"""Makes a process of any one-step matrices, as dense tables."""

import dataclasses
from collections.abc import Callable, Iterable, Sequence
from functools import partial, reduce
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from d3pm_jax import numerics
from d3pm_jax.checks import check_distribution, declared, real_array
from d3pm_jax.numerics import double_float, inverse_cdf
from d3pm_jax.processes.base import Process, check_prior
from d3pm_jax.processes.respace import require_spec, steps_between
from d3pm_jax.processes.tables import all_steps, expand_trailing, gather
from d3pm_jax.types import Leaf

Matrices = Sequence[np.ndarray] | np.ndarray  # [T, K, K], float64


class LazyMatrices(Sequence[np.ndarray]):
    """Gives make(beta_t) for each t, any number of times: all of them at once need T x K x K float64."""

    def __init__(self, make: Callable[[float], np.ndarray], beta: np.ndarray):
        self._make, self._beta = make, beta

    def __len__(self) -> int:
        return len(self._beta)

    def __getitem__(self, i: Any) -> Any:
        if isinstance(i, slice):
            return LazyMatrices(self._make, self._beta[i])
        return self._make(float(self._beta[i]))


class Spec(NamedTuple):
    """Holds what a process was made from."""

    Q: Matrices
    prior: np.ndarray  # float64 [K]


@partial(
    jax.tree_util.register_dataclass,
    data_fields=("Q_transposed", "Qbar_table", "cdf", "log_pi", "prior_cdf", "time"),
    meta_fields=("K", "T"),
    drop_fields=("spec",),
)
@dataclasses.dataclass(frozen=True)
class Dense(Process):
    """Holds any row-stochastic one-step matrices, as tables of T x K x K. Make one with `dense`.

    Exact relative to its tables, whose entries below `numerics.smallest_entry` are 0.
    """

    Q_transposed: Leaf  # [T + 1, K, K]  Q_transposed[t, j, i] = Q[t, i, j]
    Qbar_table: Leaf  # [T + 1, K, K]  Qbar
    cdf: Leaf  # [T + 1, K, K]  cumulative sums of the rows of Qbar, each rounded up to a float
    log_pi: Leaf  # [K]
    prior_cdf: Leaf  # [2, K]  cumulative sum of the prior, as the sum of two floats
    time: Leaf  # int32 [T + 1]
    K: int
    T: int
    spec: Spec | None = None

    def Q(self, t: Int[Array, "*B"]) -> Float[Array, "*B K K"]:
        return jnp.swapaxes(gather(self.Q_transposed, t), -1, -2)

    def Qbar(self, t: Int[Array, "*B"]) -> Float[Array, "*B K K"]:
        return gather(self.Qbar_table, t)

    def log_q_probs(self, x0: Int[Array, "*S"], t: Int[Array, "..."]) -> Float[Array, "*S K"]:
        return jnp.log(gather(self.Qbar_table, expand_trailing(t, x0.shape), x0))

    def log_q_back(self, xt: Int[Array, "*S"], t: Int[Array, "..."]) -> Float[Array, "*S K"]:
        return jnp.log(gather(self.Q_transposed, expand_trailing(t, xt.shape), xt))

    def log_q_x0(self, xt: Int[Array, "*S"], t: Int[Array, "..."]) -> Float[Array, "*S K"]:
        return jnp.log(gather(self.Qbar_table, expand_trailing(t, xt.shape), slice(None), xt))

    def log_push(self, log_p: Float[Array, "*S K"], t: Int[Array, "..."]) -> Float[Array, "*S K"]:
        expand_trailing(t, log_p.shape[:-1])
        rows = jnp.reshape(log_p, (*jnp.shape(t), -1, self.K))
        return jnp.reshape(numerics.log_matmul(rows, gather(self.Qbar_table, t)), log_p.shape)

    def log_prior(self) -> Float[Array, " K"]:
        return self.log_pi

    def draw_q(
        self,
        x0: Int[Array, "*S"],
        t: Int[Array, "..."],
        u: Float[Array, "*S"],
        u_low: Float[Array, "*S"] | None = None,
    ) -> Int[Array, "*S"]:
        """Draws the first k with u < the sum of Qbar[t, x_0, 0..k]; two words: `numerics.categorical`."""
        if u_low is not None:
            return inverse_cdf.categorical(self.log_q_probs(x0, t), u, u_low)
        ts = jnp.broadcast_to(expand_trailing(t, x0.shape), x0.shape)
        known = (ts >= 0) & (ts <= self.T) & (x0 >= 0) & (x0 < self.K)  # jit lets others through
        rows, row = jnp.reshape(self.cdf, (-1, self.K)), jnp.where(known, ts * self.K + x0, 0)

        def passed(k: Array) -> Array:
            return rows.at[row, k].get(mode="promise_in_bounds") <= u

        k = inverse_cdf.find_first(passed, self.K - 1, x0.shape)
        return jnp.where(known, k, -1)

    def draw_prior(self, u: Float[Array, "*S"], u_low: Float[Array, "*S"] | None = None) -> Int[Array, "*S"]:
        """Draws the first k with u < the sum of the prior over 0..k."""
        cdf, noise = self.prior_cdf, double_float.noise_from_words(u, u_low)
        return inverse_cdf.find_first(
            lambda k: ~double_float.is_less(noise, (gather(cdf[0], k), gather(cdf[1], k))),
            self.K - 1,
            u.shape,
        )

    def respaced(self, grid: Sequence[int]) -> "Dense":
        Q, prior = require_spec(self.spec)
        products = [reduce(np.matmul, (Q[t - 1] for t in steps)) for steps in steps_between(grid)]
        return _dense(products, prior, np.asarray(self.time)[[0, *grid]])[0]


@declared()
def dense(Q: Iterable[np.ndarray], prior: np.ndarray | None = None) -> Dense:
    """Makes a process from its one-step matrices.

    Args:
        Q: the T matrices [K, K] for t = 1..T, in order: an array [T, K, K] or any iterable. Rows sum to 1.
        prior: [K], where the reverse chain starts; by default the mean row of Qbar[T].

    Returns:
        The process, with tables in JAX's default float type.

    Raises:
        ValueError: a matrix is not row-stochastic, or the chain is the identity.
    """
    Q = Q if isinstance(Q, Sequence | np.ndarray) else list(Q)
    process, Qbar = _dense(Q, prior, all_steps(len(Q)))
    with np.errstate(divide="ignore", invalid="ignore"):
        log_ratio = np.log(Qbar / require_spec(process.spec).prior)
        nats = np.where(Qbar > 0, Qbar * log_ratio, 0.0).sum(1).max()
    check_prior(float(nats), float(np.diag(Qbar).min()))
    return process


def _dense(Q: Matrices, prior: np.ndarray | None, time: np.ndarray | Array) -> tuple[Dense, np.ndarray]:
    """Returns the process and the float64 Qbar[T]."""
    back, cum, cdf, Qbar = _tables(Q)
    K = len(Qbar)
    pi = Qbar.mean(0) if prior is None else check_distribution("prior", prior, K)
    with np.errstate(divide="ignore"):
        log_pi = jnp.asarray(np.log(pi))
    process = Dense(
        *(jnp.asarray(x) for x in (back, cum, cdf)),
        log_pi=log_pi,
        prior_cdf=double_float.split_float64(_cumulative(pi)),
        time=jnp.asarray(time),
        K=K,
        T=len(Q),
        spec=Spec(Q, pi),
    )
    return process, Qbar


def _tables(Q: Matrices) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Makes rounded tables of transposed Q, Qbar and its cumulative sums, row 0 the identity, and Qbar[T]."""
    if len(Q) == 0:
        raise ValueError("Q is empty: a process needs at least 1 step")
    Qbar = np.eye(len(Q[0]))
    shape = (len(Q) + 1, *Qbar.shape)
    back, cum, cdf = (np.empty(shape, jax.dtypes.canonicalize_dtype(float)) for _ in range(3))
    for t in range(len(Q) + 1):
        q = _check_stochastic(Q[t - 1], t, len(Qbar)) if t else Qbar
        Qbar = Qbar @ q
        back[t], cum[t], cdf[t] = _round(q.T), _round(Qbar), _round_up(_cumulative(_without_small(Qbar)))
    return back, cum, cdf, Qbar


def _cumulative(p: np.ndarray) -> np.ndarray:
    """Returns cumulative sums over the last axis, 1 from the last positive entry on."""
    sums = np.cumsum(p, axis=-1)
    last = p.shape[-1] - 1 - np.argmax(p[..., ::-1] > 0, axis=-1)
    return np.where(np.arange(p.shape[-1]) >= last[..., None], 1.0, sums / sums[..., -1:])


def _round_up(x: np.ndarray) -> np.ndarray:
    """Returns the smallest float of JAX's default type not below x: no float lies between the two."""
    dtype = jax.dtypes.canonicalize_dtype(float)
    near = x.astype(dtype)
    return np.where(near < x, np.nextafter(near, np.asarray(np.inf, dtype)), near)


def _round(matrix: np.ndarray) -> np.ndarray:
    """Rounds the matrix to JAX's default float type; entries too small for `numerics.log_matmul` become 0."""
    return _without_small(matrix).astype(jax.dtypes.canonicalize_dtype(float))


def _without_small(matrix: np.ndarray) -> np.ndarray:
    return np.where(matrix < numerics.smallest_entry(jax.dtypes.canonicalize_dtype(float)), 0.0, matrix)


def _check_stochastic(q: Any, t: int, K: int) -> np.ndarray:
    q = real_array(f"Q at t = {t}", q)
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
