"""The KL of a dense process and its gradient with two matrix products, where floats can hold every factor.

The definition is `bayes.posterior_kl`, in log space. Where no product of probabilities comes near the
smallest float, which is almost always, the same sums are made of probabilities, at about half the cost; a
part of the elements in which one does takes the definition.
"""

from typing import Any, NamedTuple

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array

from d3pm_jax import chunks
from d3pm_jax.transitions import bayes
from d3pm_jax.transitions.base import read, spread


class Factors(NamedTuple):
    """Probabilities [*S, K], of each row, up to the two norms [*S, 1]."""

    p0: Array  # of x_0, predicted
    back: Array  # of x_t given x_{t-1}
    q: Array  # of (x_{t-1}, x_t) given x_0, over norm_q
    v: Array  # of x_{t-1}, predicted
    norm_p: Array


def posterior_kl(tr: Any, logits: Array, x0: Array, xt: Array, t: Array) -> Array:
    """`bayes.posterior_kl`."""
    kl, safe, _ = _from_factors(tr, logits, x0, xt, t)
    return lax.cond(safe, lambda: kl, lambda: bayes.posterior_kl(tr, logits, x0, xt, t))


def with_gradient(tr: Any, logits: Array, x0: Array, xt: Array, t: Array) -> tuple[Array, Array]:
    """`bayes.posterior_kl` and its gradient for the logits."""
    kl, safe, f = _from_factors(tr, logits, x0, xt, t)

    def fast() -> tuple[Array, Array]:
        g = f.back / f.norm_p - jnp.where(f.q > 0, f.q / jnp.where(f.q > 0, f.v, 1.0), 0.0)
        g = _times(g, jnp.swapaxes(read(tr.Q_cum, t - 1), -1, -2))
        return kl, f.p0 * (g - jnp.sum(f.p0 * g, axis=-1, keepdims=True))

    return lax.cond(safe, fast, lambda: chunks.by_autodiff(bayes.posterior_kl, tr, logits, x0, xt, t))


def _from_factors(tr: Any, logits: Array, x0: Array, xt: Array, t: Array) -> tuple[Array, Array, Factors]:
    """The KL, whether it can be relied on for all of these elements, and what it is made of."""
    weights = jnp.exp(logits - jnp.max(logits, axis=-1, keepdims=True))
    p0 = weights * (1 / jnp.sum(weights, axis=-1, keepdims=True))
    back, row = read(tr.Q_back, spread(t, xt.shape), xt), read(tr.Q_cum, spread(t - 1, x0.shape), x0)
    v = _times(p0, read(tr.Q_cum, t - 1))
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
    """The rows of p [*B, .., K] times the matrix of each of the leading axes, [*B, K, K]."""
    rows = jnp.reshape(p, (*matrices.shape[:-2], -1, p.shape[-1]))
    return jnp.reshape(jnp.matmul(rows, matrices, precision=lax.Precision.HIGHEST), p.shape)
