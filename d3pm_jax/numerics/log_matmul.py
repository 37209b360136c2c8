"""Takes the log of a product of probabilities and a table, exact however far apart the probabilities are."""

from functools import partial

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from d3pm_jax.checks import at_least, declared
from d3pm_jax.numerics.logspace import NEG_INF, log_add


def band_width(dtype: jnp.dtype) -> float:
    """Gives the nats of log_p that `log_matmul` puts in one matrix product: 30 (float32), 300 (float64)."""
    return 300.0 if dtype == jnp.float64 else 30.0


def smallest_entry(dtype: jnp.dtype) -> float:
    """Gives the smallest non-zero table entry for which `log_matmul` cannot underflow: 2^-80 or 2^-580."""
    return 2.0**-580 if dtype == jnp.float64 else 2.0**-80


@declared(table=at_least(0))
def log_matmul(log_p: Float[Array, "*L M K"], table: Float[Array, "*L K J"]) -> Float[Array, "*L M J"]:
    """log(exp(log_p) @ table), exact however far apart the entries of log_p are.

    An ordinary matrix product loses terms below the smallest float. Here the entries of a row are
    taken in bands of `band_width` nats below its largest, one matrix product each: one for any usual
    network output, more only where they are needed. The table is a constant: no gradient reaches it.

    Args:
        log_p: log-probabilities in nats, entries may be -inf.
        table: non-negative; entries are 0 or at least `smallest_entry`.

    Returns:
        The logs of the products, -inf exactly where no term is positive.
    """
    return _log_matmul(log_p, table)


@jax.custom_vjp
def _log_matmul(log_p: Array, table: Array) -> Array:
    return _log_matmul_fwd(log_p, table)[0]


def _split(log_p: Array) -> tuple[Array, Array, Array]:
    """Returns the largest entry of each row, and each entry's band and position in it, in nats."""
    top = jnp.max(log_p, axis=-1, keepdims=True)
    top = jnp.where(top == NEG_INF, 0.0, top)
    depth = top - log_p
    width = band_width(log_p.dtype)
    band = jnp.floor(depth / width)
    inside = jnp.clip(depth - band * width, 0.0, width)  # exact for depths of up to 2^23 bands
    return top, band, jnp.where(band < jnp.inf, inside, jnp.inf)


def _further_bands(band: Array, body, init):
    """Folds `body(b, carry)` over the bands behind the first that occur anywhere, in increasing order.

    Mostly there are none: the loop stands behind a condition, for accelerators, which have no other loop.
    """

    def after(b: Array) -> Array:
        return jnp.min(jnp.where(band > b, band, jnp.inf), initial=jnp.inf)

    def step(carry):
        b, value = carry
        return after(b), body(b, value)

    second = after(jnp.zeros((), band.dtype))
    return lax.cond(
        second < jnp.inf,
        lambda: lax.while_loop(lambda carry: carry[0] < jnp.inf, step, (second, init))[1],
        lambda: init,
    )


_matmul = partial(jnp.matmul, precision=lax.Precision.HIGHEST)


def _log_matmul_fwd(log_p: Array, table: Array):
    top, band, inside = _split(log_p)
    width = band_width(log_p.dtype)

    def one(b: Array | float) -> Array:
        p = jnp.where(band == b, jnp.exp(-inside), 0.0)
        return jnp.log(_matmul(p, table)) + (top - width * b)

    out = _further_bands(band, lambda b, out: log_add(out, one(b)), one(0.0))
    out = jnp.where(jnp.any(jnp.isnan(log_p), axis=-1, keepdims=True), jnp.nan, out)
    return out, (log_p, table, out)


def _log_matmul_bwd(residuals, g: Array):
    log_p, table, out = residuals
    top, band, inside = _split(log_p)
    width = band_width(log_p.dtype)
    largest = width - jnp.log(smallest_entry(log_p.dtype)) + 1.0  # an entry further below is not of this band
    shift = 2.0 ** (500 if log_p.dtype == jnp.float64 else 60)  # exact; keeps both factors finite
    transposed = jnp.swapaxes(table, -1, -2)

    def one(b: Array | float) -> Array:
        rise = (top - width * b) - out
        weight = jnp.where(rise < largest, g * (jnp.exp(jnp.where(rise < largest, rise, 0.0)) / shift), 0.0)
        p = jnp.where(band == b, jnp.exp(-inside) * shift, 0.0)
        return p * _matmul(weight, transposed)

    return _further_bands(band, lambda b, total: total + one(b), one(0.0)), None


_log_matmul.defvjp(_log_matmul_fwd, _log_matmul_bwd)
