"""Checks the types of what the slots of a sampler are made of, as a user writes them."""

import dataclasses
from typing import Any

from d3pm_jax.checks.annotations import read_annotation


def check_fields(slot: Any) -> None:
    """Makes the fields of a slot what their annotations say: plain numbers of those of NumPy.

    Whether a number is in its range, or finite, is what the slot itself checks.

    Args:
        slot: a frozen dataclass that is being made.

    Raises:
        TypeError: a field is of another type.
    """
    for field in dataclasses.fields(slot):
        value = getattr(slot, field.name)
        expected = read_annotation(field.type)
        is_absent = value is None and expected.is_optional
        is_float = field.type is float and isinstance(value, float)
        if is_absent or is_float or expected.convert is None:
            continue
        object.__setattr__(slot, field.name, expected.convert(field.name, value))
