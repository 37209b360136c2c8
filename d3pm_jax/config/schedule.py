"""Describes the noise schedules of a config."""

import dataclasses

import numpy as np

from d3pm_jax import schedules


@dataclasses.dataclass(frozen=True)
class Schedule:
    """Says how much noise each step adds."""

    def build(self, steps: int) -> np.ndarray:
        """Builds beta_t, float64 [steps]."""
        raise NotImplementedError


@dataclasses.dataclass(frozen=True)
class Linear(Schedule):
    """Takes beta_t from start to stop in equal steps; it is meant for 1000 steps."""

    start: float = 1e-4
    """beta at t = 1"""
    stop: float = 0.02
    """beta at t = T"""
    rescale: bool = True
    """multiply both by 1000 / steps, so that any number of steps adds as much noise in all"""

    def build(self, steps: int) -> np.ndarray:
        factor = 1000.0 / schedules.check_num_steps(steps) if self.rescale else 1.0
        return schedules.linear(steps, self.start * factor, self.stop * factor)


@dataclasses.dataclass(frozen=True)
class Cosine(Schedule):
    """alpha_bar_t = cos((t / T + offset) / (1 + offset) pi / 2), not squared."""

    offset: float = 0.008
    """keeps the first beta away from 0"""
    largest: float = 0.999
    """upper limit of beta"""

    def build(self, steps: int) -> np.ndarray:
        return schedules.cosine(steps, self.offset, self.largest)


@dataclasses.dataclass(frozen=True)
class CosineSquared(Schedule):
    """Builds the schedule of Multinomial Diffusion: `Cosine` with a limit on alpha."""

    offset: float = 0.008
    """keeps the first beta away from 0"""
    smallest: float = 0.001
    """lower limit of alpha squared"""

    def build(self, steps: int) -> np.ndarray:
        return schedules.cosine_squared(steps, self.offset, self.smallest)


@dataclasses.dataclass(frozen=True)
class Reciprocal(Schedule):
    """beta_t = 1 / (scale T - t + 1): for absorbing processes."""

    scale: float = 1.0
    """above 1 to stop before everything is masked"""

    def build(self, steps: int) -> np.ndarray:
        return schedules.reciprocal(steps, self.scale)


@dataclasses.dataclass(frozen=True)
class LogLinear(Schedule):
    """alpha_bar_t = 1 - (1 - eps) t / T."""

    eps: float = 1e-3
    """alpha_bar at t = T"""

    def build(self, steps: int) -> np.ndarray:
        return schedules.log_linear(steps, self.eps)


@dataclasses.dataclass(frozen=True)
class Polynomial(Schedule):
    """alpha_bar_t = 1 - (t / T)^power."""

    power: float = 2.0
    """above 1 to remove little at first"""

    def build(self, steps: int) -> np.ndarray:
        return schedules.polynomial(steps, self.power)
