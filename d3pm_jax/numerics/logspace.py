"""Computes in log space: exact at probability 0, and never NaN, in value or in gradient.

A log-probability may be -inf (probability exactly 0). Every function here gives the limit that
probability theory asks for at such points (0 log 0 = 0) and a finite gradient.

A `jnp.where` alone does not do this: its gradient multiplies the one of the branch that is not taken by 0,
and 0 times inf or NaN is NaN. So the dangerous argument is replaced before the function sees it, and the
result is replaced after it: two `where` with one condition.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from d3pm_jax.checks import CATEGORIES, declared, promote_types

NEG_INF = -jnp.inf


def at_least_float32(x: Array) -> Array:
    """Returns x in float32 if its type is narrower, for sums over many entries."""
    return x.astype(promote_types(x.dtype, jnp.float32))


@declared()
def log_add(a: Float[Array, "*S"], b: Float[Array, "*S"]) -> Float[Array, "*S"]:
    """log(exp a + exp b); -inf where both are, with gradient 0 there.

    Args:
        a, b: log-probabilities of one shape, in nats.

    Returns:
        The log of the sum of the two probabilities, same shape.
    """
    # Not of their maximum: that of NaN and -inf is -inf in kernels for GPUs.
    both_zero = (a == NEG_INF) & (b == NEG_INF)
    log_total = jnp.logaddexp(jnp.where(both_zero, 0.0, a), jnp.where(both_zero, 0.0, b))
    return jnp.where(both_zero, NEG_INF, log_total)


@declared()
def log_sum(x: Float[Array, "*S K"]) -> Float[Array, "*S"]:
    """log sum_k exp x_k over the last axis; -inf where every entry is, with gradient 0 there.

    Args:
        x: log-probabilities in nats.

    Returns:
        The log of their sum, the last axis gone.
    """
    # The result does not depend on `top`, so no gradient goes through it. In a row of -inf `top` is set to 0,
    # because -inf - (-inf) would be NaN.
    top = jax.lax.stop_gradient(jnp.max(x, axis=-1))  # [*S]
    top = jnp.where(top == NEG_INF, 0.0, top)
    total = jnp.sum(jnp.exp(x - top[..., None]), axis=-1)

    # Only a row of -inf has the sum 0: in any other the largest term is exp(0) = 1.
    all_zero = total == 0
    log_total = jnp.log(jnp.where(all_zero, 1.0, total)) + top
    return jnp.where(all_zero, NEG_INF, log_total)


@declared()
def log_normalize(logits: Float[Array, "*S K"]) -> Float[Array, "*S K"]:
    """logits - log_sum(logits); a row of -inf stays -inf, because it has no distribution.

    Args:
        logits: unnormalised log-probabilities in nats, entries may be -inf.

    Returns:
        Log-probabilities whose exponentials sum to 1 over the last axis (or are all 0). All NaN in a row with
        NaN or +inf.
    """
    total = log_sum(logits)[..., None]  # [*S, 1]
    return logits - jnp.where(total == NEG_INF, 0.0, total)


@declared(k=CATEGORIES)
def log_prob(logits: Float[Array, "*S K"], k: Int[Array, "*S"]) -> Float[Array, "*S"]:
    """logits[k] - log_sum(logits): the log-probability of one category of each row.

    Args:
        logits: unnormalised log-probabilities in nats, entries may be -inf.
        k: categories.

    Returns:
        Nats; -inf, with gradient 0, where the category or the whole row has probability 0.
    """
    return _log_prob(logits, k)


# The gradient is onehot(k) - softmax(logits). It is written by hand for the rows without a distribution,
# where it is 0, and because the derived one would scatter into [*S, K] what is a comparison here.
@jax.custom_vjp
def _log_prob(logits: Array, k: Array) -> Array:
    return _log_prob_fwd(logits, k)[0]


def _log_prob_fwd(logits: Array, k: Array):
    total = log_sum(logits)
    picked = jnp.take_along_axis(logits, k[..., None], axis=-1)[..., 0]
    # Where all of a row is -inf, so is the total, and -inf - (-inf) would be NaN.
    value = picked - jnp.where(total == NEG_INF, 0.0, total)
    return value, (logits, k, total, value)


def _log_prob_bwd(residuals, g: Array):
    logits, k, total, value = residuals
    categories = jnp.arange(logits.shape[-1], dtype=jnp.int32).reshape((1,) * k.ndim + (-1,))
    p = jnp.exp(logits - jnp.where(total == NEG_INF, 0.0, total)[..., None])
    g = jnp.where(value == NEG_INF, 0.0, g)[..., None]
    return g * ((k[..., None] == categories).astype(p.dtype) - p), None


_log_prob.defvjp(_log_prob_fwd, _log_prob_bwd)


@declared()
def kl(log_q: Float[Array, "*S K"], log_p: Float[Array, "*S K"]) -> Float[Array, "*S"]:
    """KL(q || p) = sum_k q_k (log q_k - log p_k), over the last axis, with 0 log 0 = 0.

    Summed as q (r - 1 + exp(-r)) with r = log q - log p, which has the same total, is never negative,
    is 0 at q = p, and near there keeps the digits that q r loses: a rounding of r enters times r.

    Args:
        log_q, log_p: normalised log-probabilities in nats.

    Returns:
        The divergence in nats: +inf, with gradient 0, exactly where q > 0 meets p = 0; 0 where q is all zero.
    """
    q, terms, ruled_out = kl_terms(log_q, log_p)

    # A row of q that is all 0 is no distribution: the p that is left of its terms is not a divergence.
    finite = jnp.where(jnp.max(q, axis=-1) == 0, 0.0, jnp.sum(terms, axis=-1))
    return jnp.where(jnp.any(ruled_out, axis=-1), jnp.inf, finite)


def kl_terms(log_q: Array, log_p: Array) -> tuple[Array, Array, Array]:
    """Returns q, the terms of `kl`, and which of them are +inf, for which the terms are finite."""
    q = jnp.exp(log_q)
    p = jnp.exp(log_p)
    ruled_out = (log_q > NEG_INF) & (log_p == NEG_INF)

    # r is set to 0 where a term has no finite value: where q is 0, as 0 log 0 = 0, and where q > 0 meets p =
    # 0, which the last line makes inf. The logs are replaced before, as -inf - (-inf) would be NaN.
    has_ratio = (q > 0) & ~ruled_out
    r = jnp.where(has_ratio, log_q, 0.0) - jnp.where(has_ratio, log_p, 0.0)

    # Near r = 0 a term is q (r + expm1(-r)). Further out expm1(-r) may overflow, and the same number is q r -
    # q + p, as p = q exp(-r).
    near = jnp.abs(r) < 1.0
    r_near = jnp.where(near, r, 0.0)
    terms = jnp.where(near & (q > 0), q * (r_near + jnp.expm1(-r_near)), q * r - q + p)
    return q, terms, ruled_out


@declared()
def kl_logits(log_q: Float[Array, "*S K"], logits: Float[Array, "*S K"]) -> Float[Array, "*S"]:
    """KL(q || softmax(logits)), whose gradient for the logits is softmax(logits) - q; q is a constant.

    Args:
        log_q: normalised log-probabilities in nats.
        logits: unnormalised ones.

    Returns:
        The value of `kl`.
    """
    return _kl_logits(log_q, logits)


# Derived from the terms of `kl`, the gradient would come to softmax(logits) - q by way of sums over K that
# cancel, with their rounding and more passes over [*S, K]. So it is written by hand.
@jax.custom_vjp
def _kl_logits(log_q: Array, logits: Array) -> Array:
    return _kl_logits_fwd(log_q, logits)[0]


def _kl_logits_fwd(log_q: Array, logits: Array):
    log_p = log_normalize(logits)
    value = kl(log_q, log_p)
    return value, (log_q, log_p, value)


def _kl_logits_bwd(residuals, g: Array):
    log_q, log_p, value = residuals
    q = jnp.exp(log_q)
    # Where the divergence is inf, or q is no distribution, the value does not change with finite logits.
    constant = (value == jnp.inf) | (jnp.max(q, axis=-1) == 0)
    return None, jnp.where(constant, 0.0, g)[..., None] * (jnp.exp(log_p) - q)


_kl_logits.defvjp(_kl_logits_fwd, _kl_logits_bwd)


@declared()
def log1mexp(log_x: Float[Array, "*S"]) -> Float[Array, "*S"]:
    """log(1 - exp(-x)) of x = exp(log_x): the log of a probability that may be tiny or all but 1.

    Args:
        log_x: of any size; x itself need not fit a float.

    Returns:
        Nats: log_x where x is tiny, 0 where it is large.
    """
    # Further out than -40 or 7 one of the two forms below is exact for any x, so x need not leave the range
    # of a float. The first takes log_x apart from log((1 - exp(-x)) / x), which is near 0 for a small x and
    # keeps its digits; the second has exp(-x) < 1 / e.
    x = jnp.exp(jnp.clip(log_x, -40.0, 7.0))
    tiny = log_x < 0
    near_0 = log_x + jnp.log(-jnp.expm1(-x) / x)
    return jnp.where(tiny, near_0, jnp.log1p(-jnp.exp(-jnp.where(tiny, 1.0, x))))
