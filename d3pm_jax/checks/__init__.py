"""Checks what public functions are given, by what they declare.

The annotation of an argument says its type and shape, `declared` which values it may have:

    @declared(x0=CATEGORIES, t=steps(1), u=NOISE)
    def f(process: Process, x0: Int[Array, "*S"], t: Int[Array, "..."], u: Float[Array, "*S"]) -> ...

Types and shapes are checked always, values where they are known. Under `jit` they are not: there every
element of the result that a category, step or noise out of range belongs to is NaN, or -1 if integer, and so
is a gradient. Which elements belong to it is said by the names of axes in the annotations. A kernel inside of
another is not checked again; `bare(f)` is f without the check of values.
"""

from d3pm_jax.checks.arrays import check_distribution, check_shape, real_array
from d3pm_jax.checks.declare import bare, declared, like
from d3pm_jax.checks.values import (
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
    Range,
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
    "Range",
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
]
