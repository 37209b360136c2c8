"""Checks arguments: types always, values when they are known (outside jit, vmap and grad)."""

import jax.core
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array


def check_t(t: Array, first: int, last: int) -> Array:
    """Returns t as int32. Raises TypeError unless integer, ValueError unless first <= t <= last."""
    _check_integers("t", t, f"pass the step number, {first}..{last}, as int32")
    _check_range("t", t, first, last, "t counts from 1 (least noise) to T; t = 0 is clean data")
    return jnp.asarray(t, jnp.int32)


def check_categories(name: str, x: Array, K: int) -> Array:
    """Returns x as int32, which can hold K. Raises TypeError unless integer, ValueError if not in 0..K-1."""
    _check_integers(name, x, "pass category numbers as int32, not one-hot vectors or probabilities")
    _check_range(name, x, 0, K - 1, f"the process has K = {K} categories; give it more or fix the data")
    return jnp.asarray(x, jnp.int32)


def check_num_categories(K: int) -> int:
    """Returns K. Raises ValueError unless it is at least 2."""
    if K < 2:
        raise ValueError(f"K = {K}: a process needs at least 2 categories")
    return K


def check_distribution(name: str, p: np.ndarray, K: int) -> np.ndarray:
    """Returns p as float64 [K]. Raises ValueError unless it holds K probabilities that sum to 1."""
    p = np.asarray(p, np.float64)
    if p.shape != (K,) or not np.all(p >= 0) or abs(p.sum() - 1) > 1e-9:
        raise ValueError(
            f"{name} must be {K} probabilities that sum to 1, got shape {p.shape}, sum {p.sum():.12g}"
        )
    return p


def _check_integers(name: str, x: Array, cure: str) -> None:
    if not jnp.issubdtype(jnp.result_type(x), jnp.integer):
        raise TypeError(f"{name} has dtype {jnp.result_type(x)}, expected integers: {cure}")


def _check_range(name: str, x: Array, first: int, last: int, cure: str) -> None:
    if isinstance(x, jax.core.Tracer) or np.size(x) == 0:
        return
    values = np.asarray(x)
    low, high = values.min(), values.max()
    if low < first or high > last:
        value = low if low < first else high
        raise ValueError(f"{name} contains {value}, outside {first}..{last}: {cure}")
