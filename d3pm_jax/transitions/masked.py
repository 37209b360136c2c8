"""An absorbing mask on top of any process."""

import dataclasses
from collections.abc import Sequence
from functools import cache, partial

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from d3pm_jax import chunks, drawing, numerics, schedules
from d3pm_jax.checks import check_categories, check_steps
from d3pm_jax.transitions import base, bayes
from d3pm_jax.transitions.base import FirstStep, Transition, read, spread
from d3pm_jax.types import Inner, Leaf

NEG_INF = -jnp.inf
TABLES = ("inner", "log_keep", "log_mask", "log_keep_bar", "log_mask_bar", "keep_bar", "time")


@partial(jax.tree_util.register_dataclass, data_fields=TABLES, meta_fields=("K", "T"), drop_fields=("gamma",))
@dataclasses.dataclass(frozen=True)
class Masked(Transition):
    """Q[t] = (1 - gamma_t) Q_inner[t], and gamma_t to a mask that keeps itself. Make one with `masked`.

    The mask is category K - 1. Qbar = (1 - gamma_bar) Qbar_inner and gamma_bar to the mask, so everything
    is the inner process and two numbers for each t.
    """

    inner: Inner  # a process of K - 1 categories
    log_keep: Leaf  # [T + 1]  log(1 - gamma)
    log_mask: Leaf  # [T + 1]  log gamma
    log_keep_bar: Leaf  # [T + 1]
    log_mask_bar: Leaf  # [T + 1]  log gamma_bar
    keep_bar: Leaf  # [2, T + 1]  1 - gamma_bar as the sum of two floats
    time: Leaf  # [T + 1]
    K: int
    T: int
    gamma: np.ndarray | None = None

    @property
    def matrices(self) -> bool:
        return self.inner.matrices

    def Q(self, t: Int[Array, "*B"]) -> Float[Array, "*B K K"]:
        t = check_steps(t, 0, self.T)
        return self._dense(self.inner.Q(t), read(self.log_keep, t), read(self.log_mask, t))

    def Qbar(self, t: Int[Array, "*B"]) -> Float[Array, "*B K K"]:
        t = check_steps(t, 0, self.T)
        return self._dense(self.inner.Qbar(t), read(self.log_keep_bar, t), read(self.log_mask_bar, t))

    def _dense(self, inner: Array, log_keep: Array, log_mask: Array) -> Array:
        scaled = jnp.exp(log_keep)[..., None, None] * inner
        to_mask = jnp.broadcast_to(jnp.exp(log_mask)[..., None, None], (*inner.shape[:-1], 1))
        last = jnp.broadcast_to(jnp.eye(self.K, dtype=inner.dtype)[-1:], (*inner.shape[:-2], 1, self.K))
        return jnp.concatenate([jnp.concatenate([scaled, to_mask], -1), last], -2)

    def log_q_probs(self, x0: Int[Array, "*S"], t: Int[Array, "..."]) -> Float[Array, "*S K"]:
        x0 = check_categories("x0", x0, self.K)
        t = check_steps(t, 0, self.T)
        keep, mask = self.read_steps((self.log_keep_bar, self.log_mask_bar), t, x0.shape)
        hidden = x0 == self.K - 1
        inner = jnp.where(hidden, NEG_INF, keep)[..., None] + self.inner.log_q_probs(self.seen(x0), t)
        return jnp.concatenate([inner, jnp.where(hidden, 0.0, mask)[..., None]], axis=-1)

    def log_q_back(self, xt: Int[Array, "*S"], t: Int[Array, "..."]) -> Float[Array, "*S K"]:
        xt = check_categories("xt", xt, self.K)
        t = check_steps(t, 0, self.T)
        keep, mask = self.read_steps((self.log_keep, self.log_mask), t, xt.shape)
        hidden = xt == self.K - 1
        inner = keep[..., None] + self.inner.log_q_back(self.seen(xt), t)
        inner = jnp.where(hidden[..., None], mask[..., None], inner)
        return jnp.concatenate([inner, jnp.where(hidden, 0.0, NEG_INF)[..., None]], axis=-1)

    def log_push(self, log_p: Float[Array, "*S K"], t: Int[Array, "..."]) -> Float[Array, "*S K"]:
        t = check_steps(t, 0, self.T)
        keep, mask = self.read_steps((self.log_keep_bar, self.log_mask_bar), t, log_p.shape[:-1])
        seen, hidden = log_p[..., :-1], log_p[..., -1]
        total = numerics.log_sum(seen)
        inner = (keep + total)[..., None] + self.inner.log_push(numerics.log_normalize(seen), t)
        return jnp.concatenate([inner, numerics.log_add(hidden, total + mask)[..., None]], axis=-1)

    def log_prior(self) -> Float[Array, " K"]:
        keep, mask = self.log_keep_bar[-1], self.log_mask_bar[-1]
        return jnp.concatenate([keep + self.inner.log_prior(), mask[None]])

    def draw_q(
        self,
        x0: Int[Array, "*S"],
        t: Int[Array, "..."],
        u: Float[Array, "*S"],
        u_low: Float[Array, "*S"] | None = None,
    ) -> Int[Array, "*S"]:
        """What the inner process draws at u / (1 - gamma_bar_t) in two words; the mask where that is >= 1."""
        x0 = check_categories("x0", x0, self.K)
        t = check_steps(t, 0, self.T)
        keep = tuple(jnp.broadcast_to(read(table, spread(t, x0.shape)), x0.shape) for table in self.keep_bar)
        drawn = self._draw(keep, u, u_low, lambda *noise: self.inner.draw_q(self.seen(x0), t, *noise))
        return jnp.where(x0 == self.K - 1, self.K - 1, jnp.where(jnp.isnan(keep[0]), -1, drawn))

    def draw_prior(self, u: Float[Array, "*S"], u_low: Float[Array, "*S"] | None = None) -> Int[Array, "*S"]:
        """As for `draw_q`, at t = T."""
        keep = tuple(jnp.broadcast_to(table[-1], u.shape) for table in self.keep_bar)
        return self._draw(keep, u, u_low, self.inner.draw_prior)

    def _draw(self, keep: drawing.Pair, u: Array, u_low: Array | None, draw_inner) -> Array:
        noise = drawing.value(u, u_low)
        hidden = ~drawing.less(noise, keep)
        some = tuple(jnp.where(hidden, one, x) for one, x in zip((1.0, 0.0), keep, strict=True))
        high, low = drawing.over(noise, some)
        inner = draw_inner(jnp.where(hidden, 0.0, high), jnp.where(hidden, 0.0, low / jnp.finfo(u.dtype).eps))
        return jnp.where(hidden, self.K - 1, inner)

    def loss_terms(
        self,
        logits_x0: Float[Array, "*S K"],
        x0: Int[Array, "*S"],
        xt: Int[Array, "*S"],
        t: Int[Array, "..."],
        first_step: FirstStep,
    ) -> tuple[Float[Array, "*S"], Float[Array, "*S"]]:
        x0, xt = check_categories("x0", x0, self.K), check_categories("xt", xt, self.K)
        t = check_steps(t, 1, self.T)
        base.check_first_step(first_step)
        kl = chunks.elementwise(
            *_losses(first_step), self, base.widen(self, logits_x0), x0, xt, jnp.asarray(t)
        )
        return kl, bayes.cross_entropy(self, logits_x0, x0)

    def marginal_kl(
        self, logits_x0: Float[Array, "*S K"], x0: Int[Array, "*S"], t: Int[Array, "..."]
    ) -> Float[Array, "*S"]:
        return bayes.marginal_kl(self, logits_x0, x0, t)

    def respaced(self, grid: Sequence[int]) -> "Masked":
        gamma = base.given(self.gamma)
        return _masked(self.inner.respaced(grid), base.joined(gamma, grid))

    def read_steps(self, tables: Sequence[Array], t: Array, shape: tuple[int, ...]) -> list[Array]:
        """Rows of tables for each element."""
        return [jnp.broadcast_to(read(table, spread(t, shape)), shape) for table in tables]

    def seen(self, x: Array) -> Array:
        """x where it is not the mask, elsewhere any category of the inner process."""
        return jnp.where(x == self.K - 1, 0, x)


def masked(inner: Transition, gamma: np.ndarray) -> Masked:
    """A mask on top of a process: of a uniform one as in VQ-Diffusion, of bands, of graphs.

    The new category inner.K is the mask. The data never contains it: forbid it to the network
    (`heads.forbid`). `inner` checks itself when it is made, on its own: a warning that its x_T still depends
    on x_0 means nothing where gamma ends at 1.

    Args:
        inner: any process.
        gamma: [T], the probability of being masked at each step, each in (0, 1]; see `schedules`.

    Raises:
        ValueError: gamma has another length than the inner process, or values outside (0, 1].
    """
    gamma = schedules.check_betas(gamma)
    if gamma.size != inner.T:
        raise ValueError(f"gamma has {gamma.size} steps, the inner process {inner.T}: give both the same T")
    return _masked(inner, gamma)


def _masked(inner: Transition, gamma: np.ndarray) -> Masked:
    log_keep_bar, log_mask_bar = base.log_bars(gamma)
    with np.errstate(divide="ignore"):
        log_keep = np.concatenate([[0.0], np.log1p(-gamma)])
        log_mask = np.log(np.concatenate([[0.0], gamma]))
    return Masked(
        inner,
        *(jnp.asarray(x) for x in (log_keep, log_mask, log_keep_bar, log_mask_bar)),
        keep_bar=base.two_floats(np.exp(log_keep_bar)),
        time=inner.time,
        K=inner.K + 1,
        T=inner.T,
        gamma=gamma,
    )


@cache
def _losses(first_step: FirstStep) -> tuple[chunks.Loss, chunks.WithGradient]:
    """The same functions each time, for what was compiled of them."""
    loss = partial(_posterior_kl, first_step=first_step)
    return loss, partial(chunks.by_autodiff, loss)


def _posterior_kl(tr: Masked, logits: Array, x0: Array, xt: Array, t: Array, first_step: FirstStep) -> Array:
    """By the chain rule: first whether x_{t-1} is the mask, then what it is if not."""
    seen, hidden = logits[..., :-1], tr.K - 1
    inner_x0, inner_xt = tr.seen(x0), tr.seen(xt)
    unmasked, _ = tr.inner.loss_terms(seen, inner_x0, inner_xt, t, "bayes")
    marginal = tr.inner.marginal_kl(seen, inner_x0, t - 1)
    q, p = _is_masked(tr, logits, x0, t)
    weight = jnp.exp(q[..., 1])
    masked = numerics.kl(q, p) + jnp.where(weight > 0, weight * jnp.where(weight > 0, marginal, 0.0), 0.0)
    (keep,) = tr.read_steps((tr.log_keep_bar,), t, xt.shape)
    impossible = (x0 == hidden) | (keep == NEG_INF)  # for an x_t that is not the mask
    kl = jnp.where(xt == hidden, masked, jnp.where(impossible, 0.0, unmasked))
    if first_step == "bayes":
        return kl
    possible = jnp.take_along_axis(tr.log_q_back(xt, t), x0[..., None], axis=-1)[..., 0] > NEG_INF
    first = spread(t, xt.shape) == 1
    return jnp.where(first & possible, -numerics.log_prob(logits, x0), kl)


def _is_masked(tr: Masked, logits: Array, x0: Array, t: Array) -> tuple[Array, Array]:
    """log q and log p of (x_{t-1} = mask, x_{t-1} != mask) given that x_t is the mask, [*S, 2] each."""
    (mask_t,) = tr.read_steps((tr.log_mask,), t, x0.shape)
    keep_s, mask_s = tr.read_steps((tr.log_keep_bar, tr.log_mask_bar), t - 1, x0.shape)
    hidden = x0 == tr.K - 1
    q = jnp.stack([mask_s, keep_s + mask_t], axis=-1)
    q = jnp.where(hidden[..., None], jnp.broadcast_to(jnp.array([0.0, NEG_INF], q.dtype), q.shape), q)
    log_seen, log_hidden = numerics.log_sum(logits[..., :-1]), logits[..., -1]
    p = jnp.stack([numerics.log_add(log_hidden, log_seen + mask_s), log_seen + keep_s + mask_t], axis=-1)
    return numerics.log_normalize(q), numerics.log_normalize(p)
