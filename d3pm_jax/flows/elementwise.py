"""Holds bijections of single numbers, with their parameters as arguments.

Each has a forward direction v -> (z, log |dz/dv|) and an inverse z -> v. `mixture_logit` is monotone and has
no inverse in closed form: it is found by halving an interval that is known to hold it. Scales below exp(-85)
are none in float32: bound them, as by `bounded_log_scale`.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float

from d3pm_jax import numerics
from d3pm_jax.checks import FINITE, declared
from d3pm_jax.checks.ranges import is_known


class Transformed(NamedTuple):
    """Holds numbers that were transformed, and by how much their distances grow there."""

    z: Float[Array, "*V"]
    log_slope: Float[Array, "*V"]  # log |dz/dv|


MAX_HALVINGS = 2048  # more than the exponents and the digits of a float64 need


@declared(v=FINITE, shift=FINITE, log_scale=FINITE)
def affine(v: Float[Array, "*V"], shift: Float[Array, "*V"], log_scale: Float[Array, "*V"]) -> Transformed:
    """z = exp(log_scale) v + shift.

    Args:
        v: numbers.
        shift, log_scale: of each.

    Returns:
        z, and log |dz/dv| = log_scale.
    """
    return Transformed(jnp.exp(log_scale) * v + shift, log_scale)


@declared(z=FINITE, shift=FINITE, log_scale=FINITE)
def invert_affine(
    z: Float[Array, "*V"], shift: Float[Array, "*V"], log_scale: Float[Array, "*V"]
) -> Float[Array, "*V"]:
    """v = (z - shift) exp(-log_scale).

    Args:
        z: numbers.
        shift, log_scale: of each, as for `affine`.
    """
    return (z - shift) * jnp.exp(-log_scale)


@declared(v=FINITE, logit_weights=FINITE, means=FINITE, log_scales=FINITE)
def mixture_logit(
    v: Float[Array, "*V"],
    logit_weights: Float[Array, "*V m"],
    means: Float[Array, "*V m"],
    log_scales: Float[Array, "*V m"],
) -> Transformed:
    """z = log F(v) - log(1 - F(v)), where F is the distribution function of a mixture of logistics.

    F(v) = sum_j w_j sigmoid((v - mean_j) / scale_j), of Flow++ (arXiv 1902.00275). log F and log(1 - F) are
    sums of their own, so that neither tail is lost.

    Args:
        v: numbers.
        logit_weights: unnormalised logs of the weights w.
        means, log_scales: of the logistic distributions.

    Returns:
        z, and log |dz/dv| = log F' - log F - log(1 - F).
    """
    return _mixture_logit(v, logit_weights, means, log_scales)


def _mixture_logit(v: Array, logit_weights: Array, means: Array, log_scales: Array) -> Transformed:
    log_weights = numerics.log_normalize(logit_weights)
    distance = (v[..., None] - means) * jnp.exp(-log_scales)  # [*V, m]
    log_below = jax.nn.log_sigmoid(distance)
    log_above = jax.nn.log_sigmoid(-distance)
    log_cdf = numerics.log_sum(log_weights + log_below)
    log_survival = numerics.log_sum(log_weights + log_above)
    log_density = numerics.log_sum(log_weights + log_below + log_above - log_scales)
    return Transformed(log_cdf - log_survival, log_density - log_cdf - log_survival)


@declared(z=FINITE, logit_weights=FINITE, means=FINITE, log_scales=FINITE)
def invert_mixture_logit(
    z: Float[Array, "*V"],
    logit_weights: Float[Array, "*V m"],
    means: Float[Array, "*V m"],
    log_scales: Float[Array, "*V m"],
) -> Float[Array, "*V"]:
    """Returns the v of `mixture_logit`, to the precision of its type.

    Of one logistic alone v = mean + scale z. The mixture lies between its parts, so that the smallest and the
    largest of these hold its v between them, and halving needs no first guess.

    Args:
        z: numbers.
        logit_weights, means, log_scales: as for `mixture_logit`.

    Returns:
        v; under `jit` NaN where halving does not end.

    Raises:
        ValueError: halving does not end, as the logistic distributions do not fit into floats.
    """
    return _invert_mixture_logit(z, logit_weights, means, log_scales)


@jax.custom_jvp
def _invert_mixture_logit(z: Array, logit_weights: Array, means: Array, log_scales: Array) -> Array:
    scales = jnp.exp(log_scales)
    smallest_scale = scales.min(axis=-1)  # [*V]
    parts = means + scales * z[..., None]  # [*V, m]
    # Rounding may move an end past v: a few units in the last place are added on both sides.
    eps = jnp.finfo(z.dtype).eps
    margin = 8 * eps * (jnp.abs(parts).max(axis=-1) + scales.max(axis=-1))
    low = parts.min(axis=-1) - margin
    high = parts.max(axis=-1) + margin

    # Halving ends where the interval is as wide as the numbers in it are exact. The scale counts as well: to
    # reach v = 0 would otherwise take a thousand steps, down to the smallest number.
    def width_of_rounding(low: Array, high: Array) -> Array:
        return eps * (jnp.maximum(jnp.abs(low), jnp.abs(high)) + smallest_scale)

    def is_open(state: tuple[Array, Array, Array]) -> Array:
        low, high, step = state
        return (step < MAX_HALVINGS) & jnp.any(high - low > width_of_rounding(low, high))

    def halve(state: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
        low, high, step = state
        middle = low + 0.5 * (high - low)
        is_above = _mixture_logit(middle, logit_weights, means, log_scales).z > z
        return jnp.where(is_above, low, middle), jnp.where(is_above, middle, high), step + 1

    low, high, _ = lax.while_loop(is_open, halve, (low, high, jnp.int32(0)))
    is_closed = jnp.isfinite(high - low) & (high - low <= 2 * width_of_rounding(low, high))
    if is_known(is_closed) and not np.all(is_closed):
        place = tuple(np.argwhere(~np.asarray(is_closed))[0].tolist())
        raise ValueError(
            f"the inverse does not converge at z[{', '.join(map(str, place))}] = {z[place]:g}, where "
            f"log_scales go up to {log_scales[place].max():g}: make the conditioner return finite numbers, "
            f"and bound these, as by bounded_log_scale"
        )
    return jnp.where(is_closed, low + 0.5 * (high - low), jnp.nan)


# Halving moves ends, which has no derivative. That of v follows from z = f(v, parameters) being solved by it:
# dz = f_v dv + f_parameters dparameters.
@_invert_mixture_logit.defjvp
def _invert_mixture_logit_jvp(primals: tuple[Array, ...], tangents: tuple[Array, ...]) -> tuple[Array, Array]:
    z, *params = primals
    dz, *dparams = tangents
    v = _invert_mixture_logit(z, *params)
    log_slope = _mixture_logit(v, *params).log_slope
    _, dz_of_params = jax.jvp(lambda *params: _mixture_logit(v, *params).z, params, dparams)
    return v, (dz - dz_of_params) * jnp.exp(-log_slope)


@declared(raw=FINITE, log_bound=FINITE)
def bounded_log_scale(raw: Float[Array, "*V"], log_bound: Float[Array, "*V"]) -> Float[Array, "*V"]:
    """exp(a) tanh(s / max(exp(a), 1)): a log-scale that is near s for small s and stays within exp(a).

    Args:
        raw: what a conditioner says, s.
        log_bound: a, a parameter that is learnt.
    """
    bound = jnp.exp(log_bound)
    # Training starts at exp(a) = 1, where the gradient of a maximum would be shared with the constant.
    return bound * jnp.tanh(raw / jnp.where(bound >= 1.0, bound, 1.0))


@declared(v=FINITE, params=FINITE)
def mixture_affine(v: Float[Array, "*V"], params: Float[Array, "*V P"]) -> Transformed:
    """z = exp(s) mixture_logit(v) + shift: the transform of a coupling, with all parameters in one array.

    Args:
        v: numbers.
        params: of each number its shift, its log-scale s, then logit_weights, means and log_scales of m
            logistic distributions: P = 2 + 3 m.

    Returns:
        z, and log |dz/dv|.

    Raises:
        ValueError: P is not 2 + 3 m.
    """
    shift, log_scale, mixture = _split_params(params)
    logit, log_slope = mixture_logit(v, *mixture)
    return Transformed(jnp.exp(log_scale) * logit + shift, log_scale + log_slope)


@declared(z=FINITE, params=FINITE)
def invert_mixture_affine(z: Float[Array, "*V"], params: Float[Array, "*V P"]) -> Float[Array, "*V"]:
    """Returns the v of `mixture_affine`.

    Args:
        z: numbers.
        params: as for `mixture_affine`.

    Raises:
        ValueError: P is not 2 + 3 m.
    """
    shift, log_scale, mixture = _split_params(params)
    return invert_mixture_logit((z - shift) * jnp.exp(-log_scale), *mixture)


def _split_params(params: Array) -> tuple[Array, Array, tuple[Array, Array, Array]]:
    """Splits parameters into shift, log-scale, and those of a mixture."""
    P = params.shape[-1]
    m = (P - 2) // 3
    if m < 1 or 2 + 3 * m != P:
        raise ValueError(
            f"params has shape {params.shape}, expected [.., P] with P = 2 + 3 m: "
            f"make the conditioner return the parameters of m logistic distributions"
        )
    logit_weights, means, log_scales = jnp.split(params[..., 2:], 3, axis=-1)
    return params[..., 0], params[..., 1], (logit_weights, means, log_scales)
