"""Computes `variational.posterior_kl_definition` of a dense process and its gradient, by two matrix products.

The definition is in log space. Where no product of probabilities comes near the smallest float, which is
almost always, the same sums are made of probabilities here, at about half the cost; a part of the elements in
which one does takes the definition.
"""

from typing import NamedTuple

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array

from d3pm_jax.beliefs import Belief
from d3pm_jax.losses import fused_by_parts
from d3pm_jax.losses.fused_by_parts import by_autodiff
from d3pm_jax.losses.variational import posterior_kl_definition
from d3pm_jax.posteriors import FirstStep
from d3pm_jax.processes.base import promote
from d3pm_jax.processes.dense import Dense
from d3pm_jax.processes.tables import expand_trailing, gather


class Factors(NamedTuple):
    """Holds probabilities [*S, K], of each row, up to the two norms [*S, 1]."""

    p0: Array  # of x_0, predicted
    back: Array  # of x_t given x_{t-1}
    q: Array  # of (x_{t-1}, x_t) given x_0, over norm_q
    v: Array  # of x_{t-1}, predicted
    norm_p: Array


def kl_and_ce(
    process: Dense,
    logits_x0: Array,
    x0: Array,
    xt: Array,
    t: Array,
    first_step: FirstStep,
    belief: Belief = "d3pm",
) -> tuple[Array, Array]:
    """Computes `dispatch_kl_and_ce`, the KL by parts of the elements together with its gradient."""
    logits = promote(process, logits_x0)
    kl, ce = fused_by_parts.kl_and_ce(kl_from_factors, kl_and_gradient, process, logits, x0, xt, t, belief)
    if first_step == "x0" and belief == "d3pm":
        ts = jnp.broadcast_to(expand_trailing(t, xt.shape), xt.shape)
        kl = jnp.where((ts == 1) & (gather(process.Q_transposed, ts, xt, x0) > 0), ce, kl)
    return kl, ce


def kl_from_factors(process: Dense, logits: Array, x0: Array, xt: Array, t: Array) -> Array:
    """Computes `variational.posterior_kl_definition` of one part of the elements."""
    kl, safe, _ = _from_factors(process, logits, x0, xt, t)
    return lax.cond(safe, lambda: kl, lambda: posterior_kl_definition(process, logits, x0, xt, t))


def kl_and_gradient(process: Dense, logits: Array, x0: Array, xt: Array, t: Array) -> tuple[Array, Array]:
    """Computes `kl_from_factors` and its gradient for the logits."""
    kl, safe, f = _from_factors(process, logits, x0, xt, t)

    def fast() -> tuple[Array, Array]:
        g = f.back / f.norm_p - jnp.where(f.q > 0, f.q / jnp.where(f.q > 0, f.v, 1.0), 0.0)
        g = _times(g, jnp.swapaxes(gather(process.Qbar_table, t - 1), -1, -2))
        return kl, f.p0 * (g - jnp.sum(f.p0 * g, axis=-1, keepdims=True))

    return lax.cond(safe, fast, lambda: by_autodiff(posterior_kl_definition, process, logits, x0, xt, t))


def _from_factors(
    process: Dense, logits: Array, x0: Array, xt: Array, t: Array
) -> tuple[Array, Array, Factors]:
    """Returns the KL, whether it can be relied on for all of these elements, and what it is made of."""
    weights = jnp.exp(logits - jnp.max(logits, axis=-1, keepdims=True))
    p0 = weights * (1 / jnp.sum(weights, axis=-1, keepdims=True))
    back, row = (
        gather(process.Q_transposed, expand_trailing(t, xt.shape), xt),
        gather(process.Qbar_table, expand_trailing(t - 1, x0.shape), x0),
    )
    v = _times(p0, gather(process.Qbar_table, t - 1))
    joint_q, joint_p = back * row, back * v
    norm_q, norm_p = (jnp.sum(x, axis=-1, keepdims=True) for x in (joint_q, joint_p))
    q, p = joint_q * (1 / norm_q), joint_p * (1 / norm_p)
    some = q > 0
    ratio = jnp.where(some, p, 1.0) / jnp.where(some, q, 1.0)
    kl = jnp.sum(jnp.where(some, q * ((ratio - 1) - jnp.log(ratio)), p), axis=-1)
    bits = jnp.finfo(logits.dtype)
    enough = bits.tiny * 2.0 ** (bits.nmant + 4)  # of a sum whose terms below `tiny` were lost
    safe = jnp.all((row == 0) | (v > enough)) & jnp.all(norm_q > enough) & jnp.all(norm_p > enough)
    return kl, safe & jnp.all(jnp.isfinite(kl)), Factors(p0, back, q, v, norm_p)


def _times(p: Array, matrices: Array) -> Array:
    """Multiplies the rows of p [*B, .., K] by the matrix of each of the leading axes, [*B, K, K]."""
    rows = jnp.reshape(p, (*matrices.shape[:-2], -1, p.shape[-1]))
    return jnp.reshape(jnp.matmul(rows, matrices, precision=lax.Precision.HIGHEST), p.shape)
