"""Q = alpha I + (1 - alpha) 1 pi^T: uniform, absorbing and data-marginal processes in O(K)."""

import dataclasses
import math
from collections.abc import Sequence
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float, Int

from d3pm_jax import drawing, numerics, schedules
from d3pm_jax.checks import check_categories, check_steps
from d3pm_jax.transitions import base
from d3pm_jax.transitions.base import FirstStep, Transition, check_distribution, check_prior, read, spread
from d3pm_jax.transitions.mixing_loss import Shape, Step, kl_and_ce
from d3pm_jax.types import Leaf

TABLES = ("log_alpha", "log_beta", "log_alpha_bar", "log_beta_bar", "beta_bar", "log_pi", "pi", "cdf", "time")


class Spec(NamedTuple):
    """What a process was made from."""

    beta: np.ndarray  # float64 [T]
    pi: np.ndarray  # float64 [K]


@partial(
    jax.tree_util.register_dataclass,
    data_fields=TABLES,
    meta_fields=("K", "T", "shape"),
    drop_fields=("spec",),
)
@dataclasses.dataclass(frozen=True)
class Mixing(Transition):
    """Q[t] = alpha_t I + (1 - alpha_t) 1 pi^T: keep the value, or draw a new one from pi.

    O(K) per element and O(T + K) memory. Make one with `uniform`, `absorbing` or `marginal`.
    """

    log_alpha: Leaf  # [T + 1]
    log_beta: Leaf  # [T + 1]  log(1 - alpha)
    log_alpha_bar: Leaf  # [T + 1]
    log_beta_bar: Leaf  # [T + 1]  log(1 - alpha_bar)
    beta_bar: Leaf  # [2, T + 1]  1 - alpha_bar as the sum of two floats
    log_pi: Leaf  # [K]
    pi: Leaf  # [2, K]  as the sum of two floats
    cdf: Leaf  # [2, K]  cumulative sum of pi, as the sum of two floats
    time: Leaf  # [T + 1]
    K: int
    T: int
    shape: Shape
    spec: Spec | None = None

    @property
    def matrices(self) -> bool:
        return False

    def Q(self, t: Int[Array, "*B"]) -> Float[Array, "*B K K"]:
        return self._dense(self.log_alpha, self.log_beta, t)

    def Qbar(self, t: Int[Array, "*B"]) -> Float[Array, "*B K K"]:
        return self._dense(self.log_alpha_bar, self.log_beta_bar, t)

    def _dense(self, log_keep: Array, log_mix: Array, t: Array) -> Array:
        t = check_steps(t, 0, self.T)
        mix = jnp.exp(read(log_mix, t))[..., None, None]
        keep = jnp.exp(read(log_keep, t))[..., None, None]
        shape = (*mix.shape[:-2], self.K, self.K)
        pi = jnp.broadcast_to(jnp.exp(self.log_pi), shape)
        return keep * jnp.broadcast_to(jnp.eye(self.K, dtype=pi.dtype), shape) + mix * pi

    def log_q_probs(self, x0: Int[Array, "*S"], t: Int[Array, "..."]) -> Float[Array, "*S K"]:
        x0 = check_categories("x0", x0, self.K)
        t = check_steps(t, 0, self.T)
        ts = spread(t, x0.shape)[..., None]
        moved = read(self.log_beta_bar, ts) + self._pi(x0.ndim)
        stayed = numerics.log_add(*jnp.broadcast_arrays(read(self.log_alpha_bar, ts), moved))
        return jnp.where(self._is(x0), stayed, moved)

    def log_q_back(self, xt: Int[Array, "*S"], t: Int[Array, "..."]) -> Float[Array, "*S K"]:
        xt = check_categories("xt", xt, self.K)
        t = check_steps(t, 0, self.T)
        ts = spread(t, xt.shape)
        moved = read(self.log_beta, ts) + read(self.log_pi, xt)
        stayed = numerics.log_add(*jnp.broadcast_arrays(read(self.log_alpha, ts), moved))
        return jnp.where(self._is(xt), stayed[..., None], moved[..., None])

    def log_push(self, log_p: Float[Array, "*S K"], t: Int[Array, "..."]) -> Float[Array, "*S K"]:
        t = check_steps(t, 0, self.T)
        ts = spread(t, log_p.shape[:-1])[..., None]
        moved = read(self.log_beta_bar, ts) + self._pi(log_p.ndim - 1)
        moved = jnp.where(jnp.max(log_p, axis=-1, keepdims=True) == -jnp.inf, -jnp.inf, moved)
        stayed = read(self.log_alpha_bar, ts) + log_p
        return numerics.log_add(*jnp.broadcast_arrays(stayed, moved))

    def log_prior(self) -> Float[Array, " K"]:
        return self.log_pi

    def draw_q(
        self,
        x0: Int[Array, "*S"],
        t: Int[Array, "..."],
        u: Float[Array, "*S"],
        u_low: Float[Array, "*S"] | None = None,
    ) -> Int[Array, "*S"]:
        """The first k with u < (1 - alpha_bar_t) (pi_0 + ... + pi_k, less pi_x0); x_0 where there is none."""
        x0 = check_categories("x0", x0, self.K)
        t = check_steps(t, 0, self.T)
        noise = drawing.value(u, u_low)
        mix = tuple(jnp.broadcast_to(read(table, spread(t, x0.shape)), x0.shape) for table in self.beta_bar)
        k = {"one": self._other_one, "even": self._other_even, "any": self._other_any}[self.shape](
            x0, mix, noise
        )
        drawn = jnp.where(k == self.K, x0, k)
        return jnp.where(jnp.isnan(mix[0]), -1, drawn)  # a t outside 0..T, which only jit lets through

    def _other_one(self, x0: Array, mix: drawing.Pair, noise: drawing.Pair) -> Array:
        """For a pi of one category: that one, or K for x_0."""
        target = jnp.argmax(self.pi[0]).astype(jnp.int32)
        return jnp.where(drawing.less(noise, mix) & (x0 != target), target, self.K)

    def _other_even(self, x0: Array, mix: drawing.Pair, noise: drawing.Pair) -> Array:
        """For an even pi: the quotient of u and (1 - alpha_bar_t) / K, x_0 left out."""
        some = tuple(jnp.where(mix[0] > 0, x, one) for x, one in zip(mix, (1.0, 0.0), strict=True))
        K = jnp.full(x0.shape, self.K, mix[0].dtype)
        k = drawing.quotient(noise, drawing.over(some, (K, jnp.zeros_like(K))))
        moved = (k < self.K - 1) & (mix[0] > 0)
        return jnp.where(moved, k + (k >= x0), self.K)

    def _other_any(self, x0: Array, mix: drawing.Pair, noise: drawing.Pair) -> Array:
        own = tuple(-read(table, x0) for table in self.pi)

        def passed(k: Array) -> Array:
            below = self._cdf(k)
            without = drawing.plus(below, own)
            some = tuple(jnp.where(k < x0, a, b) for a, b in zip(below, without, strict=True))
            return ~drawing.less(noise, drawing.times(mix, some))

        return drawing.search(passed, self.K, x0.shape)

    def draw_prior(self, u: Float[Array, "*S"], u_low: Float[Array, "*S"] | None = None) -> Int[Array, "*S"]:
        """The first k with u < pi_0 + ... + pi_k."""
        noise = drawing.value(u, u_low)
        return drawing.search(lambda k: ~drawing.less(noise, self._cdf(k)), self.K - 1, u.shape)

    def loss_terms(
        self,
        logits_x0: Float[Array, "*S K"],
        x0: Int[Array, "*S"],
        xt: Int[Array, "*S"],
        t: Int[Array, "..."],
        first_step: FirstStep,
    ) -> tuple[Float[Array, "*S"], Float[Array, "*S"]]:
        x0 = check_categories("x0", x0, self.K)
        xt = check_categories("xt", xt, self.K)
        t = check_steps(t, 1, self.T)
        base.check_first_step(first_step)
        ts = jnp.broadcast_to(spread(t, xt.shape), xt.shape)
        pi_0, pi_t = read(self.log_pi, x0), read(self.log_pi, xt)
        a, b = read(self.log_alpha, ts), read(self.log_beta, ts) + pi_t
        step = Step(a, b, read(self.log_alpha_bar, ts - 1), read(self.log_beta_bar, ts - 1), pi_0, pi_t)
        kl, ce = self._terms(logits_x0, x0, xt, step)
        if first_step == "x0":
            possible = jnp.where(xt == x0, numerics.log_add(a, b), b) > -jnp.inf
            kl = jnp.where((ts == 1) & possible, ce, kl)
        return kl, ce

    def marginal_kl(
        self, logits_x0: Float[Array, "*S K"], x0: Int[Array, "*S"], t: Int[Array, "..."]
    ) -> Float[Array, "*S"]:
        x0 = check_categories("x0", x0, self.K)
        t = check_steps(t, 0, self.T)
        ts = jnp.broadcast_to(spread(t, x0.shape), x0.shape)
        xt = jnp.full(x0.shape, jnp.argmax(self.log_pi), jnp.int32)  # any that q can reach
        pi_0, pi_t, nothing = (
            read(self.log_pi, x0),
            read(self.log_pi, xt),
            jnp.zeros(x0.shape, self.log_pi.dtype),
        )
        c, m = read(self.log_alpha_bar, ts), read(self.log_beta_bar, ts)
        step = Step(nothing - jnp.inf, nothing, c, m, pi_0, pi_t)  # an x_t that says nothing of x_{t-1}
        return self._terms(logits_x0, x0, xt, step)[0]

    def _terms(self, logits_x0: Array, x0: Array, xt: Array, step: Step) -> tuple[Array, Array]:
        log_pi = lax.stop_gradient(self.log_pi)
        return kl_and_ce(self.shape, base.widen(self, logits_x0), x0, xt, step, log_pi)

    def respaced(self, grid: Sequence[int]) -> "Mixing":
        beta, pi = base.given(self.spec)
        return _mixing(base.joined(beta, grid), pi, np.asarray(self.time)[[0, *grid]])

    def _cdf(self, k: Array) -> drawing.Pair:
        return read(self.cdf[0], k), read(self.cdf[1], k)

    def _pi(self, ndim: int) -> Array:
        return jnp.reshape(lax.stop_gradient(self.log_pi), (1,) * ndim + (self.K,))

    def _is(self, x: Array) -> Array:
        categories = jnp.arange(self.K, dtype=jnp.int32).reshape((1,) * x.ndim + (self.K,))
        return x[..., None] == categories


def marginal(beta: np.ndarray, pi: np.ndarray) -> Mixing:
    """Resample from a fixed distribution pi with probability beta_t; the stationary distribution is pi.

    Args:
        beta: [T], each in (0, 1]; see `schedules`.
        pi: [K] probabilities, for example the histogram of the data.

    Returns:
        The process, with tables in JAX's default float type.

    Raises:
        ValueError: beta outside (0, 1], or pi is not a distribution.
    """
    beta = schedules.check_betas(beta)
    pi = check_distribution("pi", pi, np.size(pi))
    if pi.size < 2:
        raise ValueError(f"K = {pi.size}: a process needs at least 2 categories")
    log_keep, log_mix = base.log_bars(beta)
    _check_range(beta, np.exp(log_mix), pi)
    process = _mixing(beta, pi, base.all_steps(beta.size))
    check_prior(_mixing_prior_kl(log_keep[-1], log_mix[-1], pi), math.exp(log_keep[-1]))
    return process


def _check_range(beta: np.ndarray, beta_bar: np.ndarray, pi: np.ndarray) -> None:
    """A ratio p / q of the reverse step is at most the inverse of this: it must fit a float."""
    smallest = (beta[1:] * beta_bar[1:-1]).min(initial=1.0) * pi[pi > 0].min() ** 2
    dtype = jax.dtypes.canonicalize_dtype(float)
    if np.count_nonzero(pi) > 1 and smallest < np.finfo(dtype).tiny:
        raise ValueError(
            f"beta as small as {beta.min():.3g} with pi as small as {pi[pi > 0].min():.3g} is out of range "
            f"for {dtype}: raise them, or use float64 (jax_enable_x64)"
        )


def _mixing(beta: np.ndarray, pi: np.ndarray, time: np.ndarray) -> Mixing:
    """The tables of `marginal`."""
    log_alpha_bar, log_beta_bar = base.log_bars(beta)
    with np.errstate(divide="ignore"):
        log_alpha = np.concatenate([[0.0], np.log1p(-beta)])
        log_beta = np.log(np.concatenate([[0.0], beta]))
        log_pi = np.log(pi)
    cdf = np.cumsum(pi) / pi.sum()
    cdf[np.flatnonzero(pi)[-1] :] = 1.0
    return Mixing(
        *(jnp.asarray(x) for x in (log_alpha, log_beta, log_alpha_bar, log_beta_bar)),
        beta_bar=base.two_floats(-np.expm1(log_alpha_bar)),
        log_pi=jnp.asarray(log_pi),
        pi=base.two_floats(pi / pi.sum()),
        cdf=base.two_floats(cdf),
        time=jnp.asarray(time),
        K=pi.size,
        T=beta.size,
        shape="one" if np.count_nonzero(pi) == 1 else "even" if np.all(pi == pi[0]) else "any",
        spec=Spec(beta, pi),
    )


def uniform(beta: np.ndarray, K: int) -> Mixing:
    """Resample uniformly with probability beta_t (D3PM appendix A.2.1; Multinomial Diffusion eq. 11).

    Args:
        beta: [T], each in (0, 1].
        K: number of categories, at least 2.
    """
    return marginal(beta, np.full(K, 1.0 / K))


def absorbing(beta: np.ndarray, K: int, mask_id: int) -> Mixing:
    """Move to the mask with probability beta_t and stay there (D3PM appendix A.2.2).

    Args:
        beta: [T], each in (0, 1]; `schedules.reciprocal` ends with every element masked.
        K: number of categories, the mask counted.
        mask_id: which of the K the mask is. When the data never contains it, forbid it to the network
            (`heads.forbid`).
    """
    if not 0 <= mask_id < K:
        raise ValueError(
            f"mask_id = {mask_id} is outside 0..{K - 1}: K counts the mask, use K = {mask_id + 1} or more"
        )
    pi = np.zeros(K)
    pi[mask_id] = 1.0
    return marginal(beta, pi)


def _mixing_prior_kl(log_keep: float, log_mix: float, pi: np.ndarray) -> float:
    """The largest KL(q(x_T | x_0) || pi) over x_0, in nats."""
    keep, mix = np.exp(log_keep), np.exp(log_mix)
    away = 0.0 if mix == 0 else mix * log_mix  # per unit of pi: the categories other than x_0
    with np.errstate(divide="ignore"):
        here = (keep + mix * pi) * np.log(np.where(pi > 0, mix + keep / np.where(pi > 0, pi, 1), 1.0))
    return float(np.max(np.where(pi > 0, here + (1 - pi) * away, np.inf if keep > 0 else 0.0)))
