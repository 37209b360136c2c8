"""Converts conditions of examples to the type that a network gets them in."""

import numpy as np


def convert_conditions(conditions: np.ndarray, dtype: str) -> np.ndarray:
    """Returns conditions in the type of a description, "float32" or "int32".

    Raises:
        ValueError: they are no numbers of that kind, too large for the type, or not finite.
    """
    if conditions.dtype == bool or not np.can_cast(conditions.dtype, dtype, "same_kind"):
        raise ValueError(f"has dtype {conditions.dtype}, expected {dtype}: convert it")
    # A number that is too large for float32 becomes infinite here, which is an error below and no warning.
    with np.errstate(over="ignore"):
        converted = conditions.astype(dtype)
    if np.issubdtype(converted.dtype, np.integer):
        if not np.array_equal(converted, conditions):
            raise ValueError(
                f"has integers of {conditions.dtype} that {dtype} cannot hold: make them smaller"
            )
    elif not np.isfinite(converted).all():
        raise ValueError(f"has entries that are not finite in {dtype}: pass other numbers")
    return converted
