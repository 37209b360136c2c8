"""Q = alpha I + (1 - alpha) 1 pi^T: uniform, absorbing and data-marginal processes in O(K)."""

import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float, Int

from d3pm_jax import numerics, schedules
from d3pm_jax.checks import check_categories, check_steps
from d3pm_jax.transitions.base import Transition, check_distribution, check_prior, read, spread
from d3pm_jax.types import Leaf


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Mixing(Transition):
    """Q[t] = alpha_t I + (1 - alpha_t) 1 pi^T: keep the value, or draw a new one from pi.

    O(K) per element and O(T + K) memory. Make one with `uniform`, `absorbing` or `marginal`.
    """

    log_alpha: Leaf  # [T + 1]
    log_beta: Leaf  # [T + 1]  log(1 - alpha)
    log_alpha_bar: Leaf  # [T + 1]
    log_beta_bar: Leaf  # [T + 1]  log(1 - alpha_bar)
    log_pi: Leaf  # [K]
    cdf_pi: Leaf  # [K]  cumulative sum of pi, +inf from the last category with pi > 0 on
    K: int = dataclasses.field(metadata={"static": True})
    T: int = dataclasses.field(metadata={"static": True})

    def Q(self, t: Int[Array, "*B"]) -> Float[Array, "*B K K"]:
        return self._dense(self.log_alpha, self.log_beta, t)

    def Qbar(self, t: Int[Array, "*B"]) -> Float[Array, "*B K K"]:
        return self._dense(self.log_alpha_bar, self.log_beta_bar, t)

    def _dense(self, log_keep: Array, log_mix: Array, t: Array) -> Array:
        check_steps(t, 0, self.T)
        mix = jnp.exp(read(log_mix, t))[..., None, None]
        keep = jnp.exp(read(log_keep, t))[..., None, None]
        shape = (*mix.shape[:-2], self.K, self.K)
        pi = jnp.broadcast_to(jnp.exp(self.log_pi), shape)
        return keep * jnp.broadcast_to(jnp.eye(self.K, dtype=pi.dtype), shape) + mix * pi

    def log_q_probs(self, x0: Int[Array, "*S"], t: Int[Array, "..."]) -> Float[Array, "*S K"]:
        check_categories("x0", x0, self.K)
        check_steps(t, 0, self.T)
        ts = spread(t, x0.shape)[..., None]
        moved = read(self.log_beta_bar, ts) + self._pi(x0.ndim)
        stayed = numerics.log_add(*jnp.broadcast_arrays(read(self.log_alpha_bar, ts), moved))
        return jnp.where(self._is(x0), stayed, moved)

    def log_q_back(self, xt: Int[Array, "*S"], t: Int[Array, "..."]) -> Float[Array, "*S K"]:
        check_categories("xt", xt, self.K)
        check_steps(t, 0, self.T)
        ts = spread(t, xt.shape)
        moved = read(self.log_beta, ts) + read(self.log_pi, xt)
        stayed = numerics.log_add(*jnp.broadcast_arrays(read(self.log_alpha, ts), moved))
        return jnp.where(self._is(xt), stayed[..., None], moved[..., None])

    def log_push(self, log_p: Float[Array, "*S K"], t: Int[Array, "..."]) -> Float[Array, "*S K"]:
        check_steps(t, 0, self.T)
        ts = spread(t, log_p.shape[:-1])[..., None]
        moved = read(self.log_beta_bar, ts) + self._pi(log_p.ndim - 1)
        moved = jnp.where(jnp.max(log_p, axis=-1, keepdims=True) == -jnp.inf, -jnp.inf, moved)
        stayed = read(self.log_alpha_bar, ts) + log_p
        return numerics.log_add(*jnp.broadcast_arrays(stayed, moved))

    def log_prior(self) -> Float[Array, " K"]:
        return self.log_pi

    def draw_q(self, x0: Int[Array, "*S"], t: Int[Array, "..."], u: Float[Array, "*S"]) -> Int[Array, "*S"]:
        """Resampled where u < 1 - alpha_bar_t, and then by the inverse of pi at u / (1 - alpha_bar_t)."""
        check_categories("x0", x0, self.K)
        check_steps(t, 0, self.T)
        mix = jnp.exp(read(self.log_beta_bar, spread(t, x0.shape)))
        moved = u < mix
        fresh = self.draw_prior(jnp.where(moved, u, 0.0) / jnp.where(mix > 0, mix, 1.0))
        drawn = jnp.where(moved, fresh, x0.astype(jnp.int32))
        return jnp.where(jnp.isnan(mix), -1, drawn)  # a t outside 0..T, which only jit lets through

    def draw_prior(self, u: Float[Array, "*S"]) -> Int[Array, "*S"]:
        """The first category whose cumulative probability under pi exceeds u."""
        return jnp.searchsorted(self.cdf_pi, u, side="right").astype(jnp.int32)

    def _pi(self, ndim: int) -> Array:
        return jnp.reshape(lax.stop_gradient(self.log_pi), (1,) * ndim + (self.K,))

    def _is(self, x: Array) -> Array:
        categories = jnp.arange(self.K, dtype=jnp.int32).reshape((1,) * x.ndim + (self.K,))
        return x[..., None].astype(jnp.int32) == categories  # small integer types cannot hold K


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
    with np.errstate(divide="ignore"):
        log_alpha = np.concatenate([[0.0], np.log1p(-beta)])
        log_beta = np.log(np.concatenate([[0.0], beta]))
        log_alpha_bar = np.cumsum(log_alpha)
        log_beta_bar = np.log(-np.expm1(log_alpha_bar))
        log_pi = np.log(pi)
    cdf = np.cumsum(pi)
    cdf[np.flatnonzero(pi)[-1] :] = np.inf
    check_prior(_mixing_prior_kl(log_alpha_bar[-1], log_beta_bar[-1], pi), math.exp(log_alpha_bar[-1]))
    tables = [jnp.asarray(x) for x in (log_alpha, log_beta, log_alpha_bar, log_beta_bar, log_pi, cdf)]
    return Mixing(*tables, K=pi.size, T=beta.size)


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
