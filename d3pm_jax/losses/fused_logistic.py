"""Computes the losses of `heads.logistic` from its two numbers: on GPUs without its logits in memory.

There a row of logits is made inside a row function (`numerics.rows`), forward and backward: two numbers of an
element go in, and the gradients of both come out. With K = 256 that is a hundredth of what the logits are.
"""

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from d3pm_jax import heads
from d3pm_jax.beliefs import Belief
from d3pm_jax.checks import promote_types
from d3pm_jax.losses import fused_mixing, variational
from d3pm_jax.numerics import double_float
from d3pm_jax.numerics.rows import RowBlock, map_rows
from d3pm_jax.processes import Mixing, PiKind, Process, gather


def hybrid(
    process: Process,
    loc: Array,
    log_scale: Array,
    x0: Array,
    xt: Array,
    t: Array,
    ce_weight: float,
    belief: Belief = "d3pm",
) -> variational.Hybrid:
    """Computes `losses.hybrid` of `heads.logistic`.

    Args:
        process: the forward process.
        loc, log_scale: of the logistic distribution of x_0.
        x0, xt: categories.
        t: steps 1..T.
        ce_weight: factor of the cross entropy.
        belief: what the logits of x_0 are.

    Returns:
        The loss and its two terms, in nats per element.
    """
    # A subclass may have a loss of its own, which takes logits.
    if type(process) is not Mixing:
        return variational.hybrid(
            process, heads.logistic(loc, log_scale, process.K), x0, xt, t, ce_weight, belief
        )
    kl, ce = _kl_and_ce(process, loc, log_scale, x0, xt, t, belief)
    return variational.Hybrid.of_terms(kl, ce, ce_weight)


def _kl_and_ce(
    process: Mixing, loc: Array, log_scale: Array, x0: Array, xt: Array, t: Array, belief: Belief
) -> tuple[Array, Array]:
    log_pi = jax.lax.stop_gradient(process.log_pi)
    wide = promote_types(loc, log_scale, log_pi, jnp.float32)
    step = fused_mixing.gather_logs(process, x0, xt, t)
    belief_of_row: Belief = "d3pm" if belief == "official" else belief
    kl, ce = _by_hand(
        (process.pi_kind, belief_of_row),
        process.K,
        loc.astype(wide),
        log_scale.astype(wide),
        x0,
        xt,
        _share_uniform(process, step, t),
        log_pi,
    )
    if belief == "official":
        kl = fused_mixing.take_ce_at_first_step(step, kl, ce, x0, xt, t)
    return kl, ce


def _share_uniform(process: Mixing, step: fused_mixing.StepLogs, t: Array) -> fused_mixing.StepLogs:
    """Returns a step whose numbers t alone decides where pi is uniform: all elements then share them."""
    if process.pi_kind != "uniform":
        return step
    log_pi = process.log_pi[0]
    return step._replace(b=gather(process.log_beta, t) + log_pi, pi_0=log_pi, pi_t=log_pi)


Settings = tuple[PiKind, Belief]


def _forward(
    settings: Settings,
    K: int,
    loc: Array,
    log_scale: Array,
    x0: Array,
    xt: Array,
    step: fused_mixing.StepLogs,
    log_pi: Array,
):
    numbers = loc, log_scale, (x0, xt, step)
    saved = map_rows(_save_logistic_row, settings, None, numbers, _tables(settings, K, log_pi), K)
    return (saved.kl, saved.ce), (loc, log_scale, x0, xt, step, log_pi, saved)


def _backward(settings: Settings, K: int, residuals: Any, cotangents: tuple[Array, Array]):
    loc, log_scale, x0, xt, step, log_pi, saved = residuals
    _, belief = settings
    of_logits = fused_mixing.numbers_of_gradient(belief, x0, xt, step, saved, *cotangents)
    numbers = loc, log_scale, of_logits
    g_loc, g_log_scale = map_rows(
        _gradient_logistic_row, settings, None, numbers, _tables(settings, K, log_pi), K
    )
    return g_loc, g_log_scale, None, None, None, None


_custom = jax.custom_vjp(lambda *args: _forward(*args)[0], nondiff_argnums=(0, 1))
_custom.defvjp(_forward, _backward)
_by_hand = jax.jit(_custom, static_argnums=(0, 1))


# ---- The functions of a row ----


class Tables(NamedTuple):
    """Holds the edges of all bins as sums of two floats, [K] each, and the tables of `fused_mixing`."""

    lower: double_float.DoubleFloat
    upper: double_float.DoubleFloat
    of_pi: list[Array]


# Of the cross entropy of logits these parts of the gradient are numbers, not arrays to write and read.
CE_SLOPES = {"ce_p": 1.0, "ce_xt": 0.0}


def _save_logistic_row(
    settings: Settings, row: RowBlock, numbers: tuple, tables: Tables
) -> fused_mixing.Saved:
    _, belief = settings
    loc, log_scale, of_logits = numbers
    lower, upper = _edges(loc, log_scale, tables)
    row = row._replace(logits=_logits(row, lower, upper))
    saved = fused_mixing.save_row(settings, row, of_logits, tables.of_pi)
    if belief == "d3pm":
        saved = saved._replace(**dict.fromkeys(CE_SLOPES))
    return saved


def _gradient_logistic_row(
    settings: Settings, row: RowBlock, numbers: tuple, tables: Tables
) -> tuple[Array, Array]:
    _, belief = settings
    loc, log_scale, (*of_row, saved, g_kl, g_ce) = numbers
    if belief == "d3pm":
        saved = saved._replace(**CE_SLOPES)
    lower, upper = _edges(loc, log_scale, tables)
    row = row._replace(logits=_logits(row, lower, upper))
    g = fused_mixing.gradient_row(settings, row, (*of_row, saved, g_kl, g_ce), tables.of_pi)

    # A logit is log sigmoid(b) + log sigmoid(-a). Its derivative by b is sigmoid(-b), that by a -sigmoid(a).
    # Both edges fall by the inverse scale as loc rises by 1, and by themselves as log_scale does.
    of_upper = g * jax.lax.logistic(-upper)
    of_lower = -g * jax.lax.logistic(lower)
    g_loc = -_inverse_scale(log_scale) * jnp.sum(of_upper + of_lower, axis=-1)
    g_log_scale = -jnp.sum(upper * of_upper + lower * of_lower, axis=-1)
    return g_loc, g_log_scale


def _tables(settings: Settings, K: int, log_pi: Array) -> Tables:
    high, low = double_float.split_float64((2 * np.arange(K + 1) - K) / (K - 1.0))
    pi_kind, _ = settings
    lower = high[:-1], low[:-1]
    upper = high[1:], low[1:]
    return Tables(lower, upper, fused_mixing.tables_of_rows(pi_kind, log_pi))


def _edges(loc: Array, log_scale: Array, tables: Tables) -> tuple[Array, Array]:
    """Returns the edges of all bins as `heads.logistic` has them, a_k and b_k, [R, P]."""
    loc = loc[..., None]
    inverse = _inverse_scale(log_scale)[..., None]

    def scale(edges: double_float.DoubleFloat) -> Array:
        high, low = edges
        return ((high - loc) + low) * inverse

    return scale(tables.lower), scale(tables.upper)


def _inverse_scale(log_scale: Array) -> Array:
    return math.exp(2.0) * jnp.exp(-log_scale)


def _logits(row: RowBlock, lower: Array, upper: Array) -> Array:
    """Returns log sigmoid(b) + log sigmoid(-a), and -inf beyond K.

    What `heads.logistic` adds to it is the same for a whole row, so that a softmax drops it.
    """
    # log sigmoid(b) = min(b, 0) - log(1 + exp(-|b|)). The two logs are made in one.
    below = jnp.exp(-jnp.abs(lower))
    above = jnp.exp(-jnp.abs(upper))
    logs = jnp.log1p(below + above + below * above)
    logits = jnp.minimum(upper, 0.0) - jnp.maximum(lower, 0.0) - logs
    return jnp.where(row.exists, logits, -jnp.inf)
