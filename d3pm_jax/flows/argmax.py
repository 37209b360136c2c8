"""Lifts categories x to vectors v in R^K with argmax v = x (Hoogeboom et al. 2021, arXiv 2102.05379).

x = argmax v loses what else v says, so that a density of v bounds the probability of x:

    log P(x) >= E_{q(v | x)} [log p(v) - log q(v | x)],   q(v | x) > 0 only where argmax v = x.

Each function here makes such a v from noise, with the logarithm that its density needs. `softplus_threshold`
and `gumbel_threshold` move the noise of any density q(u | x), such as that of a flow, and give
log |det dv/du|, so that log q(v | x) = log q(u | x) - log_det. `gumbel` draws from the posterior of Gumbel
variables itself, and gives its density.

In floats v_i may round up to v_x, and the argmax would be the first of the two. A number just below v_x takes
its place: argmax v = x holds for every noise.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from d3pm_jax import numerics
from d3pm_jax.checks import CATEGORIES, FINITE, at_least, declared


@declared(u=FINITE, x=CATEGORIES)
def softplus_threshold(
    u: Float[Array, "*S K"], x: Int[Array, "*S"]
) -> tuple[Float[Array, "*S K"], Float[Array, "*S"]]:
    """v_x = u_x, and v_i = u_x - softplus(u_x - u_i) for the others: everything below the threshold u_x.

    Args:
        u: noise of any density on R^K.
        x: categories.

    Returns:
        v, and log |det dv/du| = sum over i != x of log sigmoid(u_x - u_i).
    """
    is_x = _is_category(x, u)
    threshold = _pick(u, x)  # [*S, 1]
    gap = threshold - u
    v = jnp.where(is_x, u, _below(threshold - jax.nn.softplus(gap), threshold))
    log_det = jnp.sum(jnp.where(is_x, 0.0, jax.nn.log_sigmoid(gap)), axis=-1)
    return v, log_det


@declared(phi=FINITE, x=CATEGORIES, gumbel_noise=FINITE)
def gumbel(
    phi: Float[Array, "*S K"], x: Int[Array, "*S"], gumbel_noise: Float[Array, "*S K"]
) -> tuple[Float[Array, "*S K"], Float[Array, "*S"]]:
    """v ~ independent Gumbel(phi_i), given that argmax v = x.

    The maximum is v_x ~ Gumbel(log sum_i exp phi_i). Every other v_i is Gumbel(phi_i), cut off at v_x: of
    untruncated g_i it is -log(exp(-g_i) + exp(-v_x)). A prior of the same phi makes the bound tight: it is
    log softmax(phi)_x for every noise.

    Args:
        phi: locations.
        x: categories.
        gumbel_noise: standard Gumbel, as `jax.random.gumbel` draws it.

    Returns:
        v, and log q(v | x).
    """
    v, _ = _draw_gumbel(phi, x, gumbel_noise)
    return v, log_gumbel_posterior(phi, x, v)


@declared(phi=FINITE, x=CATEGORIES, v=FINITE)
def log_gumbel_posterior(
    phi: Float[Array, "*S K"], x: Int[Array, "*S"], v: Float[Array, "*S K"]
) -> Float[Array, "*S"]:
    """log density of independent Gumbel(phi_i) given that argmax v = x: log_gumbel - log softmax(phi)_x.

    Args:
        phi: locations.
        x: categories.
        v: vectors whose argmax is x.

    Returns:
        Nats; -inf where the argmax is another.
    """
    density = log_gumbel(phi, v) - numerics.log_prob(phi, x)
    return jnp.where(jnp.argmax(v, axis=-1).astype(x.dtype) == x, density, -jnp.inf)


@declared(phi=FINITE, v=FINITE)
def log_gumbel(phi: Float[Array, "*S K"], v: Float[Array, "*S K"]) -> Float[Array, "*S"]:
    """log density of independent Gumbel(phi_i): sum_i (phi_i - v_i - exp(phi_i - v_i)).

    Args:
        phi: locations.
        v: vectors.

    Returns:
        Nats; -inf, with gradient 0, where exp(phi_i - v_i) is more than a float can hold.
    """
    gap = phi - v
    is_ruled_out = gap > np.log(jnp.finfo(gap.dtype).max)
    # The exponential sees 0 in place of such a gap, as its infinite slope would make a gradient NaN.
    terms = gap - jnp.exp(jnp.where(is_ruled_out, 0.0, gap))
    return jnp.sum(jnp.where(is_ruled_out, -jnp.inf, terms), axis=-1)


@declared(u=FINITE, x=CATEGORIES, phi=FINITE)
def gumbel_threshold(
    u: Float[Array, "*S K"], x: Int[Array, "*S"], phi: Float[Array, "*S K"]
) -> tuple[Float[Array, "*S K"], Float[Array, "*S"]]:
    """`gumbel` with noise of any density: sigmoid(u_i) takes the place of the uniform behind each Gumbel.

    Args:
        u: noise of any density on R^K, such as that of a flow; a logistic one makes it `gumbel`.
        x: categories.
        phi: locations.

    Returns:
        v, and log |det dv/du|.
    """
    # With U = sigmoid(u) a standard Gumbel is -log(-log U), and -log U is softplus(-u). For large u that is
    # exp(-u), which rounds to 0: the Gumbel is u itself, from 37 on to the precision of a float64. In float16
    # that is so from 6.8 on, where multiples of the slope exp(u) are still numbers. There the other formula
    # sees 0, as its infinite slope would make a gradient NaN.
    is_large = u > min(37.0, -0.7 * np.log(float(jnp.finfo(u.dtype).tiny)))
    gumbel_noise = jnp.where(is_large, u, -jnp.log(jax.nn.softplus(-jnp.where(is_large, 0.0, u))))
    v, truncated = _draw_gumbel(phi, x, gumbel_noise)

    # dU/du = U (1 - U). Of v_x, dv/dU = 1 / (-U log U); of the others, exp(v_i - phi_i) / U.
    log_slope_of_x = gumbel_noise + jax.nn.log_sigmoid(-u)
    log_slope_of_others = truncated - phi + jax.nn.log_sigmoid(-u)
    log_slope = jnp.where(_is_category(x, u), log_slope_of_x, log_slope_of_others)
    log_det = jnp.sum(log_slope, axis=-1)
    return v, log_det


@declared(u=FINITE, bits=at_least(0, 1))
def signed_softplus(
    u: Float[Array, "*S"], bits: Int[Array, "*S"]
) -> tuple[Float[Array, "*S"], Float[Array, "*S"]]:
    """v = softplus(u) where the bit is 1, -softplus(u) where it is 0: one number in place of two for K = 2.

    The bit is 1 where v > 0, as with argmax (0, v).

    Args:
        u: noise of any density.
        bits: 0 or 1.

    Returns:
        v, and log |dv/du| = log sigmoid(u) of each element.
    """
    # softplus(u) rounds to 0 for very negative u, which has no sign.
    magnitude = jnp.maximum(jax.nn.softplus(u), jnp.finfo(u.dtype).tiny)
    return jnp.where(bits == 1, magnitude, -magnitude), jax.nn.log_sigmoid(u)


def _draw_gumbel(phi: Array, x: Array, gumbel_noise: Array) -> tuple[Array, Array]:
    """Returns v of `gumbel`, and what all v_i but the largest are before they are kept below it, [*S, K]."""
    v_x = numerics.log_sum(phi)[..., None] + _pick(gumbel_noise, x)  # [*S, 1]
    truncated = -numerics.log_add(-(phi + gumbel_noise), jnp.broadcast_to(-v_x, phi.shape))
    return jnp.where(_is_category(x, phi), v_x, _below(truncated, v_x)), truncated


def _is_category(x: Array, v: Array) -> Array:
    """Says of each entry of v [*S, K] whether it is that of x [*S]."""
    return jax.nn.one_hot(x, v.shape[-1], dtype=bool)


def _pick(v: Array, x: Array) -> Array:
    """Returns v_x, [*S, 1]."""
    return jnp.take_along_axis(v, x[..., None], axis=-1)


def _below(v: Array, threshold: Array) -> Array:
    """Returns v, or a number just below the threshold where rounding has brought v up to it."""
    precision = jnp.finfo(v.dtype)
    # Around 0 the next number would be a denormal one, which programs may take for 0.
    step = jax.lax.stop_gradient(jnp.maximum(precision.eps * jnp.abs(threshold), precision.tiny))
    return jnp.where(v < threshold, v, threshold - step)
