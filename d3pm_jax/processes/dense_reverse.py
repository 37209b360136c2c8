"""Draws x_{t-1} of dense tables by one matrix product of probabilities, on what is not a CPU."""

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array

from d3pm_jax.cpu import tiles
from d3pm_jax.numerics import double_float, inverse_cdf
from d3pm_jax.numerics.rows import map_rows
from d3pm_jax.numerics.sliced_rows import SlicedRow, reads_slices
from d3pm_jax.processes.base import Process, promote
from d3pm_jax.processes.dense import Dense
from d3pm_jax.processes.tables import gather

# What is drawn where the product may have lost more than its rounding.
UNRELIABLE = -2
# Numbers that an element takes where the definition draws it, for each of its categories: `tiles` makes parts
# of them that take less memory than the product.
FLOATS = 64


def draws_by_product(process: Process, xt: Array, t: Array) -> bool:
    """Says whether `draw_by_product` is for a process and an array.

    Elements of an example share one t, and are no fewer than the rows of its matrix, which is read whole.
    """
    return type(process) is Dense and jnp.ndim(t) == 1 and math.prod(xt.shape[1:]) >= process.K


def draw_by_product(
    process: Any,
    logits_loo: Array,
    xt: Array,
    t: Array,
    noise: tuple[Array, Array | None],
    definition: Callable[..., Array],
) -> Array:
    """Draws `posteriors.p_sample` of leave-one-out logits.

    A product of probabilities, of which the largest is 1, loses terms below the smallest float. So an entry
    of p(x_{t-1}, x_t) is off by K such terms at most, and the draw is what it should be where the largest
    entry is so much larger that this is below the second word of noise. That is so unless the prediction
    gives x_t less than some 1e-17 of it; then the definition draws all, in parts. Under vmap both are
    computed.

    Args:
        process: the forward process.
        logits_loo: unnormalised logs of the prediction of x_0, [B, ..., K].
        xt: categories, [B, ...].
        t: steps 1..T, [B].
        noise: its words, [B, ...] each; the second may be None.
        definition: (logits, xt, t, u, u_low) -> categories.

    Returns:
        int32 [B, ...]; -1 where there is no distribution.
    """
    logits = promote(process, logits_loo)
    logits = logits.reshape(len(logits), math.prod(xt.shape[1:]), process.K)  # [B, n, K]
    # A row of -inf becomes NaN, on which nobody relies: with a test for it XLA reads the logits once more.
    p0 = jnp.exp(logits - jnp.max(logits, axis=-1, keepdims=True))
    pushed = jnp.matmul(p0, gather(process.Qbar_table, t - 1), precision=lax.Precision.HIGHEST)

    # Columns are read of the matrices of B steps, which fit a cache where those of all steps may not, and are
    # taken after the product, in the memory of its matrices.
    pushed, t = lax.optimization_barrier((pushed, t))
    # Each example reads its own: nothing of the size of the logits passes between devices.
    back = jax.vmap(gather)(gather(process.Q_transposed, t), xt.reshape(logits.shape[:-1]))
    joint = (jnp.log(back) + jnp.log(pushed)).reshape(logits_loo.shape)
    bits = jnp.finfo(logits.dtype)
    least = math.log(bits.tiny) + 2 * math.log(process.K) + 2 * (bits.nmant + 2) * math.log(2)
    drawn = map_rows(_draw_reliable_row, least, joint, double_float.noise_from_words(*noise))

    def draw_part(*part: Array) -> tuple[Array]:
        logits, xt, *words = part
        return (definition(logits, xt, t, *words, *[None] * (2 - len(words))),)

    def draw_by_definition() -> Array:
        words = [word for word in noise if word is not None]
        return tiles.apply_by_parts(draw_part, logits_loo, xt, *words, floats=FLOATS * process.K)[0]

    return lax.cond(jnp.any(drawn == UNRELIABLE), draw_by_definition, lambda: drawn)


@reads_slices(per_warp=2048)
def _draw_reliable_row(least: float, row: SlicedRow, noise: double_float.DoubleFloat, tables: Any) -> Array:
    def read_logs(part: Any) -> Array:
        return part.logits

    largest = inverse_cdf.max_of_row(row, inverse_cdf.make_reader(row, read_logs))
    # Not a number is no reason to rely on a row.
    return jnp.where(largest > least, inverse_cdf.draw_row(row, read_logs, noise), UNRELIABLE)
