"""Checks the arguments of public functions, by what the functions declare.

The annotation of an argument says its type and shape, `declared` which values it may have:

    @declared(x0=CATEGORIES, t=steps(1), u=NOISE)
    def f(process: Process, x0: Int[Array, "*S"], t: Int[Array, "..."], u: Float[Array, "*S"]) -> ...

A call takes three steps: it binds the sizes of axes, which have to agree (`shapes`), checks values against
their ranges (`ranges`), and marks. Under `jit` values are not known, so every element of the result that a
category, step or noise out of range belongs to is NaN there, or -1 if integer, and so is a gradient. Which
elements belong to it is said by the names of axes in the annotations. A kernel inside of another is not
checked again, and `values_in_range` leaves out the check of values (`depth`).
"""

from d3pm_jax.checks.arrays import check_distribution, check_shape, real_array
from d3pm_jax.checks.declare import declared, like
from d3pm_jax.checks.depth import as_callback, bare, values_in_range
from d3pm_jax.checks.ranges import (
    CATEGORIES,
    CATEGORY,
    INDEX,
    INT32,
    NOISE,
    NUM_CATEGORIES,
    NUM_STEPS,
    PART_OF_STEPS,
    POSITIVE,
    PROBABILITY,
    SHARE,
    TIME,
    Interval,
    at_least,
    check_num_categories,
    check_num_steps,
    steps,
)

__all__ = [
    "CATEGORIES",
    "CATEGORY",
    "INDEX",
    "INT32",
    "NOISE",
    "NUM_CATEGORIES",
    "NUM_STEPS",
    "PART_OF_STEPS",
    "POSITIVE",
    "PROBABILITY",
    "SHARE",
    "TIME",
    "Interval",
    "as_callback",
    "at_least",
    "bare",
    "check_distribution",
    "check_num_categories",
    "check_num_steps",
    "check_shape",
    "declared",
    "like",
    "real_array",
    "steps",
    "values_in_range",
]
