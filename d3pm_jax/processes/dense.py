"""Makes a process of any one-step matrices, as dense tables."""

import dataclasses
import math
from collections.abc import Callable, Iterable, Sequence
from functools import partial, reduce
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from d3pm_jax.checks import check_distribution, declared, real_array
from d3pm_jax.numerics import double_float, inverse_cdf, log_matmul, smallest_entry
from d3pm_jax.processes.base import Process, check_prior, promote
from d3pm_jax.processes.respace import require_spec, steps_between
from d3pm_jax.processes.tables import all_steps, expand_trailing, gather
from d3pm_jax.types import Leaf

Matrices = Sequence[np.ndarray] | np.ndarray  # [T, K, K], float64


class LazyMatrices(Sequence[np.ndarray]):
    """Makes the matrix of a step when it is asked for: make(beta_t), [K, K].

    All of them at once would need T x K x K float64. A process reads them when it is made and when it is
    respaced, one after the other.
    """

    def __init__(self, make: Callable[[float], np.ndarray], beta: np.ndarray):
        self._make = make
        self._beta = beta

    def __len__(self) -> int:
        return len(self._beta)

    def __getitem__(self, i: Any) -> Any:
        if isinstance(i, slice):
            return LazyMatrices(self._make, self._beta[i])
        return self._make(float(self._beta[i]))


class DenseSpec(NamedTuple):
    """Holds the float64 numbers that a process was made from, for `respace`."""

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
    spec: DenseSpec | None = None

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
        expand_trailing(t, log_p.shape[:-1])  # raises unless the shape of t is a prefix

        # All elements of one t go into one product with one matrix.
        n = math.prod(log_p.shape[jnp.ndim(t) : -1])
        rows = jnp.reshape(promote(self, log_p), (*jnp.shape(t), n, self.K))  # [*B, n, K]
        Qbar = gather(self.Qbar_table, t)  # [*B, K, K]
        return jnp.reshape(log_matmul(rows, Qbar), log_p.shape)

    def log_prior(self) -> Float[Array, " K"]:
        return self.log_pi

    def draw_q(
        self,
        x0: Int[Array, "*S"],
        t: Int[Array, "..."],
        u: Float[Array, "*S"],
        u_low: Float[Array, "*S"] | None = None,
    ) -> Int[Array, "*S"]:
        """Draws the first k with u < the sum of Qbar[t, x_0, 0..k]; with two words by `categorical`."""
        if u_low is not None:
            return inverse_cdf.categorical(self.log_q_probs(x0, t), u, u_low)
        ts = jnp.broadcast_to(expand_trailing(t, x0.shape), x0.shape)

        # jit lets a t or a category outside of the table through. Such an element reads row 0 and draws -1.
        in_table = (ts >= 0) & (ts <= self.T) & (x0 >= 0) & (x0 < self.K)
        rows = jnp.reshape(self.cdf, (-1, self.K))  # [(T + 1) K, K]
        row = jnp.where(in_table, ts * self.K + x0, 0)  # [*S]

        # The search reads about log2(K) entries of the row, each with one gather from the flat table. An
        # entry is the exact sum rounded up to a float, so that comparing it with u, a float, compares the sum
        # itself.
        def ends_at_or_below_u(k: Array) -> Array:
            return rows.at[row, k].get(mode="promise_in_bounds") <= u

        k = inverse_cdf.find_first(ends_at_or_below_u, self.K - 1, x0.shape)
        return jnp.where(in_table, k, -1)

    def draw_step(
        self,
        x: Int[Array, "*S"],
        t: Int[Array, "..."],
        u: Float[Array, "*S"],
        u_low: Float[Array, "*S"] | None = None,
    ) -> Int[Array, "*S"]:
        """Draws by `numerics.categorical` from the row Q[t, x]; cumulative sums would be one more table."""
        row = gather(self.Q_transposed, expand_trailing(t, x.shape), slice(None), x)  # [*S, K]
        return inverse_cdf.categorical(jnp.log(row), u, u_low)

    def draw_prior(self, u: Float[Array, "*S"], u_low: Float[Array, "*S"] | None = None) -> Int[Array, "*S"]:
        """Draws the first k with u < the sum of the prior over 0..k."""
        noise = double_float.noise_from_words(u, u_low)

        def ends_at_or_below_noise(k: Array) -> Array:
            end = (gather(self.prior_cdf[0], k), gather(self.prior_cdf[1], k))
            return ~double_float.is_less(noise, end)

        return inverse_cdf.find_first(ends_at_or_below_noise, self.K - 1, u.shape)

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
    if not isinstance(Q, Sequence | np.ndarray):
        Q = list(Q)
    process, Qbar = _dense(Q, prior, all_steps(len(Q)))
    with np.errstate(divide="ignore", invalid="ignore"):
        log_ratio = np.log(Qbar / require_spec(process.spec).prior)  # [K, K]
        nats = np.where(Qbar > 0, Qbar * log_ratio, 0.0).sum(1).max()
    check_prior(float(nats), float(np.diag(Qbar).min()))
    return process


def _dense(Q: Matrices, prior: np.ndarray | None, time: np.ndarray | Array) -> tuple[Dense, np.ndarray]:
    """Returns the process and the float64 Qbar[T]."""
    Q_transposed, Qbar_table, cdf, Qbar = _make_tables(Q)
    K = len(Qbar)
    pi = Qbar.mean(0) if prior is None else check_distribution("prior", prior, K)
    with np.errstate(divide="ignore"):
        log_pi = jnp.asarray(np.log(pi))
    process = Dense(
        Q_transposed=jnp.asarray(Q_transposed),
        Qbar_table=jnp.asarray(Qbar_table),
        cdf=jnp.asarray(cdf),
        log_pi=log_pi,
        prior_cdf=double_float.split_float64(_cumulative(pi)),
        time=jnp.asarray(time),
        K=K,
        T=len(Q),
        spec=DenseSpec(Q, pi),
    )
    return process, Qbar


def _make_tables(Q: Matrices) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Makes the rounded tables of a process, [T + 1, K, K] each, whose matrices at t = 0 are the identity.

    Returns:
        Q transposed, Qbar, the cumulative sums of the rows of Qbar, and Qbar[T] in float64, [K, K].
    """
    if len(Q) == 0:
        raise ValueError("Q is empty: a process needs at least 1 step")
    Qbar = np.eye(len(Q[0]))
    shape = (len(Q) + 1, *Qbar.shape)
    dtype = jax.dtypes.canonicalize_dtype(float)
    Q_transposed = np.empty(shape, dtype)
    Qbar_table = np.empty(shape, dtype)
    cdf = np.empty(shape, dtype)
    for t in range(len(Q) + 1):
        q = np.eye(len(Qbar))
        if t > 0:
            q = _check_stochastic(Q[t - 1], t, len(Qbar))
        Qbar = Qbar @ q

        # The tables round what is written into them. The cumulative sums are those of the float64 entries,
        # not of rounded ones: each category gets its probability to one grid step.
        Q_transposed[t] = _without_small(q.T)
        Qbar_table[t] = _without_small(Qbar)
        cdf[t] = _round_up(_cumulative(_without_small(Qbar)))
    return Q_transposed, Qbar_table, cdf, Qbar


def _cumulative(p: np.ndarray) -> np.ndarray:
    """Returns cumulative sums over the last axis, 1 from the last positive entry on."""
    # The last positive entry ends at 1 exactly, so that every u in [0, 1) draws a category of positive
    # probability, whatever the rounding of the sums.
    sums = np.cumsum(p, axis=-1)
    last_positive = p.shape[-1] - 1 - np.argmax(p[..., ::-1] > 0, axis=-1)
    return np.where(np.arange(p.shape[-1]) >= last_positive[..., None], 1.0, sums / sums[..., -1:])


def _round_up(x: np.ndarray) -> np.ndarray:
    """Returns the smallest float of JAX's default type not below x: no float lies between the two."""
    dtype = jax.dtypes.canonicalize_dtype(float)
    near = x.astype(dtype)
    return np.where(near < x, np.nextafter(near, np.asarray(np.inf, dtype)), near)


def _without_small(matrix: np.ndarray) -> np.ndarray:
    """Returns the matrix with 0 in place of entries too small for `numerics.log_matmul`."""
    return np.where(matrix < smallest_entry(jax.dtypes.canonicalize_dtype(float)), 0.0, matrix)


def _check_stochastic(q: Any, t: int, K: int) -> np.ndarray:
    """Returns the matrix of step t as float64 [K, K]. Raises ValueError unless it is row-stochastic."""
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
