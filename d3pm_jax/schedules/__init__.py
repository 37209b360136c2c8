"""Makes noise schedules: beta [T] (`discrete`), by information (`information`), in time (`continuous`)."""

from d3pm_jax.schedules import continuous as continuous
from d3pm_jax.schedules.discrete import (
    Betas,
    check_betas,
    cosine,
    cosine_squared,
    from_alpha_bar,
    linear,
    log_linear,
    polynomial,
    reciprocal,
)
from d3pm_jax.schedules.information import (
    information_left,
    information_left_by_rate,
    mutual_information,
    mutual_information_steps,
)

__all__ = [
    "Betas",
    "check_betas",
    "continuous",
    "cosine",
    "cosine_squared",
    "from_alpha_bar",
    "information_left",
    "information_left_by_rate",
    "linear",
    "log_linear",
    "mutual_information",
    "mutual_information_steps",
    "polynomial",
    "reciprocal",
]
