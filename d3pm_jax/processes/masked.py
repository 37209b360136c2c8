"""Puts an absorbing mask on top of any process."""

import dataclasses
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from d3pm_jax import schedules
from d3pm_jax.checks import declared
from d3pm_jax.numerics import double_float, log_add, log_normalize, log_sum
from d3pm_jax.processes.base import Process, check_same_for_all, promote
from d3pm_jax.processes.respace import compose, require_spec
from d3pm_jax.processes.tables import gather, gather_steps, log_bars, log_steps
from d3pm_jax.types import Leaf

if TYPE_CHECKING:
    Inner = Process
else:
    Inner = Any  # a pytree is rebuilt with placeholders: see `types`
NEG_INF = -jnp.inf


@partial(
    jax.tree_util.register_dataclass,
    data_fields=("inner", "log_keep", "log_mask", "log_keep_bar", "log_mask_bar", "keep", "keep_bar", "time"),
    meta_fields=("K", "T"),
    drop_fields=("gamma",),
)
@dataclasses.dataclass(frozen=True)
class Masked(Process):
    """Q[t] = (1 - gamma_t) Q_inner[t], and gamma_t to a mask that keeps itself. Make one with `masked`.

    The mask is category K - 1. Qbar = (1 - gamma_bar) Qbar_inner and gamma_bar to the mask, so everything
    is the inner process and two numbers for each t.
    """

    inner: Inner  # a process of K - 1 categories
    log_keep: Leaf  # [T + 1]  log(1 - gamma)
    log_mask: Leaf  # [T + 1]  log gamma
    log_keep_bar: Leaf  # [T + 1]
    log_mask_bar: Leaf  # [T + 1]  log gamma_bar
    keep: Leaf  # [2, T + 1]  1 - gamma as the sum of two floats
    keep_bar: Leaf  # [2, T + 1]  1 - gamma_bar as the sum of two floats
    time: Leaf  # int32 [T + 1]
    K: int
    T: int
    gamma: np.ndarray | None = None

    @property
    def alpha_bar(self) -> Array:
        """[T + 1], (1 - gamma_bar) alpha_bar of the inner process: how likely steps 1..t all keep x_0.

        As in VQ-Diffusion. 1 - gamma_bar = exp(log_keep_bar) alone is no alpha_bar: it counts all unmasked
        elements, and the inner process may have moved some of them. Where the inner process has no alpha_bar,
        this one has none either.
        """
        inner = getattr(self.inner, "alpha_bar", None)
        if inner is None:
            raise AttributeError(
                f"Masked on top of {type(self.inner).__name__} has no alpha_bar, as "
                f"{type(self.inner).__name__} has none: there is no single probability of keeping x_0"
            )
        return jnp.exp(self.log_keep_bar) * inner

    def Q(self, t: Int[Array, "*B"]) -> Float[Array, "*B K K"]:
        return self._dense(self.inner.Q(t), gather(self.log_keep, t), gather(self.log_mask, t))

    def Qbar(self, t: Int[Array, "*B"]) -> Float[Array, "*B K K"]:
        return self._dense(self.inner.Qbar(t), gather(self.log_keep_bar, t), gather(self.log_mask_bar, t))

    def _dense(self, inner: Array, log_keep: Array, log_mask: Array) -> Array:
        """Puts a row and a column for the mask around matrices of the inner process, [.., K, K]."""
        scaled = jnp.exp(log_keep)[..., None, None] * inner
        to_mask = jnp.broadcast_to(jnp.exp(log_mask)[..., None, None], (*inner.shape[:-1], 1))
        of_mask = jnp.broadcast_to(jnp.eye(self.K, dtype=inner.dtype)[-1:], (*inner.shape[:-2], 1, self.K))
        return jnp.concatenate([jnp.concatenate([scaled, to_mask], -1), of_mask], -2)

    def log_q_probs(self, x0: Int[Array, "*S"], t: Int[Array, "..."]) -> Float[Array, "*S K"]:
        log_keep, log_mask = gather_steps((self.log_keep_bar, self.log_mask_bar), t, x0.shape)  # [*S] each
        is_mask = x0 == self.K - 1
        log_keep = jnp.where(is_mask, NEG_INF, log_keep)
        unmasked = log_keep[..., None] + self.inner.log_q_probs(self.inner_category(x0), t)  # [*S, K - 1]
        masked = jnp.where(is_mask, 0.0, log_mask)  # [*S]
        return jnp.concatenate([unmasked, masked[..., None]], axis=-1)

    def log_q_back(self, xt: Int[Array, "*S"], t: Int[Array, "..."]) -> Float[Array, "*S K"]:
        return self._column(self.inner.log_q_back, (self.log_keep, self.log_mask), xt, t)

    def log_q_x0(self, xt: Int[Array, "*S"], t: Int[Array, "..."]) -> Float[Array, "*S K"]:
        return self._column(self.inner.log_q_x0, (self.log_keep_bar, self.log_mask_bar), xt, t)

    def _column(
        self, inner_column: Callable[..., Array], tables: tuple[Array, Array], xt: Array, t: Array
    ) -> Array:
        """Returns the log of column x_t [*S, K] of Q or Qbar.

        Args:
            inner_column: the method of the inner process for its own column.
            tables: log(1 - gamma) and log gamma, or those of gamma_bar.
            xt, t: as for `log_q_back`.
        """
        log_keep, log_mask = gather_steps(tables, t, xt.shape)  # [*S] each
        is_mask = xt == self.K - 1
        column = log_keep[..., None] + inner_column(self.inner_category(xt), t)  # [*S, K - 1]
        column = jnp.where(is_mask[..., None], log_mask[..., None], column)
        from_mask = jnp.where(is_mask, 0.0, NEG_INF)
        return jnp.concatenate([column, from_mask[..., None]], axis=-1)

    def log_push(self, log_p: Float[Array, "*S K"], t: Int[Array, "..."]) -> Float[Array, "*S K"]:
        log_p = promote(self, log_p)
        log_keep, log_mask = gather_steps((self.log_keep_bar, self.log_mask_bar), t, log_p.shape[:-1])

        # The inner process pushes normalised distributions: that of x_0 where it is not the mask, whose
        # weight `total` comes back in afterwards.
        unmasked = log_p[..., :-1]  # [*S, K - 1]
        masked = log_p[..., -1]  # [*S]
        total = log_sum(unmasked)
        inner = (log_keep + total)[..., None] + self.inner.log_push(log_normalize(unmasked), t)
        return jnp.concatenate([inner, log_add(masked, total + log_mask)[..., None]], axis=-1)

    def log_prior(self) -> Float[Array, " K"]:
        log_keep = self.log_keep_bar[-1]
        log_mask = self.log_mask_bar[-1]
        return jnp.concatenate([log_keep + self.inner.log_prior(), log_mask[None]])

    def draw_q(
        self,
        x0: Int[Array, "*S"],
        t: Int[Array, "..."],
        u: Float[Array, "*S"],
        u_low: Float[Array, "*S"] | None = None,
    ) -> Int[Array, "*S"]:
        """Draws as `inner` does at u / (1 - gamma_bar_t) in two words; the mask where that is >= 1."""
        return self._draw_unless_masked(self.keep_bar, self.inner.draw_q, x0, t, u, u_low)

    def draw_step(
        self,
        x: Int[Array, "*S"],
        t: Int[Array, "..."],
        u: Float[Array, "*S"],
        u_low: Float[Array, "*S"] | None = None,
    ) -> Int[Array, "*S"]:
        """Draws as `inner` does at u / (1 - gamma_t) in two words; the mask where that is >= 1."""
        return self._draw_unless_masked(self.keep, self.inner.draw_step, x, t, u, u_low)

    def _draw_unless_masked(
        self,
        keep_table: Array,
        inner_draw: Callable[..., Array],
        x: Array,
        t: Array,
        u: Array,
        u_low: Array | None,
    ) -> Array:
        """Draws by a method of the inner process, or the mask; what is masked stays masked.

        Args:
            keep_table: 1 - gamma or 1 - gamma_bar, as pairs [2, T + 1].
            inner_draw: (x, t, u, u_low) -> categories of the inner process.
            x, t, u, u_low: as for `draw_q`.
        """
        keep = gather_steps(tuple(keep_table), t, x.shape)

        def draw_inner(u: Array, u_low: Array) -> Array:
            return inner_draw(self.inner_category(x), t, u, u_low)

        drawn = self._draw(keep, u, u_low, draw_inner)
        # A t outside of 0..T, which only jit lets through, reads NaN.
        return jnp.where(x == self.K - 1, self.K - 1, jnp.where(jnp.isnan(keep[0]), -1, drawn))

    def draw_prior(self, u: Float[Array, "*S"], u_low: Float[Array, "*S"] | None = None) -> Int[Array, "*S"]:
        """Draws as `draw_q` does, at t = T."""
        keep = tuple(jnp.broadcast_to(table[-1], u.shape) for table in self.keep_bar)
        return self._draw(keep, u, u_low, self.inner.draw_prior)

    def _draw(
        self,
        keep: double_float.DoubleFloat,
        u: Array,
        u_low: Array | None,
        draw_inner: Callable[[Array, Array], Array],
    ) -> Array:
        """Draws the mask where the noise is at least `keep`, elsewhere a category of the inner process.

        Given that the noise is below `keep`, their quotient is uniform again, and serves as the noise of the
        inner process. It is a sum of two floats, which become two words: stretching a word uncovers the
        digits below its grid, and with zeros there the inner process would draw too coarsely.

        Args:
            keep: 1 - gamma_bar, or 1 - gamma, as pairs [*S].
            u, u_low: noise, as for `draw_q`.
            draw_inner: (u, u_low) -> categories of the inner process.
        """
        noise = double_float.noise_from_words(u, u_low)
        hidden = ~double_float.is_less(noise, keep)

        # Hidden elements divide by 1, as `keep` may be 0, and draw from noise 0; nobody reads what they draw.
        keep_high, keep_low = keep
        divisor = (jnp.where(hidden, 1.0, keep_high), jnp.where(hidden, 0.0, keep_low))
        high, low = double_float.divide(noise, divisor)
        inner_u = jnp.where(hidden, 0.0, high)
        inner_u_low = jnp.where(hidden, 0.0, low / jnp.finfo(u.dtype).eps)
        return jnp.where(hidden, self.K - 1, draw_inner(inner_u, inner_u_low))

    def inner_category(self, x: Array) -> Array:
        """Returns x where it is not the mask, elsewhere any category of the inner process."""
        return jnp.where(x == self.K - 1, 0, x)

    def respaced(self, grid: Sequence[int]) -> "Masked":
        gamma = require_spec(self.gamma)
        return _masked(self.inner.respaced(grid), compose(gamma, grid))


@declared()
def masked(inner: Process, gamma: np.ndarray) -> Masked:
    """Puts a mask on top of a process: on a uniform one as in VQ-Diffusion, on bands, on graphs.

    The new category inner.K is the mask. The data never contains it: forbid it to the network
    (`heads.forbid`). `inner` checks itself when it is made, on its own: a warning that its x_T still depends
    on x_0 means nothing where gamma ends at 1.

    Args:
        inner: any process of elements each on its own: not `autoregressive`.
        gamma: [T], the probability of being masked at each step, each in (0, 1]; see `schedules`.

    Raises:
        ValueError: gamma has another length than the inner process, or values outside (0, 1]; the inner
            process goes by the position.
    """
    check_same_for_all(inner, "a mask goes on top of")
    gamma = schedules.check_betas(gamma, "gamma")
    if gamma.size != inner.T:
        raise ValueError(f"gamma has {gamma.size} steps, the inner process {inner.T}: give both the same T")
    return _masked(inner, gamma)


def _masked(inner: Process, gamma: np.ndarray) -> Masked:
    """Makes the tables of `masked`."""
    log_keep_bar, log_mask_bar = log_bars(gamma)
    log_keep, log_mask = log_steps(gamma)
    return Masked(
        inner,
        log_keep=jnp.asarray(log_keep),
        log_mask=jnp.asarray(log_mask),
        log_keep_bar=jnp.asarray(log_keep_bar),
        log_mask_bar=jnp.asarray(log_mask_bar),
        keep=double_float.split_float64(np.concatenate([[1.0], 1 - gamma])),
        keep_bar=double_float.split_float64(np.exp(log_keep_bar)),
        time=inner.time,
        K=inner.K + 1,
        T=inner.T,
        gamma=gamma,
    )
