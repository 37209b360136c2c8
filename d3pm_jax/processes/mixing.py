"""Q = alpha I + (1 - alpha) 1 pi^T: uniform, absorbing and data-marginal processes in O(K)."""

import dataclasses
import math
from collections.abc import Sequence
from functools import partial
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from d3pm_jax import schedules
from d3pm_jax.checks import CATEGORY, NUM_CATEGORIES, check_distribution, declared
from d3pm_jax.numerics import double_float, inverse_cdf, log_add
from d3pm_jax.processes.base import Process, check_prior, promote
from d3pm_jax.processes.respace import compose, require_spec
from d3pm_jax.processes.tables import (
    all_steps,
    expand_trailing,
    gather,
    gather_steps,
    is_category,
    log_bars,
    log_steps,
)
from d3pm_jax.types import Leaf

# All of pi lies on one category, or it is the same for all, or neither.
PiKind = Literal["point", "uniform", "general"]


class MixingSpec(NamedTuple):
    """Holds the float64 numbers that a process was made from, for `respace`."""

    beta: np.ndarray  # float64 [T]
    pi: np.ndarray  # float64 [K]


@partial(
    jax.tree_util.register_dataclass,
    data_fields=(
        "log_alpha",
        "log_beta",
        "log_alpha_bar",
        "log_beta_bar",
        "beta",
        "beta_bar",
        "log_pi",
        "pi",
        "cdf",
        "time",
    ),
    meta_fields=("K", "T", "pi_kind"),
    drop_fields=("spec",),
)
@dataclasses.dataclass(frozen=True)
class Mixing(Process):
    """Q[t] = alpha_t I + (1 - alpha_t) 1 pi^T: keep the value, or draw a new one from pi.

    O(K) per element and O(T + K) memory. Make one with `uniform`, `absorbing` or `marginal`.
    """

    log_alpha: Leaf  # [T + 1]
    log_beta: Leaf  # [T + 1]  log(1 - alpha)
    log_alpha_bar: Leaf  # [T + 1]
    log_beta_bar: Leaf  # [T + 1]  log(1 - alpha_bar)
    beta: Leaf  # [2, T + 1]  1 - alpha as the sum of two floats
    beta_bar: Leaf  # [2, T + 1]  1 - alpha_bar as the sum of two floats
    log_pi: Leaf  # [K]
    pi: Leaf  # [2, K]  as the sum of two floats
    cdf: Leaf  # [2, K]  cumulative sum of pi, as the sum of two floats
    time: Leaf  # int32 [T + 1]
    K: int
    T: int
    pi_kind: PiKind
    spec: MixingSpec | None = None

    @property
    def alpha_bar(self) -> Array:
        """alpha_bar [T + 1] in Qbar[t] = alpha_bar[t] I + (1 - alpha_bar[t]) 1 pi^T; alpha_bar[0] = 1."""
        return jnp.exp(self.log_alpha_bar)

    def check_places(self, sizes: np.ndarray) -> None:
        # An extra mask is nothing that a place has, and x_0 is all else that x_t may be.
        has_extra_mask = self.pi_kind == "point" and int(np.argmax(self.pi[0])) >= sizes.max()
        if not has_extra_mask:
            super().check_places(sizes)

    def Q(self, t: Int[Array, "*B"]) -> Float[Array, "*B K K"]:
        return self._dense(self.log_alpha, self.log_beta, t)

    def Qbar(self, t: Int[Array, "*B"]) -> Float[Array, "*B K K"]:
        return self._dense(self.log_alpha_bar, self.log_beta_bar, t)

    def _dense(self, log_keep: Array, log_mix: Array, t: Array) -> Array:
        """keep[t] I + mix[t] 1 pi^T, [*B, K, K]."""
        mix = jnp.exp(gather(log_mix, t))[..., None, None]
        keep = jnp.exp(gather(log_keep, t))[..., None, None]
        shape = (*mix.shape[:-2], self.K, self.K)
        pi = jnp.broadcast_to(jnp.exp(self.log_pi), shape)
        return keep * jnp.broadcast_to(jnp.eye(self.K, dtype=pi.dtype), shape) + mix * pi

    def log_q_probs(self, x0: Int[Array, "*S"], t: Int[Array, "..."]) -> Float[Array, "*S K"]:
        ts = expand_trailing(t, x0.shape)[..., None]  # axes of size 1 behind those of t
        moved = gather(self.log_beta_bar, ts) + self._log_pi(x0.ndim)  # as [*S, K]
        stayed = log_add(*jnp.broadcast_arrays(gather(self.log_alpha_bar, ts), moved))
        return jnp.where(is_category(x0, self.K), stayed, moved)

    def log_q_back(self, xt: Int[Array, "*S"], t: Int[Array, "..."]) -> Float[Array, "*S K"]:
        return self._column(self.log_alpha, self.log_beta, xt, t)

    def log_q_x0(self, xt: Int[Array, "*S"], t: Int[Array, "..."]) -> Float[Array, "*S K"]:
        return self._column(self.log_alpha_bar, self.log_beta_bar, xt, t)

    def log_push(self, log_p: Float[Array, "*S K"], t: Int[Array, "..."]) -> Float[Array, "*S K"]:
        log_p = promote(self, log_p)
        ts = expand_trailing(t, log_p.shape[:-1])[..., None]
        moved = gather(self.log_beta_bar, ts) + self._log_pi(log_p.ndim - 1)
        # A row of -inf is no distribution: it stays one, where `moved` would make it pi.
        moved = jnp.where(jnp.max(log_p, axis=-1, keepdims=True) == -jnp.inf, -jnp.inf, moved)
        stayed = gather(self.log_alpha_bar, ts) + log_p
        return log_add(*jnp.broadcast_arrays(stayed, moved))

    def _column(self, log_keep: Array, log_mix: Array, xt: Array, t: Array) -> Array:
        """Returns column x_t [*S, K] of log(keep I + mix 1 pi^T)."""
        ts = expand_trailing(t, xt.shape)
        moved = gather(log_mix, ts) + gather(self.log_pi, xt)
        stayed = log_add(*jnp.broadcast_arrays(gather(log_keep, ts), moved))
        return jnp.where(is_category(xt, self.K), stayed[..., None], moved[..., None])

    def log_prior(self) -> Float[Array, " K"]:
        return self.log_pi

    def draw_q(
        self,
        x0: Int[Array, "*S"],
        t: Int[Array, "..."],
        u: Float[Array, "*S"],
        u_low: Float[Array, "*S"] | None = None,
    ) -> Int[Array, "*S"]:
        """Draws the first k with u < (1 - alpha_bar_t) (pi_0 + ... + pi_k, less pi_x0), or else x_0."""
        return self._draw(self.beta_bar, x0, t, u, u_low)

    def draw_step(
        self,
        x: Int[Array, "*S"],
        t: Int[Array, "..."],
        u: Float[Array, "*S"],
        u_low: Float[Array, "*S"] | None = None,
    ) -> Int[Array, "*S"]:
        """Draws the first k with u < (1 - alpha_t) (pi_0 + ... + pi_k, less pi_x), or else x."""
        return self._draw(self.beta, x, t, u, u_low)

    def _draw(self, mix_table: Array, x0: Array, t: Array, u: Array, u_low: Array | None) -> Array:
        """Draws from pi with the probability that a table [2, T + 1] says of t, else stays at x_0."""
        # Here mix is the probability of drawing from pi. [0, mix (1 - pi_x0)) is cut into the shares mix pi_k
        # of all categories but x_0, in their order. What is left of [0, 1) is the share of x_0: to stay, or
        # to be drawn again. So one noise value says both whether x_0 is resampled and which category comes
        # out, and each kind of pi has its own way to find the interval without a row of K numbers for each
        # element.
        noise = double_float.noise_from_words(u, u_low)
        mix = gather_steps(tuple(mix_table), t, x0.shape)  # as pairs [*S]
        moves = {"point": self._move_to_point, "uniform": self._move_uniform, "general": self._move_general}
        k = moves[self.pi_kind](x0, mix, noise)
        drawn = jnp.where(k == self.K, x0, k)
        # A t outside of 0..T, which only jit lets through, reads NaN.
        return jnp.where(jnp.isnan(mix[0]), -1, drawn)

    def _move_to_point(
        self, x0: Array, mix: double_float.DoubleFloat, noise: double_float.DoubleFloat
    ) -> Array:
        """Returns the category that pi is certain of, or K for x_0."""
        target = jnp.argmax(self.pi[0]).astype(jnp.int32)
        return jnp.where(double_float.is_less(noise, mix) & (x0 != target), target, self.K)

    def _move_uniform(
        self, x0: Array, mix: double_float.DoubleFloat, noise: double_float.DoubleFloat
    ) -> Array:
        """Returns the quotient of u and mix / K, x_0 left out; K for x_0."""
        # All intervals have the length mix / K, so the quotient counts them. Where mix is 0, that would be 0:
        # there it is 1 / K, and `moved` is false.
        mix_high, mix_low = mix
        can_move = mix_high > 0
        positive_mix = (jnp.where(can_move, mix_high, 1.0), jnp.where(can_move, mix_low, 0.0))
        K = jnp.full(x0.shape, self.K, mix_high.dtype)
        interval = double_float.divide(positive_mix, (K, jnp.zeros_like(K)))
        k = double_float.floor_divide(noise, interval)

        # The K - 1 intervals are those of the other categories: from x_0 on each is one category further.
        moved = (k < self.K - 1) & can_move
        return jnp.where(moved, k + (k >= x0).astype(k.dtype), self.K)

    def _move_general(
        self, x0: Array, mix: double_float.DoubleFloat, noise: double_float.DoubleFloat
    ) -> Array:
        """Finds the first k whose end of mix pi, x_0 left out, is above u; K for x_0."""
        minus_pi_x0 = tuple(-gather(table, x0) for table in self.pi)  # a pair [*S]

        # The end of category k is mix (pi_0 + ... + pi_k), without pi_x0 from x_0 on. It does not fall with
        # k, so a search by bisection needs log2(K) of these ends, and no row of them.
        def ends_at_or_below_noise(k: Array) -> Array:
            with_x0 = self._cdf(k)
            without_x0 = double_float.add(with_x0, minus_pi_x0)
            end_of_pi = tuple(
                jnp.where(k < x0, before, after) for before, after in zip(with_x0, without_x0, strict=True)
            )
            end = double_float.multiply(mix, end_of_pi)
            return ~double_float.is_less(noise, end)

        return inverse_cdf.find_first(ends_at_or_below_noise, self.K, x0.shape)

    def draw_prior(self, u: Float[Array, "*S"], u_low: Float[Array, "*S"] | None = None) -> Int[Array, "*S"]:
        """Draws the first k with u < pi_0 + ... + pi_k."""
        noise = double_float.noise_from_words(u, u_low)
        return inverse_cdf.find_first(
            lambda k: ~double_float.is_less(noise, self._cdf(k)), self.K - 1, u.shape
        )

    def respaced(self, grid: Sequence[int]) -> "Mixing":
        # The steps in between keep x_0 with the product of their alphas, and pi stays what it is.
        beta, pi = require_spec(self.spec)
        return make_mixing(compose(beta, grid), pi, np.asarray(self.time)[[0, *grid]])

    def _cdf(self, k: Array) -> double_float.DoubleFloat:
        """pi_0 + ... + pi_k for each k."""
        return gather(self.cdf[0], k), gather(self.cdf[1], k)

    def _log_pi(self, ndim: int) -> Array:
        """log pi, [K] behind so many axes of size 1."""
        return jnp.reshape(jax.lax.stop_gradient(self.log_pi), (1,) * ndim + (self.K,))


@declared()
def marginal(beta: np.ndarray, pi: np.ndarray) -> Mixing:
    """Resamples from a fixed distribution pi with probability beta_t; the stationary distribution is pi.

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
        raise ValueError(f"pi has {pi.size} categories: a process needs at least 2")
    log_alpha_bar, log_beta_bar = log_bars(beta)  # [T + 1] each
    _check_range(beta, np.exp(log_beta_bar), pi)
    process = make_mixing(beta, pi, all_steps(beta.size))
    prior_kl = _mixing_prior_kl(log_alpha_bar[-1], log_beta_bar[-1], pi)
    never_resampled = math.exp(log_alpha_bar[-1])
    check_prior(prior_kl, stay=never_resampled)
    return process


def _check_range(beta: np.ndarray, beta_bar: np.ndarray, pi: np.ndarray) -> None:
    """Raises ValueError unless the bound on a ratio p / q of the reverse step, 1 / smallest, fits a float."""
    # beta_t and beta_bar_{t-1} are b and m of docs/mixing-loss.md, "Logs and parts". At t = 1 m is 0, and no
    # such ratio is taken.
    smallest = (beta[1:] * beta_bar[1:-1]).min(initial=1.0) * pi[pi > 0].min() ** 2
    dtype = jax.dtypes.canonicalize_dtype(float)
    if np.count_nonzero(pi) > 1 and smallest < np.finfo(dtype).tiny:
        raise ValueError(
            f"beta as small as {beta.min():.3g} with pi as small as {pi[pi > 0].min():.3g} is out of range "
            f"for {dtype}: raise them, or use float64 (jax_enable_x64)"
        )


def make_mixing(beta: np.ndarray, pi: np.ndarray, time: np.ndarray | Array) -> Mixing:
    """Makes the tables of `marginal`."""
    log_alpha_bar, log_beta_bar = log_bars(beta)
    log_alpha, log_beta = log_steps(beta)
    with np.errstate(divide="ignore"):
        log_pi = np.log(pi)
    # The last category of positive probability ends at 1 exactly, so that no noise falls behind it.
    cdf = np.cumsum(pi) / pi.sum()
    cdf[np.flatnonzero(pi)[-1] :] = 1.0
    return Mixing(
        log_alpha=jnp.asarray(log_alpha),
        log_beta=jnp.asarray(log_beta),
        log_alpha_bar=jnp.asarray(log_alpha_bar),
        log_beta_bar=jnp.asarray(log_beta_bar),
        beta=double_float.split_float64(np.concatenate([[0.0], beta])),
        beta_bar=double_float.split_float64(-np.expm1(log_alpha_bar)),
        log_pi=jnp.asarray(log_pi),
        pi=double_float.split_float64(pi / pi.sum()),
        cdf=double_float.split_float64(cdf),
        time=jnp.asarray(time),
        K=pi.size,
        T=beta.size,
        pi_kind=_find_pi_kind(pi),
        spec=MixingSpec(beta, pi),
    )


def _find_pi_kind(pi: np.ndarray) -> PiKind:
    """Returns which fast way of drawing from pi there is."""
    if np.count_nonzero(pi) == 1:
        return "point"
    if np.all(pi == pi[0]):
        return "uniform"
    return "general"


@declared(K=NUM_CATEGORIES)
def uniform(beta: np.ndarray, K: int) -> Mixing:
    """Resamples uniformly with probability beta_t (D3PM appendix A.2.1; Multinomial Diffusion eq. 11).

    Args:
        beta: [T], each in (0, 1].
        K: number of categories, at least 2.
    """
    return marginal(beta, np.full(K, 1.0 / K))


@declared(K=NUM_CATEGORIES, mask_id=CATEGORY)
def absorbing(beta: np.ndarray, K: int, mask_id: int) -> Mixing:
    """Moves to the mask with probability beta_t and stays there (D3PM appendix A.2.2).

    Args:
        beta: [T], each in (0, 1]; `schedules.reciprocal` ends with every element masked.
        K: number of categories, the mask counted.
        mask_id: which of the K the mask is. When the data never contains it, forbid it to the network
            (`heads.forbid`).
    """
    pi = np.zeros(K)
    pi[mask_id] = 1.0
    return marginal(beta, pi)


def _mixing_prior_kl(log_keep: float, log_mix: float, pi: np.ndarray) -> float:
    """Returns the largest KL(q(x_T | x_0) || pi) over x_0, in nats."""
    keep = np.exp(log_keep)
    mix = np.exp(log_mix)

    # With q = keep onehot(x_0) + mix pi the ratio q_j / pi_j is mix for every j but x_0, and mix + keep /
    # pi_x0 there. So the sum over j has two terms. 0 log 0 = 0.
    from_others = 0.0 if mix == 0 else mix * log_mix  # times the pi of all but x_0
    positive = pi > 0
    with np.errstate(divide="ignore"):
        log_ratio = np.log(np.where(positive, mix + keep / np.where(positive, pi, 1), 1.0))
        from_x0 = (keep + mix * pi) * log_ratio
    nats = from_x0 + (1 - pi) * from_others  # [K], for each x_0 with a pi above 0

    # An x_0 that pi does not have, and that may still be there at T, makes the divergence infinite.
    without_pi = np.inf if keep > 0 else 0.0
    return float(np.max(np.where(positive, nats, without_pi)))
