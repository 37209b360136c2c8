"""Makes tables with a row for each t on the host, and indexes them.

They are made in float64 and rounded once. They are constants: no gradient reaches them.
"""

import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array


def expand_trailing(t: Array, shape: tuple[int, ...]) -> Array:
    """Appends axes of size 1 to t, so that it broadcasts against an array of this shape.

    Raises:
        ValueError: its shape is not a prefix of the other.
    """
    if jnp.shape(t) != shape[: jnp.ndim(t)]:
        raise ValueError(f"t has shape {jnp.shape(t)}: it must be a prefix of the shape of x, {shape}")
    return jnp.reshape(t, jnp.shape(t) + (1,) * (len(shape) - jnp.ndim(t)))


def gather(table: Array, *index: Array | slice) -> Array:
    """Returns table[index], NaN where jit lets an index outside of the table through.

    JAX itself would take the nearest entry, or for a negative index one from the end. The axes of the index
    come first, as in NumPy where a slice stands between arrays.
    """
    not_negative = tuple(_replace_negative(i, n) for i, n in zip(index, table.shape, strict=False))
    return lax.stop_gradient(table).at[not_negative].get(mode="fill", fill_value=jnp.nan)


def _replace_negative(i: Array | slice, n: int) -> Array | slice:
    """Replaces negative entries of an index by n, which is outside of an axis of that length."""
    # The mode "fill" fills only for indices from n on, and counts negative ones from the end.
    if isinstance(i, slice):
        return i
    i = jnp.asarray(i, jnp.int32)
    return jnp.where(i < 0, n, i)


def gather_steps(tables: tuple[Array, ...], t: Array, shape: tuple[int, ...]) -> tuple[Array, ...]:
    """Returns table[t] of each table [T + 1], broadcast to one number for each element of this shape."""
    ts = expand_trailing(t, shape)
    return tuple(jnp.broadcast_to(gather(table, ts), shape) for table in tables)


def is_category(x: Array, K: int) -> Array:
    """Tells for each element of x [*S] which of 0..K - 1 it is, bool [*S, K]."""
    return x[..., None] == jnp.arange(K, dtype=jnp.int32).reshape((1,) * x.ndim + (K,))


def all_steps(T: int) -> Array:
    """Returns 0, 1, ..., T as int32: `time` of a process that was not respaced."""
    return jnp.arange(T + 1, dtype=jnp.int32)


def log_bars(beta: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns log alpha_bar and log(1 - alpha_bar), float64 [T + 1] each, from beta [T]."""
    with np.errstate(divide="ignore"):
        log_alpha_bar = np.cumsum(np.concatenate([[0.0], np.log1p(-beta)]))
        return log_alpha_bar, np.log(-np.expm1(log_alpha_bar))


def log_steps(beta: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns log alpha and log beta, float64 [T + 1] each, from beta [T]; row 0 is that of the identity."""
    with np.errstate(divide="ignore"):
        return np.concatenate([[0.0], np.log1p(-beta)]), np.log(np.concatenate([[0.0], beta]))
