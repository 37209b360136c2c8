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
Plain values, such as sizes and names, are checked against their annotations alone (`hints`).

All that other rooms use of the checks is named here; `__all__` is what users call.
"""

from d3pm_jax.checks.annotations import (
    is_callback,
    list_options,
    promote_types,
    read_annotation,
)
from d3pm_jax.checks.arrays import (
    check_distribution,
    describe,
    is_array,
    real_array,
    shorten_value,
)
from d3pm_jax.checks.callbacks import (
    Called,
    SelfChecked,
    call_by_signature,
    marked,
    marked_as,
)
from d3pm_jax.checks.declare import declared, like
from d3pm_jax.checks.depth import (
    bare,
    values_in_range,
)
from d3pm_jax.checks.hints import (
    LARGEST_INT,
    LARGEST_SIZE,
    NOT_EMPTY,
    RISING,
    Allowed,
    AnyPath,
    Categories,
    Count,
    Epsilon,
    FloatType,
    Interval,
    Natural,
    NonEmptyStr,
    NotNegative,
    Positive,
    Probability,
    Seed,
    Size,
    UnitInterval,
    UpTo2,
    UpTo5,
    check_value,
    describe_hint,
    integers_from,
    is_finite,
    is_restricted,
    matches_hint,
    name_conversion,
    one_of,
)
from d3pm_jax.checks.ranges import (
    BELOW_1,
    CATEGORIES,
    CATEGORY,
    FINITE,
    FROM_0,
    INDEX,
    INT32,
    LOG_PROBABILITY,
    NOISE,
    NOT_NAN,
    NUM_CATEGORIES,
    NUM_STEPS,
    PART_OF_STEPS,
    POSITIVE,
    PROBABILITY,
    ROUNDED_ENTROPY,
    ROUNDED_SHARE,
    SCORES,
    SHARE,
    TIME,
    AllowedRange,
    Measure,
    at_least,
    check_range,
    is_known,
    steps,
)

__all__ = ["values_in_range"]
