"""Checks what the slots of a sampler are made of and what they return, as a user writes them."""

import dataclasses
import types
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from d3pm_jax.checks import is_callback, is_restricted, list_options, read_annotation
from d3pm_jax.errors import describe_returned

# Entries of arrays in messages.
ENTRIES = {jnp.integer: "integers", jnp.floating: "floats", jnp.bool_: "booleans"}


class Slot:
    """Makes up a sampler, with others: a frozen dataclass whose numbers, functions and slots are checked."""

    def __post_init__(self) -> None:
        """Makes the fields what their annotations say: plain numbers of those of NumPy.

        Fields of other types, as a user may write, are left as they are.

        Raises:
            TypeError: a field is of another type.
            ValueError: a number is not one of those that its annotation allows.
        """
        for field in dataclasses.fields(self):  # pyright: ignore[reportArgumentType]
            value = getattr(self, field.name, None)
            if value is not None and _is_checked(field.type):
                convert = read_annotation(field.type).convert
                assert convert is not None  # as each of these has one
                object.__setattr__(self, field.name, convert(field.name, value))


def _is_checked(annotation: Any) -> bool:
    """Tells whether all that an annotation names is a number that it restricts, a function or a slot."""
    if is_restricted(annotation):
        return True
    options = [option for option in list_options(annotation) if option is not types.NoneType]
    return all(
        option in (int, bool, tuple[int, ...])
        or is_callback(option)
        or (isinstance(option, type) and issubclass(option, Slot))
        for option in options
    )


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
    raise TypeError(f"{type(part).__name__}.{method} returns {describe_returned(x)}: return {expected}")
