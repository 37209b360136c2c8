"""Arrays of integers, of which nothing is known: they are kept as files of NumPy, and no picture is made."""

from d3pm_jax.kinds.base import Kind


class ArrayKind(Kind):
    """Says that examples are arrays of integers of any shape."""

    name = "array"
