"""Holds bijections of single numbers, with their parameters as arguments.

Each has a forward direction v -> (z, log |dz/dv|) and an inverse z -> v. `mixture_logit` is monotone and has
no inverse in closed form: it is found by Newton's method within an interval that is known to hold it.

Affine scales below exp(-85) are none in float32: bound them, as by `bounded_log_scale`. The logistic
distributions of a mixture may be narrower, and are taken for as narrow as floats allow.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from d3pm_jax import numerics
from d3pm_jax.checks import FINITE, declared, is_known, promote_types


class Transformed(NamedTuple):
    """Holds transformed numbers, and the log of the slope of the transform at each."""

    z: Float[Array, "*V"]
    log_slope: Float[Array, "*V"]  # log |dz/dv|


MAX_ROUNDS = 2048  # each halves an interval or a step: more than exponents and digits of a float64 need


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
        shift, log_scale: of the transform of each.
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
        means, log_scales: of the logistic distributions. A scale below exp(-79), or exp(-638) in float64,
            is taken for that, and its gradient is 0.

    Returns:
        z, and log |dz/dv| = log F' - log F - log(1 - F).
    """
    return _mixture_logit(v, logit_weights, means, _raise_log_scales(log_scales))


def _raise_log_scales(log_scales: Array) -> Array:
    """Returns log-scales, and in place of smaller ones the smallest for which distances are floats."""
    # A logistic distribution of such a scale is a step between neighbouring floats already. Its distances
    # (v - mean) / scale fit into a float for v up to thousands. An infinite 1 / scale would make them, or
    # their gradients, 0 times infinity.
    smallest = -0.9 * np.log(jnp.finfo(log_scales.dtype).max)
    return jnp.maximum(log_scales, smallest)


def _mixture_logit(v: Array, logit_weights: Array, means: Array, log_scales: Array) -> Transformed:
    log_weights = numerics.log_normalize(logit_weights)
    distance = (v[..., None] - means) * jnp.exp(-log_scales)  # [*V, m]
    log_below = jax.nn.log_sigmoid(distance)
    log_above = jax.nn.log_sigmoid(-distance)
    log_cdf = numerics.log_sum(log_weights + log_below)
    log_survival = numerics.log_sum(log_weights + log_above)
    # In a tail log F may be so large that a log-scale added to it would be lost by rounding. So the logs of
    # the parts of F' / (F (1 - F)) are divided by those of F and 1 - F first.
    share_below = log_below - log_cdf[..., None]  # [*V, m]
    share_above = log_above - log_survival[..., None]
    log_slope = numerics.log_sum(log_weights + share_below + share_above - log_scales)
    return Transformed(log_cdf - log_survival, log_slope)


@declared(z=FINITE, logit_weights=FINITE, means=FINITE, log_scales=FINITE)
def invert_mixture_logit(
    z: Float[Array, "*V"],
    logit_weights: Float[Array, "*V m"],
    means: Float[Array, "*V m"],
    log_scales: Float[Array, "*V m"],
) -> Float[Array, "*V"]:
    """Inverts `mixture_logit`: returns v, to the precision of its type.

    Of one logistic alone v = mean + scale z. The mixture lies between its parts, so that the smallest and the
    largest of these hold its v between them. Steps of Newton's method start from their weighted mean; where
    one leaves the interval, or is not half as long as the step before, the interval is halved in its place.

    Args:
        z: numbers.
        logit_weights: unnormalised logs of the weights.
        means, log_scales: of the logistic distributions.

    Returns:
        v; under `jit` NaN where the steps do not end.

    Raises:
        ValueError: the steps do not end, as the logistic distributions do not fit into floats.
    """
    return _invert_mixture_logit(z, logit_weights, means, _raise_log_scales(log_scales))


@jax.custom_jvp
def _invert_mixture_logit(z: Array, logit_weights: Array, means: Array, log_scales: Array) -> Array:
    v, is_closed = _solve(z, logit_weights, means, log_scales)
    if is_known(is_closed) and not np.all(is_closed):
        place = tuple(np.argwhere(~np.asarray(is_closed))[0].tolist())
        raise ValueError(
            f"the inverse does not converge at z[{', '.join(map(str, place))}] = {z[place]:g}, where "
            f"log_scales go up to {log_scales[place].max():g}: make the conditioner return finite "
            "numbers, and bound the log_scales, as bounded_log_scale does"
        )
    return jnp.where(is_closed, v, jnp.nan)


# The steps are not differentiated. The derivative of v follows from z = f(v, parameters) being solved by it:
# dz = f_v dv + f_parameters dparameters.
@_invert_mixture_logit.defjvp
def _invert_mixture_logit_jvp(primals: tuple[Array, ...], tangents: tuple[Array, ...]) -> tuple[Array, Array]:
    z, *params = primals
    dz, *dparams = tangents
    v = _invert_mixture_logit(z, *params)
    log_slope = _mixture_logit(v, *params).log_slope
    _, dz_of_params = jax.jvp(lambda *params: _mixture_logit(v, *params).z, params, dparams)
    return v, (dz - dz_of_params) * jnp.exp(-log_slope)


# Without jit of its own a call outside of a program would compile the loop anew.
@jax.jit
def _solve(z: Array, logit_weights: Array, means: Array, log_scales: Array) -> tuple[Array, Array]:
    """Returns v, and where it is that of z: elsewhere the steps did not end."""
    dtype = promote_types(z, logit_weights, means, log_scales)
    # Mirrored at 0 a mixture has F and 1 - F exchanged, so that -v belongs to -z. All is mirrored where z is
    # negative: then F is at least a half at the v that is looked for.
    sign = jnp.where(z < 0, -1.0, 1.0).astype(dtype)
    target = (sign * z)[..., None]  # [*V, 1]
    centres = sign[..., None] * means  # [*V, m]
    inverse_scales = jnp.exp(-log_scales).astype(dtype)
    scales = 1 / inverse_scales
    log_weights = numerics.log_normalize(logit_weights)
    weights = jnp.exp(log_weights)
    smallest_scale = scales.min(axis=-1)  # [*V]

    parts = centres + scales * target  # [*V, m]
    # Rounding may move an end past v: a few units in the last place are added on both sides.
    eps = jnp.finfo(dtype).eps
    margin = 8 * eps * (jnp.abs(parts).max(axis=-1) + scales.max(axis=-1))
    low = parts.min(axis=-1) - margin
    high = parts.max(axis=-1) + margin
    start = jnp.sum(weights * parts, axis=-1)
    is_finite = jnp.isfinite(high - low) & jnp.isfinite(start)

    # With a = (v - mean) / scale and e = exp(-|a|), sigmoid(a) is 1 / (1 + e) or e / (1 + e), and sigmoid(-a)
    # the other. They give F and exp(z) (1 - F) without a log for each part. Both are between 1/2 and 1 at the
    # v that is looked for, so that no tail is lost there. Elsewhere they may be 0 or inf: v is then known to
    # be too small or too large.
    def measure_excess(v: Array) -> tuple[Array, Array]:
        """Returns mixture_logit(v) - z and its slope."""
        distance = (v[..., None] - centres) * inverse_scales  # [*V, m]
        e = jnp.exp(-jnp.abs(distance))
        larger = 1 / (1 + e)
        below = jnp.where(distance < 0, e, 1.0) * larger
        # The exponents are added before exp is taken: a weight may be tiny where exp(z) is large.
        above = jnp.exp(log_weights + target - jnp.maximum(distance, 0.0)) * larger
        cdf = jnp.sum(weights * below, axis=-1)
        survival = jnp.sum(above, axis=-1)  # exp(z) (1 - F)
        density = jnp.sum(above * below * inverse_scales, axis=-1)  # exp(z) F'
        slope = density * (jnp.exp(-target[..., 0]) / cdf + 1 / survival)  # F' / F + F' / (1 - F)
        return jnp.log(cdf / survival), slope

    def is_any_open(state: tuple[Array, ...]) -> Array:
        *_, is_open, num_rounds = state
        return (num_rounds < MAX_ROUNDS) & jnp.any(is_open)

    def advance(state: tuple[Array, ...]) -> tuple[Array, ...]:
        v, low, high, last_step, is_open, num_rounds = state
        excess, slope = measure_excess(v)
        is_above = excess > 0
        low = jnp.where(is_above, low, v)
        high = jnp.where(is_above, v, high)
        newton = v - excess / slope
        step = jnp.abs(newton - v)
        # Comparisons with NaN are false: where the slope is 0 or no number, the interval is halved.
        is_newton = (low <= newton) & (newton <= high) & (step <= 0.5 * last_step)
        middle = low + 0.5 * (high - low)
        next_v = jnp.where(is_newton, newton, middle)

        # An interval is narrow enough where it is as wide as the numbers in it are exact. The scale counts as
        # well: to reach v = 0 would otherwise take a thousand halvings, down to the smallest number.
        #
        # A step of Newton's leaves an error of its square times slope' / (2 slope). For s = smallest_scale
        # this factor is at most 1 / s, as F'' / F', F' / F and F' / (1 - F) are at most 1 / s. So a step of
        # half of sqrt(eps) s leaves no more than eps s / 4, and is the last.
        rounding = eps * jnp.maximum(jnp.abs(low), jnp.abs(high))
        is_last_step = step <= eps * jnp.abs(v) + 0.5 * eps**0.5 * smallest_scale
        is_narrow = high - low <= rounding + eps * smallest_scale
        is_closed = jnp.where(is_newton, is_last_step, is_narrow)

        # What is closed moves no more: its v does not depend on the elements beside it.
        last_step = jnp.abs(next_v - v)
        v = jnp.where(is_open, next_v, v)
        return v, low, high, last_step, is_open & ~is_closed, num_rounds + 1

    state = (start, low, high, high - low, is_finite, jnp.int32(0))
    v, *_, is_open, _ = jax.lax.while_loop(is_any_open, advance, state)
    return sign * v, is_finite & ~is_open


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
    """Inverts `mixture_affine`: returns v.

    Args:
        z: numbers.
        params: of each number its shift, its log-scale s, then logit_weights, means and log_scales of m
            logistic distributions: P = 2 + 3 m.

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
