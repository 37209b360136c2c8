"""Takes the log of a product of probabilities and a table, exact however far apart the probabilities are."""

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from d3pm_jax.checks import at_least, declared
from d3pm_jax.numerics.logspace import NEG_INF, log_add


def band_width(dtype: jnp.dtype) -> float:
    """Returns the nats of log_p that `log_matmul` puts in one matrix product: 30 (float32), 300 (float64)."""
    # exp(-30) is about 2^-43 and exp(-300) about 2^-433. Times `smallest_entry`, 2^-80 or 2^-580, each is
    # still above the smallest normal float, 2^-126 or 2^-1022, so no term of a product underflows.
    if dtype == jnp.float64:
        return 300.0
    return 30.0


def smallest_entry(dtype: jnp.dtype) -> float:
    """Returns the smallest non-zero table entry for which `log_matmul` cannot underflow: 2^-80 or 2^-580."""
    if dtype == jnp.float64:
        return 2.0**-580
    return 2.0**-80


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


# The gradient is written by hand, because JAX has no reverse mode for the loop over bands, a `while_loop`.
@jax.custom_vjp
def _log_matmul(log_p: Array, table: Array) -> Array:
    return _log_matmul_fwd(log_p, table)[0]


def _split_in_bands(log_p: Array) -> tuple[Array, Array, Array]:
    """Returns the largest entry of each row, and each entry's band and position in it, in nats."""
    top = jnp.max(log_p, axis=-1, keepdims=True)  # [*L, M, 1]
    # A row of -inf has no largest entry. With 0 in its place every depth is inf, not NaN.
    top = jnp.where(top == NEG_INF, 0.0, top)
    depth = top - log_p  # [*L, M, K]
    width = band_width(log_p.dtype)
    band = jnp.floor(depth / width)
    # In float32 the position is exact for depths of up to 2^20 bands: 30 takes 4 of the 24 binary digits,
    # so band * 30 is exact as long as the band has 20. Beyond, the product is rounded, and the quotient may
    # round up to the next band at any depth. The clip holds the position in [0, width] in both cases: it
    # bounds exp(-inside), on which the ranges of all products are built.
    #
    # Where the depth is inf, so is the band, and inf - inf would be NaN: the last line puts inf there, whose
    # exponential is 0.
    has_band = band < jnp.inf
    inside = jnp.clip(depth - jnp.where(has_band, band, 0.0) * width, 0.0, width)
    return top, band, jnp.where(has_band, inside, jnp.inf)


def _fold_further_bands(band: Array, body: Callable[[Array, Array], Array], init: Array) -> Array:
    """Replaces value = init by body(b, value) for every band b > 0 that holds an entry, in increasing order.

    Mostly there are none. The loop stands behind a condition, so that it is then not entered at all: on an
    accelerator the usual product is a pass without a loop.
    """

    def next_band(b: Array) -> Array:
        """Returns the smallest band above b that an entry lies in, inf where there is none."""
        return jnp.min(jnp.where(band > b, band, jnp.inf), initial=jnp.inf)

    # Bands without an entry are skipped, so the number of products is that of bands in use, however far apart
    # the entries are.
    def is_band(carry: tuple[Array, Array]) -> Array:
        b, _ = carry
        return b < jnp.inf

    def step(carry: tuple[Array, Array]) -> tuple[Array, Array]:
        b, value = carry
        return next_band(b), body(b, value)

    first = next_band(jnp.zeros((), band.dtype))

    def fold() -> Array:
        _, value = jax.lax.while_loop(is_band, step, (first, init))
        return value

    return jax.lax.cond(first < jnp.inf, fold, lambda: init)


_matmul = partial(jnp.matmul, precision=jax.lax.Precision.HIGHEST)


def _log_matmul_fwd(log_p: Array, table: Array):
    top, band, inside = _split_in_bands(log_p)
    width = band_width(log_p.dtype)

    def log_product_of_band(b: Array | float) -> Array:
        # Entries of band b are divided by exp(top - width b), which makes them exp(-inside), at least
        # exp(-width). The scale comes back in as a sum of logs.
        p = jnp.where(band == b, jnp.exp(-inside), 0.0)
        return jnp.log(_matmul(p, table)) + (top - width * b)  # [*L, M, J]

    def add_band(b: Array, log_total: Array) -> Array:
        return log_add(log_total, log_product_of_band(b))

    log_total = _fold_further_bands(band, add_band, log_product_of_band(0.0))

    # An entry that is NaN lies in no band, so the sum leaves it out: it is put back here.
    is_nan = jnp.any(jnp.isnan(log_p), axis=-1, keepdims=True)
    out = jnp.where(is_nan, jnp.nan, log_total)
    return out, (log_p, table, out)


def _log_matmul_bwd(residuals, g: Array):
    """d out_j / d log_p_k = exp(log_p_k + log table_kj - out_j), the share that term k has of sum j.

    So the gradient is p_k sum_j table_kj g_j exp(-out_j), again one matrix product for each band. p_k and
    exp(-out_j) alone could vanish or overflow where their product does not. In band b p_k is
    exp(top - width b - inside_k), so the product is made as exp(rise_j) exp(-inside_k), with
    rise_j = top - width b - out_j.
    """
    log_p, table, out = residuals
    top, band, inside = _split_in_bands(log_p)
    width = band_width(log_p.dtype)

    # A term of band b in sum j is at least exp(top - width (b + 1)) times the smallest entry of the table,
    # and out_j is at least the log of that. So where rise is larger than this (1 is for rounding), sum j
    # has no term of this band: table_kj is 0 for all its entries, and the weight may be 0. Where out_j is
    # -inf, rise is inf, and the weight is 0 too: such a sum has no gradient.
    largest_rise = width - jnp.log(smallest_entry(log_p.dtype)) + 1.0

    # exp(rise) can come near the largest float, while exp(-inside) is at most 1. The one is divided by a
    # power of two, which is exact, and the other is multiplied by it, so that both stay in range.
    shift = 2.0**500 if log_p.dtype == jnp.float64 else 2.0**60
    transposed = jnp.swapaxes(table, -1, -2)  # [*L, J, K]

    def gradient_of_band(b: Array | float) -> Array:
        rise = (top - width * b) - out  # [*L, M, J]
        has_terms = rise < largest_rise
        # The inner `where` keeps exp from overflowing in entries that the outer one throws away.
        weight = jnp.where(has_terms, g * (jnp.exp(jnp.where(has_terms, rise, 0.0)) / shift), 0.0)
        p = jnp.where(band == b, jnp.exp(-inside) * shift, 0.0)
        return p * _matmul(weight, transposed)  # [*L, M, K]

    def add_band(b: Array, total: Array) -> Array:
        return total + gradient_of_band(b)

    # The table is a constant: its gradient is None.
    return _fold_further_bands(band, add_band, gradient_of_band(0.0)), None


_log_matmul.defvjp(_log_matmul_fwd, _log_matmul_bwd)
