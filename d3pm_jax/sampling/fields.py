"""Checks what the slots of a sampler are made of and what they return, as a user writes them."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from d3pm_jax.checks.annotations import read_annotation
from d3pm_jax.checks.arrays import describe

# Entries of arrays in messages.
ENTRIES = {jnp.integer: "integers", jnp.floating: "floats", jnp.bool_: "booleans"}


class Slot:
    """Base of what a sampler is put together from: frozen dataclasses, whose fields are checked."""

    def __post_init__(self) -> None:
        """Makes the fields what their annotations say: plain numbers of those of NumPy.

        Raises:
            TypeError: a field is of another type.
            ValueError: a number is not one of those that its annotation allows.
        """
        fields: Any = self
        for field in dataclasses.fields(fields):
            value = getattr(self, field.name)
            expected = read_annotation(field.type)
            is_absent = value is None and expected.is_optional
            if expected.convert is not None and not is_absent:
                object.__setattr__(self, field.name, expected.convert(field.name, value))


def check_returned(part: object, method: str, x: Any, dtype: Any, shape: tuple[int, ...]) -> None:
    """Raises TypeError where a method, which may be the user's own, returned another array than it has to.

    Args:
        part: whose method it is.
        method: its name.
        x: what it returned.
        dtype: of its entries, such as jnp.integer.
        shape: that it has to have.
    """
    if isinstance(x, jax.Array | np.ndarray) and x.shape == shape and jnp.issubdtype(x.dtype, dtype):
        return
    expected = f"{ENTRIES[dtype]} {list(shape)}"
    raise TypeError(f"{type(part).__name__}.{method} returned {describe(x)}: return {expected}")
