"""Defines the kind of data of which nothing is known: arrays of integers, written as files of NumPy."""

from d3pm_jax.kinds.base import Kind


class ArrayKind(Kind):
    """Says that examples are arrays of integers of any shape."""

    name = "array"
