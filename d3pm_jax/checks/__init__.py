"""Checks the arguments of public functions, by what the functions declare.

The annotation of an argument says its type and shape, `declared` which values it may have:

    @declared(x0=CATEGORIES, t=steps(1), u=NOISE)
    def f(process: Process, x0: Int[Array, "*S"], t: Int[Array, "..."], u: Float[Array, "*S"]) -> ...

A call takes three steps: it binds the sizes of axes, which have to agree (`shapes`), checks values against
their ranges (`ranges`), and marks. Under `jit` values are not known, so every element of the result that a
category, step or noise out of range belongs to is NaN there, or -1 if integer, and so is a gradient. Which
elements belong to it is said by the names of axes in the annotations. A kernel inside of another is not
checked again, and `values_in_range` leaves out the check of values (`depth`).

What comes back from a function of the user, such as a network, is checked like an argument (`callbacks`).
"""

from d3pm_jax.checks.annotations import promote_types as promote_types
from d3pm_jax.checks.arrays import (
    check_distribution as check_distribution,
    real_array as real_array,
)
from d3pm_jax.checks.callbacks import Called as Called, SelfChecked as SelfChecked, marked as marked
from d3pm_jax.checks.declare import declared as declared, like as like
from d3pm_jax.checks.depth import (
    bare as bare,
    values_in_range as values_in_range,
)
from d3pm_jax.checks.ranges import (
    CATEGORIES as CATEGORIES,
    CATEGORY as CATEGORY,
    FINITE as FINITE,
    INDEX as INDEX,
    INT32 as INT32,
    NOISE as NOISE,
    NUM_CATEGORIES as NUM_CATEGORIES,
    NUM_STEPS as NUM_STEPS,
    PART_OF_STEPS as PART_OF_STEPS,
    POSITIVE as POSITIVE,
    PROBABILITY as PROBABILITY,
    SCORES as SCORES,
    SHARE as SHARE,
    TIME as TIME,
    AllowedRange as AllowedRange,
    at_least as at_least,
    check_num_categories as check_num_categories,
    check_num_steps as check_num_steps,
    steps as steps,
)
