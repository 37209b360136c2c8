"""Computes `variational.posterior_kl_definition` of a dense process and its gradient, by two matrix products.

The definition is in log space. Where no product of probabilities comes near the smallest float, which is
almost always, the same sums are made of probabilities here, at about a third of the cost; an element in
which one does takes the definition, and its neighbours with it.
"""

import math

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array

from d3pm_jax.beliefs import Belief
from d3pm_jax.losses import fused_by_parts
from d3pm_jax.losses.variational import posterior_kl_definition
from d3pm_jax.processes import Dense, expand_trailing, gather, promote


def kl_and_ce(
    process: Dense, logits_x0: Array, x0: Array, xt: Array, t: Array, belief: Belief = "d3pm"
) -> tuple[Array, Array]:
    """Computes `variational.dispatch_kl_and_ce`; the KL and its gradient are made together, by parts."""
    logits = promote(process, logits_x0)
    kl, ce = fused_by_parts.kl_and_ce(
        kl_from_weights, kl_and_gradient, process, logits, x0, xt, t, belief, posterior_kl_definition
    )
    if belief == "official":
        # The official rule takes the prediction itself for p(x_0 | x_1): the term of t = 1 is the cross
        # entropy, but for an impossible pair, which costs nothing.
        ts = jnp.broadcast_to(expand_trailing(t, xt.shape), xt.shape)  # [*S]
        possible_at_1 = gather(process.Q_transposed, ts, xt, x0) > 0  # q(x_1 | x_0) > 0, where t = 1
        kl = jnp.where((ts == 1) & possible_at_1, ce, kl)
    return kl, ce


def kl_from_weights(process: Dense, logits: Array, x0: Array, xt: Array, t: Array) -> Array:
    """Computes `variational.posterior_kl_definition`, NaN where this form cannot be relied on."""
    return _from_weights(process, logits, x0, xt, t)[0]


def kl_and_gradient(process: Dense, logits: Array, x0: Array, xt: Array, t: Array) -> tuple[Array, Array]:
    """Computes `kl_from_weights` and its gradient for the logits.

    With p_0 = w / S, v = w @ Qbar and p = back v / norm_p, the gradient for v is back / norm_p - q / v, that
    is back / norm_p (1 - q / p). S does not enter: the sum of w times what comes back is that of p - q, 0.
    """
    kl, weights, g = _from_weights(process, logits, x0, xt, t)

    # Back through v = w @ Qbar, and through w = exp(logits - max).
    g = _times(g, jnp.swapaxes(gather(process.Qbar_table, t - 1), -1, -2))
    return kl, weights * g


def _from_weights(
    process: Dense, logits: Array, x0: Array, xt: Array, t: Array
) -> tuple[Array, Array, Array]:
    """Returns the KL, NaN where it cannot be relied on, w / norm_p, and its gradient for v times norm_p."""
    weights = jnp.exp(logits - jnp.max(logits, axis=-1, keepdims=True))  # [*S, K]
    back = gather(process.Q_transposed, expand_trailing(t, xt.shape), xt)  # [*S, K], q(x_t | x_{t-1} = .)
    row = gather(process.Qbar_table, expand_trailing(t - 1, x0.shape), x0)  # [*S, K], q(x_{t-1} = . | x_0)
    v = _times(weights, gather(process.Qbar_table, t - 1))  # [*S, K]
    joint_q = back * row
    joint_p = back * v
    norm_q = jnp.sum(joint_q, axis=-1, keepdims=True)  # [*S, 1]
    norm_p = jnp.sum(joint_p, axis=-1, keepdims=True)  # [*S, 1]

    # One division for each element: a division of K numbers takes far longer.
    inverse_q = 1 / norm_q
    inverse_p = 1 / norm_p

    # A sum is relied on if all that it lost, terms below `tiny`, is less than its rounding.
    bits = jnp.finfo(logits.dtype)
    enough = bits.tiny * 2.0 ** (bits.nmant + 4)

    # Terms are q ((p / q - 1) - log(p / q)), which are never negative (see `numerics.kl`), and p where q is
    # 0. A v that is too small makes its term NaN, and so the KL, for which the caller takes the definition.
    possible = joint_q > 0
    ratio = jnp.where(possible, jnp.where(v > enough, v, jnp.nan) / row * (norm_q * inverse_p), 1.0)  # p / q
    terms = jnp.where(possible, joint_q * inverse_q * ((ratio - 1) - jnp.log(ratio)), joint_p * inverse_p)
    kl = jnp.sum(terms, axis=-1)  # [*S]
    safe = ((norm_q > enough) & (norm_p > enough))[..., 0] & jnp.isfinite(kl)
    g = back * jnp.where(possible, (ratio - 1) / ratio, 1.0)  # [*S, K]
    return jnp.where(safe, kl, jnp.nan), weights * inverse_p, g


def _times(p: Array, matrices: Array) -> Array:
    """Multiplies the rows of p [*B, .., K] by the matrix of each of the leading axes, [*B, K, K]."""
    n = math.prod(p.shape[matrices.ndim - 2 : -1])
    rows = jnp.reshape(p, (*matrices.shape[:-2], n, p.shape[-1]))
    return jnp.reshape(jnp.matmul(rows, matrices, precision=lax.Precision.HIGHEST), p.shape)
