"""Moves to a mask, and on from there to tokens: Generalized Interpolating Discrete Diffusion (GIDD)."""

import dataclasses
from collections.abc import Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int
from scipy.special import xlogy

from d3pm_jax.checks import BELOW_1, CATEGORY, NUM_CATEGORIES, NUM_STEPS, AllowedRange, declared
from d3pm_jax.numerics import double_float, inverse_cdf, log_add
from d3pm_jax.processes.base import Process, promote
from d3pm_jax.processes.respace import require_spec
from d3pm_jax.processes.tables import all_steps, expand_trailing, gather, gather_steps, is_category
from d3pm_jax.types import Leaf

# Beyond 2 the share of tokens would have to fall faster than what is left of x_0.
GAMMA = AllowedRange(0, 2, "beyond 2 a step would move to tokens with less than probability 0", open_low=True)


class InterpolatingSpec(NamedTuple):
    """Holds the float64 numbers that a process was made from, for `respace`."""

    p_uniform: float
    gamma: float
    T: int  # of the process with all steps


class Shares(NamedTuple):
    """Holds what a row of Q, or of Qbar, is made of at each t: keep I + mask 1 e_mask^T + each 1 tokens^T."""

    log_keep: Array  # [T + 1]
    log_mask: Array  # [T + 1]
    log_each: Array  # [T + 1]  of each of the K - 1 tokens
    mask: Array  # [2, T + 1]  as the sum of two floats
    each: Array  # [2, T + 1]  as the sum of two floats


@partial(
    jax.tree_util.register_dataclass,
    data_fields=("step", "bar", "time"),
    meta_fields=("K", "T", "mask_id"),
    drop_fields=("spec",),
)
@dataclasses.dataclass(frozen=True)
class Interpolating(Process):
    """Q[t] = keep_t I + 1 b_t^T: to the mask with one weight, to every token with another (GIDD).

    Qbar has the same form, with weights of its own. A mask moves on to tokens as all else does, so that this
    is not `Masked` on top of `Uniform`: that can have the same Qbar, and has another Q. O(K) per element and
    O(T) memory. Make one with `interpolating`.
    """

    step: Any  # Shares of Q
    bar: Any  # Shares of Qbar
    time: Leaf  # int32 [T + 1]
    K: int
    T: int
    mask_id: int
    spec: InterpolatingSpec | None = None

    @property
    def alpha_bar(self) -> Array:
        """alpha_bar [T + 1], the probability that steps 1..t all keep x_0."""
        return jnp.exp(self.bar.log_keep)

    def log_q_probs(self, x0: Int[Array, "*S"], t: Int[Array, "..."]) -> Float[Array, "*S K"]:
        ts = expand_trailing(t, x0.shape)[..., None]
        moved = self._moved(ts)
        stayed = log_add(*jnp.broadcast_arrays(gather(self.bar.log_keep, ts), moved))
        return jnp.where(is_category(x0, self.K), stayed, moved)

    def log_q_back(self, xt: Int[Array, "*S"], t: Int[Array, "..."]) -> Float[Array, "*S K"]:
        return self._column(self.step, xt, t)

    def log_q_x0(self, xt: Int[Array, "*S"], t: Int[Array, "..."]) -> Float[Array, "*S K"]:
        return self._column(self.bar, xt, t)

    def log_push(self, log_p: Float[Array, "*S K"], t: Int[Array, "..."]) -> Float[Array, "*S K"]:
        log_p = promote(self, log_p)
        ts = expand_trailing(t, log_p.shape[:-1])[..., None]
        # A row of -inf is no distribution: it stays one.
        is_law = jnp.max(log_p, axis=-1, keepdims=True) > -jnp.inf
        moved = jnp.where(is_law, self._moved(ts), -jnp.inf)
        return log_add(*jnp.broadcast_arrays(gather(self.bar.log_keep, ts) + log_p, moved))

    def _moved(self, ts: Array) -> Array:
        """Returns log b, what Qbar adds to every row, as [*S, K], from t of its rank."""
        is_mask = is_category(jnp.full((1,) * (ts.ndim - 1), self.mask_id), self.K)
        return jnp.where(is_mask, gather(self.bar.log_mask, ts), gather(self.bar.log_each, ts))

    def _column(self, shares: Shares, xt: Array, t: Array) -> Array:
        """Returns the log of column x_t of Q or Qbar, [*S, K]."""
        tables = (shares.log_keep, shares.log_mask, shares.log_each)
        keep, mask, each = gather_steps(tables, t, xt.shape)  # [*S] each
        moved = jnp.where(xt == self.mask_id, mask, each)
        stayed = log_add(keep, moved)
        return jnp.where(is_category(xt, self.K), stayed[..., None], moved[..., None])

    def log_prior(self) -> Float[Array, " K"]:
        is_mask = jnp.arange(self.K, dtype=jnp.int32) == self.mask_id
        return jnp.where(is_mask, 0.0, -jnp.inf).astype(self.bar.log_keep.dtype)

    def draw_q(
        self,
        x0: Int[Array, "*S"],
        t: Int[Array, "..."],
        u: Float[Array, "*S"],
        u_low: Float[Array, "*S"] | None = None,
    ) -> Int[Array, "*S"]:
        """Draws the first k with u < b_0 + ... + b_k, less b_x0, or else x_0; b of Qbar[t]."""
        return self._draw(self.bar, x0, t, u, u_low)

    def draw_step(
        self,
        x: Int[Array, "*S"],
        t: Int[Array, "..."],
        u: Float[Array, "*S"],
        u_low: Float[Array, "*S"] | None = None,
    ) -> Int[Array, "*S"]:
        """Draws the first k with u < b_0 + ... + b_k, less b_x, or else x; b of Q[t]."""
        return self._draw(self.step, x, t, u, u_low)

    def _draw(self, shares: Shares, x: Array, t: Array, u: Array, u_low: Array | None) -> Array:
        mask = gather_steps(tuple(shares.mask), t, x.shape)
        each = gather_steps(tuple(shares.each), t, x.shape)
        drawn = draw_moved(x, mask, each, double_float.noise_from_words(u, u_low), self.mask_id, self.K)
        # A t outside of 0..T, which only jit lets through, reads NaN.
        return jnp.where(jnp.isnan(mask[0]), -1, drawn)

    def draw_prior(self, u: Float[Array, "*S"], u_low: Float[Array, "*S"] | None = None) -> Int[Array, "*S"]:
        """Draws the mask, whatever u is."""
        return jnp.full(u.shape, self.mask_id, jnp.int32)

    def respaced(self, grid: Sequence[int]) -> "Interpolating":
        # Q between two times follows from these times, and no step in between is needed.
        spec = require_spec(self.spec)
        return _make_interpolating(spec, self.K, self.mask_id, np.asarray(self.time)[[0, *grid]])


def draw_moved(
    x: Array,
    mask: double_float.DoubleFloat,
    each: double_float.DoubleFloat,
    noise: double_float.DoubleFloat,
    mask_id: int,
    K: int,
) -> Array:
    """Draws the first k with noise < b_0 + ... + b_k, less b_x; b is `mask` at the mask, else `each`.

    What is left of [0, 1) is the share of x: to stay, or to be drawn again.

    Args:
        x: categories [*S].
        mask, each, noise: sums of two floats, [*S] each.
        mask_id: which category the mask is.
        K: number of categories.

    Returns:
        int32 categories [*S].
    """

    # The end of category k does not fall with k, so a search by bisection needs log2(K) of these ends, and no
    # row of them.
    def ends_at_or_below_noise(k: Array) -> Array:
        without_mask = k + 1 - (k >= mask_id).astype(k.dtype)
        without_x = without_mask - ((k >= x) & (x != mask_id)).astype(k.dtype)
        num_tokens = without_x.astype(each[0].dtype)
        tokens = double_float.multiply((num_tokens, jnp.zeros_like(num_tokens)), each)
        counts_mask = (k >= mask_id) & (x != mask_id)
        counted = tuple(jnp.where(counts_mask, word, 0.0) for word in mask)
        return ~double_float.is_less(noise, double_float.add(tokens, counted))

    k = inverse_cdf.find_first(ends_at_or_below_noise, K, x.shape)
    return jnp.where(k == K, x, k)


@declared(T=NUM_STEPS, K=NUM_CATEGORIES, mask_id=CATEGORY, p_uniform=BELOW_1, gamma=GAMMA)
def interpolating(T: int, K: int, mask_id: int, p_uniform: float, gamma: float = 1.0) -> Interpolating:
    """Moves to a mask at t / T, and in between to tokens: GIDD (von Rutte et al. 2025, 2503.04482).

    q(x_t | x_0) is x_0, the mask, or one of the K - 1 tokens with probabilities in proportion to 1 - r, r
    and c, where r = t / T, c = B (r (1 - r))^(gamma / 2), B = 2^gamma p_uniform / (1 - p_uniform). It begins
    at x_0 and ends at the mask. The data never has the mask: forbid it to the network (`heads.forbid`).

    Args:
        T: number of steps.
        K: number of categories, the mask counted.
        mask_id: which of the K the mask is.
        p_uniform: in [0, 1): the share of uniform tokens in x_t half way; 0 is `absorbing`.
        gamma: in (0, 2]: how the share of tokens rises and falls.

    Returns:
        The process, with tables in JAX's default float type.
    """
    spec = InterpolatingSpec(float(p_uniform), float(gamma), T)
    return _make_interpolating(spec, K, mask_id, np.asarray(all_steps(T)))


def _make_interpolating(spec: InterpolatingSpec, K: int, mask_id: int, time: np.ndarray) -> Interpolating:
    """Makes the tables of `interpolating`, of the steps in time, [steps + 1]."""
    half = spec.gamma / 2
    left = spec.T - time  # so that 1 - r = left / T
    now, before = time[1:], time[:-1]
    with np.errstate(divide="ignore"):
        log_B = np.log(2.0) * spec.gamma + np.log(spec.p_uniform) - np.log1p(-spec.p_uniform)
        log_r = np.log(time / spec.T)
        log_rest = np.log(left / spec.T)
        log_c = log_B + half * (log_r + log_rest)
        log_scale = -np.log1p(np.exp(log_c))  # log 1 / (1 + c)
        log_each = log_c - np.log(K - 1) + log_scale
        bar = _make_shares(log_rest + log_scale, log_r + log_scale, log_each)

        # Q from s to t is alpha_t / alpha_s I + 1 (b_t - alpha_t / alpha_s b_s)^T. Of the mask that
        # difference is (t - s) / (1 - s) / (1 + c_t), and of the tokens c_t / (1 + c_t) less the part of it
        # that (1 - t) c_s / ((1 - s) c_t) is: in logs, so that no digits cancel.
        log_kept = np.log(left[1:] / left[:-1])
        log_part = xlogy(half, before / now) + xlogy(1 - half, left[1:] / left[:-1])
        log_step_keep = log_kept + log_scale[1:] - log_scale[:-1]
        log_step_mask = np.log((now - before) / left[:-1]) + log_scale[1:]
        log_step_each = log_each[1:] + np.log(-np.expm1(log_part))
    step = _make_shares(
        np.concatenate([[0.0], log_step_keep]),
        np.concatenate([[-np.inf], log_step_mask]),
        np.concatenate([[-np.inf], log_step_each]),
    )
    T = len(time) - 1
    return Interpolating(step=step, bar=bar, time=jnp.asarray(time), K=K, T=T, mask_id=mask_id, spec=spec)


def _make_shares(log_keep: np.ndarray, log_mask: np.ndarray, log_each: np.ndarray) -> Shares:
    """Rounds float64 tables [T + 1] once."""
    return Shares(
        log_keep=jnp.asarray(log_keep),
        log_mask=jnp.asarray(log_mask),
        log_each=jnp.asarray(log_each),
        mask=double_float.split_float64(np.exp(log_mask)),
        each=double_float.split_float64(np.exp(log_each)),
    )
