"""Checks arrays: those that stay on the host, in NumPy, and what functions of users return."""

from typing import Any

import jax.numpy as jnp
import numpy as np

from d3pm_jax.errors import one_line


def real_array(name: str, x: Any) -> np.ndarray:
    """Returns x as float64. Raises TypeError unless it is an array, or lists, of real numbers."""
    try:
        array = np.asarray(x)
    except ValueError as error:
        raise TypeError(f"{name} is not an array ({error}): make its rows equally long") from error
    # To NumPy bfloat16 is of no kind of number.
    if array.dtype.kind not in "iuf" and array.dtype.name != "bfloat16":
        raise TypeError(f"{name} is {describe(x)}, expected an array of real numbers: pass float64")
    return array.astype(np.float64)


def check_distribution(name: str, p: np.ndarray, K: int) -> np.ndarray:
    """Returns p as float64 [K]. Raises ValueError unless it holds K probabilities that sum to 1."""
    p = real_array(name, p)
    # The comparisons are written so that NaN fails them.
    if p.shape != (K,) or not np.all(p >= 0) or not abs(p.sum() - 1) <= 1e-9:
        raise ValueError(
            f"{name} must be {K} probabilities that sum to 1, got shape {p.shape}, sum {p.sum():.12g}, "
            f"smallest entry {p.min(initial=np.inf):g}: divide counts by their total"
        )
    return p


def is_array(x: Any, shape: tuple[int, ...], wider: Any) -> bool:
    """Says whether x is an array of this shape, whose type is a case of a wider one."""
    return hasattr(x, "dtype") and np.shape(x) == shape and jnp.issubdtype(x.dtype, wider)


def describe(x: Any) -> str:
    """Says in a few words what x is, for an error."""
    if type(x).__module__ == "torch" and hasattr(x, "shape"):
        return f"a tensor of PyTorch, {x.dtype}, shape {tuple(x.shape)}"
    # A class of arrays or numbers has an attribute of this name too.
    if hasattr(x, "dtype") and not isinstance(x, type):
        return f"of dtype {x.dtype}, shape {getattr(x, 'shape', ())}"
    if x is None or isinstance(x, bool | int | float | complex | str):
        return shorten_value(x)
    return f"a {type(x).__name__}"


def shorten_value(value: Any) -> str:
    """Returns the repr of a value in at most 80 characters."""
    try:
        return one_line(repr(value), 80)
    except ValueError:
        # Python refuses to print an int of more than some thousand digits.
        return "a whole number of very many digits"
