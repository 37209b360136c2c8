"""Computes the loss of Generalized Interpolating Discrete Diffusion (von Rutte et al. 2025, 2503.04482).

Time runs from 0, clean data, to 1, where all is masked: `processes.interpolating` in continuous time.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from d3pm_jax import numerics
from d3pm_jax.checks import (
    BELOW_1,
    CATEGORIES,
    CATEGORY,
    INDEX,
    NOISE,
    NUM_CATEGORIES,
    AllowedRange,
    Measure,
    declared,
)
from d3pm_jax.numerics.logspace import at_least_float32
from d3pm_jax.processes.interpolating import GAMMA, draw_moved
from d3pm_jax.processes.tables import expand_trailing, is_category

MOST = 2.0  # of the weights "clipped" and "dynamic", as in the authors' program

# At time 0 nothing has moved, and the weight of what has not may be infinite.
TIME_ABOVE_0 = AllowedRange(0, 1, "time runs from above 0 (clean data) to 1", open_low=True)


@declared(
    x0=INDEX, time=TIME_ABOVE_0, u=NOISE, mask_id=INDEX, K=NUM_CATEGORIES, p_uniform=BELOW_1, gamma=GAMMA
)
def gidd_draw(
    x0: Int[Array, "*S"],
    time: Float[Array, "..."],
    u: Float[Array, "*S"],
    mask_id: int,
    K: int,
    p_uniform: float | Float[Array, ""],
    gamma: float | Float[Array, ""],
) -> Int[Array, "*S"]:
    """Draws x_t of GIDD: the first k with u < b_0 + ... + b_k, less b_x0, or else x_0.

    b is time / (1 + c) at the mask, c / (1 + c) / (K - 1) at each token: the rule of `Interpolating.draw_q`.

    Args:
        x0: categories.
        time: in (0, 1]; its shape is a prefix of that of x0.
        u: uniform noise in [0, 1).
        mask_id: which category the mask is.
        K: number of categories, the mask counted.
        p_uniform, gamma: of the process.

    Returns:
        int32 categories.
    """
    u = at_least_float32(u)  # 16 bits do not count up to K
    time = jnp.broadcast_to(expand_trailing(time, x0.shape), x0.shape).astype(u.dtype)
    c = jnp.exp(_log_B(p_uniform, gamma)) * (time * (1 - time)) ** (gamma / 2)
    zero = jnp.zeros_like(u)
    mask = (time / (1 + c), zero)
    each = (c / (1 + c) / (K - 1), zero)
    return draw_moved(x0, mask, each, (u, zero), mask_id, K).astype(jnp.int32)


def _log_B(p_uniform: float | Array, gamma: float | Array) -> Array:
    """log B, B = 2^gamma p_uniform / (1 - p_uniform)."""
    return gamma * jnp.log(2.0) + jnp.log(p_uniform) - jnp.log1p(-p_uniform)


def _measure_mask(values: dict[str, Any]) -> Array:
    """Returns p(x_0 = mask_id), [*S]."""
    mask = jnp.full(values["xt"].shape, values["mask_id"], jnp.int32)
    p = jnp.exp(numerics.log_prob(at_least_float32(jnp.asarray(values["logits_x0"])), mask))
    # A network that broke down is no question of the mask.
    return jnp.where(p > 0, p, 0.0)


# More than 0 by less than rounding, as where a program makes a logit -1e6 or so.
NO_MASK = AllowedRange(
    0,
    1e-7,
    "x_0 is never the mask; pass d3pm.forbid(logits_x0, mask_id)",
    measure=Measure("p(x_0 = mask_id) of logits_x0", _measure_mask, like="xt"),
)


class GiddLoss(NamedTuple):
    """Holds w(x_t) [KL(q || p) + r - log r - 1], by the name of the weight w, in nats per unit of time."""

    bound: Float[Array, "*S"]  # the weight of the bound
    clipped: Float[Array, "*S"]  # that, but at most 2
    dynamic: Float[Array, "*S"]  # at the mask 2, at x_0 (B / K) exp(gamma sigmoid(-time) / 2) up to 2, else 1


@declared(
    x0=CATEGORIES,
    xt=CATEGORIES,
    time=TIME_ABOVE_0,
    mask_id=CATEGORY,
    p_uniform=BELOW_1,
    gamma=GAMMA,
    logits_x0=NO_MASK,
)
def gidd_nelbo(
    logits_x0: Float[Array, "*S K"],
    x0: Int[Array, "*S"],
    xt: Int[Array, "*S"],
    time: Float[Array, "..."],
    mask_id: int,
    p_uniform: float | Float[Array, ""],
    gamma: float | Float[Array, ""],
) -> GiddLoss:
    """w(x_t) [KL(q || p) + r - log r - 1]: the bound of GIDD, and it with other weights, by name.

    q = q(x_t = . | x_0), p that of the prediction, and r = q(x_t) / p(x_t). The weight of the bound is the
    rate into x_t over q(x_t). With N = K - 1 and the c of `interpolating` at time t it is

        at the mask 1 / (t (1 - t)), at x_0 (c + (1 - t) c') / (N (1 - t) (1 - t + c / N)),
        elsewhere (c + (1 - t) c') / ((1 - t) c).

    The bound is the limit of T `posterior_kl` with the belief "leave_one_out". Near time 0 the weight of a
    token that is not x_0 is gamma / (2 t), and such tokens are as rare as t^(gamma / 2): the variance is
    infinite where t is drawn uniformly. For t = u^p it is finite above p = 2 / gamma, and there nearly so.
    Under `jit` only those of the three are computed that are used.

    Args:
        logits_x0: the network's unnormalised log p(x_0 | x_t at all other elements), -inf at mask_id.
        x0, xt: categories; x_0 is never the mask.
        time: in (0, 1]; its shape is a prefix of that of x0.
        mask_id: which category the mask is.
        p_uniform, gamma: of the process, in [0, 1) and (0, 2].

    Returns:
        Nats per unit of time; 0 for an impossible pair (x_0, x_t), +inf where the prediction rules x_0 out.

    Raises:
        ValueError: the logits do not forbid the mask; under `jit` the loss is NaN there.
    """
    K = logits_x0.shape[-1]
    log_p0 = numerics.log_normalize(at_least_float32(logits_x0))
    t = jnp.broadcast_to(expand_trailing(time, x0.shape), x0.shape).astype(log_p0.dtype)
    is_last = t == 1
    rest = jnp.where(is_last, 1.0, 1 - t)  # 1 - t; in what it is asked of at time 1, its power 0
    half = gamma / 2
    log_B = _log_B(p_uniform, gamma)
    has_tokens = log_B > -jnp.inf

    # At the tokens q = (1 - t) / (1 + c) (onehot(x_0) + e) with e = c / (1 - t) / N. With 1 - t taken out of
    # all terms nothing is 0 / 0 at time 1, where e is 0 without tokens, B / N for gamma = 2, or infinite.
    log_e = log_B - jnp.log(K - 1) + half * jnp.log(t) + (half - 1) * jnp.log(rest)  # [*S]
    is_mask_category = is_category(jnp.full((1,) * xt.ndim, mask_id), K)
    log_e_of = jnp.where(is_mask_category, -jnp.inf, log_e[..., None])  # [*S, K]
    log_onehot = jnp.where(is_category(x0, K), 0.0, -jnp.inf)
    log_q = numerics.log_add(log_onehot.astype(log_p0.dtype), log_e_of)
    log_p = numerics.log_add(log_p0, log_e_of)

    # At the mask an infinite e leaves nothing of x_0 to be learnt. Elsewhere: at time 1 all is masked, and
    # without tokens x_t is x_0, which no rate leads back to.
    is_mask = xt == mask_id
    counts = jnp.where(is_mask, ~(is_last & has_tokens & (gamma < 2)), ~is_last & has_tokens)
    log_p = jnp.where(counts[..., None], log_p, log_q)
    kl = numerics.kl(log_q, log_p)  # over (1 - t) / (1 + c)
    has_ratio = counts & ~is_mask  # r = 1 at the mask
    log_r = jnp.where(has_ratio, _at(log_q, xt), 0.0) - jnp.where(has_ratio, _at(log_p, xt), 0.0)
    remainder = jnp.expm1(log_r) - log_r  # r - log r - 1

    # (c + (1 - t) c') / c = (gamma / 2) (1 - t) / t + 1 - gamma / 2, without its c, which may be 0.
    at_token = half / t + (1 - half) / rest
    e = jnp.exp(log_e)
    is_x0 = xt == x0
    weight = jnp.where(is_x0, at_token * e / (1 + e), at_token)
    scale = 1 / (1 + e * (K - 1) * (1 - t))  # 1 / (1 + c)
    divergence = jnp.where(is_last, 0.0, rest * scale * kl) + remainder
    bound = jnp.where(is_mask, scale / t * kl, weight * divergence)

    weight = jnp.where(is_mask, 1 / (t * rest), weight)
    shared = jnp.minimum(jnp.exp(log_B) / K * jnp.exp(half * jax.nn.sigmoid(-t)), MOST)
    dynamic = jnp.where(is_mask, MOST, jnp.where(is_x0, shared, 1.0))
    return GiddLoss(bound, jnp.minimum(weight, MOST) * divergence, dynamic * divergence)


def _at(rows: Array, x: Array) -> Array:
    """Returns the entry x of each row, [*S]."""
    return jnp.take_along_axis(rows, x[..., None].astype(jnp.int32), axis=-1)[..., 0]
