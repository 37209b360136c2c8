"""Makes noise schedules: beta [T] (`discrete`), by `information`, in time (`continuous`)."""

from torch_ref.schedules import continuous as continuous
from torch_ref.schedules.discrete import (
    cosine,
    cosine_squared,
    from_alpha_bar,
    linear,
    log_linear,
    polynomial,
    reciprocal,
)
from torch_ref.schedules.information import information_left, information_left_by_rate

__all__ = [
    "continuous",
    "cosine",
    "cosine_squared",
    "from_alpha_bar",
    "information_left",
    "information_left_by_rate",
    "linear",
    "log_linear",
    "polynomial",
    "reciprocal",
]
