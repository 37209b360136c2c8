"""Checks what the slots of a sampler are made of and what they return, as a user writes them."""

import dataclasses
import types
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np

from d3pm_jax.checks import is_callback, is_restricted, list_options, read_annotation
from d3pm_jax.errors import describe_returned

# Entries of arrays in messages.
ENTRIES = {jnp.integer: "integers", jnp.floating: "floats", jnp.bool_: "booleans"}


class Slot:
    """Makes up a sampler, with others: a frozen dataclass whose numbers, functions and slots are checked."""

    by_rows: ClassVar[bool]
    """whether what it makes of a place depends on the logits of that place alone, so that a `Projection` may
    stand for them; a class of your own says so itself, whatever it derives from"""

    @property
    def user_of_all_logits(self) -> str:
        """Names what may look at the logits of all places, which then are in memory: a slot of it; or ""."""
        cls = type(self)
        if not vars(cls).get("by_rows", cls.__module__.startswith("d3pm_jax.")):
            return cls.__name__
        values = (getattr(self, name, None) for name in getattr(cls, "__dataclass_fields__", ()))
        users = (value.user_of_all_logits for value in values if isinstance(value, Slot))
        return next(filter(None, users), "")

    def __post_init__(self) -> None:
        """Makes the fields what their annotations say: plain numbers of those of NumPy.

        Fields of other types, as a user may write, are left as they are.

        Raises:
            TypeError: a field is of another type.
            ValueError: a number is not one of those that its annotation allows.
        """
        for field in dataclasses.fields(self):  # pyright: ignore[reportArgumentType]
            value = getattr(self, field.name, None)
            # A field of the user's own may have None for its default, whatever its annotation says, or be set
            # later.
            may_be_none = (
                types.NoneType in list_options(field.type) or field.default is None or not field.init
            )
            if (value is not None or not may_be_none) and _is_checked(field.type):
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


def to_arrays(function: str, value: Any) -> Any:
    """Returns what a function, which may be the user's own, returned: arrays in any tree.

    Raises:
        TypeError: it holds something else.
    """
    try:
        return jax.tree.map(jnp.asarray, value)
    except (TypeError, ValueError, OverflowError) as error:
        raise TypeError(f"{function} returns {describe_returned(value)}: return arrays, by name") from error


def check_memory(part: object, memory: Any, before: Any) -> None:
    """Raises TypeError where a part, which may be the user's, remembers other arrays than before a row.

    Args:
        part: that remembers.
        memory: after the row.
        before: arrays; one of a weak type, such as that of a number, may become one of another type.
    """
    arrays = to_arrays(f"{type(part).__name__}.draw(view).memory", memory)
    has_same_types = all(
        old.shape == x.shape and (old.weak_type or old.dtype == x.dtype)
        for old, x in zip(jax.tree.leaves(before), jax.tree.leaves(arrays), strict=False)
    )
    if not has_same_types or jax.tree.structure(arrays) != jax.tree.structure(before):
        raise TypeError(
            f"{type(part).__name__} changes its memory from {jax.tree.map(describe_returned, before)} to "
            f"{jax.tree.map(describe_returned, arrays)}: keep the names, shapes and types of `start`"
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
