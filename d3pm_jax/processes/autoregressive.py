"""Masks a sequence from its end, one position a step: the reverse chain writes from left to right."""

import dataclasses
from collections.abc import Sequence
from functools import partial
from typing import ClassVar, NoReturn

import jax
import jax.core
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from d3pm_jax.checks import CATEGORY, NUM_CATEGORIES, NUM_STEPS, declared
from d3pm_jax.processes.base import Process, promote
from d3pm_jax.processes.respace import require_spec
from d3pm_jax.processes.tables import all_steps, expand_trailing, is_category
from d3pm_jax.types import Leaf


@partial(
    jax.tree_util.register_dataclass,
    data_fields=("log_pi", "time"),
    meta_fields=("K", "T", "L", "mask_id"),
)
@dataclasses.dataclass(frozen=True)
class Autoregressive(Process):
    """Q[t] takes position L - t to the mask and keeps the others: of x_t the last t positions are masked.

    Positions count from 0 along the last axis of x, which has length L; t is one for all or one for each
    sequence. Nothing is random; what is the mask stays the mask. O(K) per element. Make one with
    `autoregressive`.
    """

    log_pi: Leaf  # [K]  certain of the mask
    time: Leaf  # int32 [T + 1]  the step of the original process, and so how many positions are masked
    K: int
    T: int
    L: int
    mask_id: int
    positional: ClassVar[bool] = True

    def Q(self, t: Int[Array, "*B"]) -> Float[Array, "*B K K"]:
        """Raises ValueError: there is one matrix for each position."""
        self._refuse_matrix("Q", "its columns are log_q_back(xt, t)")

    def Qbar(self, t: Int[Array, "*B"]) -> Float[Array, "*B K K"]:
        """Raises ValueError: there is one matrix for each position."""
        self._refuse_matrix("Qbar", "its rows are log_q_probs(x0, t), its columns log_q_x0(xt, t)")

    def log_q_probs(self, x0: Int[Array, "*S"], t: Int[Array, "..."]) -> Float[Array, "*S K"]:
        return self._certain_of(self._move(x0, t))

    def log_q_back(self, xt: Int[Array, "*S"], t: Int[Array, "..."]) -> Float[Array, "*S K"]:
        return self._column(self._masked_at(t, xt.shape), xt)

    def log_q_x0(self, xt: Int[Array, "*S"], t: Int[Array, "..."]) -> Float[Array, "*S K"]:
        return self._column(self._masked(t, xt.shape), xt)

    def log_push(self, log_p: Float[Array, "*S K"], t: Int[Array, "..."]) -> Float[Array, "*S K"]:
        log_p = promote(self, log_p)
        masked = self._masked(t, log_p.shape[:-1])[..., None]  # [*S, 1]
        # A row that is no distribution, all -inf or with a NaN, stays what it is: its largest entry shows
        # which.
        largest = jax.lax.stop_gradient(jnp.max(log_p, axis=-1, keepdims=True))  # [*S, 1]
        log_pi = jnp.reshape(jax.lax.stop_gradient(self.log_pi), (1,) * (log_p.ndim - 1) + (self.K,))
        moved = jnp.where(largest > -jnp.inf, log_pi, largest)
        return jnp.where(masked, moved, log_p)

    def log_prior(self) -> Float[Array, " K"]:
        return self.log_pi

    def draw_q(
        self,
        x0: Int[Array, "*S"],
        t: Int[Array, "..."],
        u: Float[Array, "*S"],
        u_low: Float[Array, "*S"] | None = None,
    ) -> Int[Array, "*S"]:
        """Returns x_t, whatever u is."""
        return self._move(x0, t)

    def draw_step(
        self,
        x: Int[Array, "*S"],
        t: Int[Array, "..."],
        u: Float[Array, "*S"],
        u_low: Float[Array, "*S"] | None = None,
    ) -> Int[Array, "*S"]:
        """Returns x with the position of step t masked, whatever u is."""
        return jnp.where(self._masked_at(t, x.shape), jnp.asarray(self.mask_id, x.dtype), x)

    def draw_prior(self, u: Float[Array, "*S"], u_low: Float[Array, "*S"] | None = None) -> Int[Array, "*S"]:
        """Returns the mask, whatever u is."""
        return jnp.full(u.shape, self.mask_id, jnp.int32)

    def respaced(self, grid: Sequence[int]) -> "Autoregressive":
        """Returns the process that masks several positions at once, those between the steps of the grid."""
        # `time` is all that the process was made from. It is lost in jit, and where processes were stacked.
        spec: Leaf | None = self.time
        if isinstance(self.time, jax.core.Tracer) or np.ndim(self.time) != 1:
            spec = None
        time = np.asarray(require_spec(spec))
        return dataclasses.replace(self, time=jnp.asarray(time[[0, *grid]]), T=len(grid))

    def _masked(self, t: Array, shape: tuple[int, ...]) -> Array:
        """Tells which elements of an x of this shape are masked after t steps: bool, of that shape."""
        if not shape or shape[-1] != self.L:
            raise ValueError(
                f"x has shape {shape}, but an autoregressive process goes by the position along its last "
                f"axis, of length L = {self.L}: pass whole sequences [.., {self.L}], or make it with that L"
            )
        if jnp.ndim(t) == len(shape):
            raise ValueError(
                f"t has shape {jnp.shape(t)}, a step for each element: a step masks a position of a whole "
                f"sequence, so pass one t for all or one for each sequence, [] to {list(shape[:-1])}"
            )
        positions = jnp.arange(self.L, dtype=jnp.int32).reshape((1,) * (len(shape) - 1) + (self.L,))
        return jnp.broadcast_to(positions >= self.L - expand_trailing(self.time[t], shape), shape)

    def _masked_at(self, t: Array, shape: tuple[int, ...]) -> Array:
        """Tells which elements of an x of this shape step t itself masks: bool, of that shape."""
        return self._masked(t, shape) & ~self._masked(jnp.maximum(t - 1, 0), shape)

    def _move(self, x0: Array, t: Array) -> Array:
        """Returns x_t: x_0 with its last t positions masked."""
        return jnp.where(self._masked(t, x0.shape), jnp.asarray(self.mask_id, x0.dtype), x0)

    def _column(self, moved: Array, xt: Array) -> Array:
        """Returns the log of column x_t [*S, K] of the matrix of each position.

        That matrix takes every category to the mask where the position is moved, and is the identity
        elsewhere.
        """
        is_mask = jnp.where(xt == self.mask_id, 0.0, -jnp.inf).astype(self.log_pi.dtype)
        return jnp.where(moved[..., None], is_mask[..., None], self._certain_of(xt))

    def _certain_of(self, x: Array) -> Array:
        """log onehot(x) [*S, K]."""
        return jnp.where(is_category(x, self.K), 0.0, -jnp.inf).astype(self.log_pi.dtype)

    def _refuse_matrix(self, name: str, instead: str) -> NoReturn:
        """Raises ValueError for a matrix that depends on the position, and says what to call instead."""
        raise ValueError(
            f"{name}(t) of the autoregressive process is another matrix at each position: {instead}, "
            f"of x [.., {self.L}]"
        )


@declared(L=NUM_STEPS, K=NUM_CATEGORIES, mask_id=CATEGORY)
def autoregressive(L: int, K: int, mask_id: int) -> Autoregressive:
    """Masks position L - t, counted from 0, at step t: autoregressive models as diffusion (D3PM section 4).

    The bound of the process is -log p(x_0) itself by the chain rule, from left to right, and its terms are
    the cross entropies of one position each, as for x_t that shows what is before it. T = L.

    Args:
        L: the length of a sequence, the last axis of x.
        K: number of categories, the mask counted.
        mask_id: which of the K the mask is. When the data never contains it, forbid it to the network
            (`heads.forbid`).

    Raises:
        ValueError: L below 1, K below 2, or mask_id outside 0..K - 1.
    """
    log_pi = np.where(np.arange(K) == mask_id, 0.0, -np.inf)
    return Autoregressive(jnp.asarray(log_pi), all_steps(L), K=K, T=L, L=L, mask_id=mask_id)
