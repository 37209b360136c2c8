"""Noise schedules: tables beta [T] (`discrete`), and in time (`continuous`)."""

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

__all__ = [
    "continuous",
    "cosine",
    "cosine_squared",
    "from_alpha_bar",
    "linear",
    "log_linear",
    "polynomial",
    "reciprocal",
]
