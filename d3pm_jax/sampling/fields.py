"""Checks what the slots of a sampler are made of, as a user writes them."""

import dataclasses
from typing import Any

from d3pm_jax.checks.annotations import read_annotation


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
