"""Describes the noise schedules of a config."""

import dataclasses
import functools
from typing import Annotated

import numpy as np

from d3pm_jax import schedules
from d3pm_jax.checks import NUM_STEPS, check_range
from d3pm_jax.config.checks import Allowed, NotNegative, Positive, UnitInterval, undefined_method
from d3pm_jax.config.from_data import FromData, Shares, filled_field
from d3pm_jax.errors import wrong_return
from d3pm_jax.schedules.information import NEAREST


@dataclasses.dataclass(frozen=True)
class Schedule:
    """Says how much noise each step adds. Derive from it for one of your own, with `build`."""

    def build(self, steps: int) -> np.ndarray:
        """Builds beta_t, float64 [steps]."""
        raise undefined_method(self, "build")

    def resampling(self, steps: int, pi: np.ndarray) -> np.ndarray:
        """Builds beta_t, float64 [steps], of a process that resamples from pi [K]."""
        return build_betas(self, steps)

    def continuous(self) -> schedules.continuous.Schedule:
        """Builds alpha(time), whose values at time = t / T are alpha_bar_t.

        Raises:
            ValueError: it is none that falls from 1 to 0, or has no form in continuous time.
        """
        raise ValueError(
            f"{self} has no form in continuous time: take Reciprocal(), Polynomial(power), or "
            f"Cosine(offset=0.0, largest=1.0)"
        )

    def durations(self, steps: int, rate: np.ndarray) -> np.ndarray:
        """Builds s_t = -log(1 - beta_t), float64 [steps], of a process exp(s_t rate), rate [K, K].

        Raises:
            ValueError: beta_t = 1 would last for ever.
        """
        beta = build_betas(self, steps)
        if np.any(beta == 1):
            t = int(np.argmax(beta == 1)) + 1
            raise ValueError(
                f"beta = 1 at t = {t} is reached only after an infinite time: take a schedule that ends "
                "below 1, or MutualInformation()"
            )
        return -np.log1p(-beta)


def build_betas(schedule: Schedule, steps: int) -> np.ndarray:
    """Builds beta_t, float64 [steps], of a schedule, and checks that there is one for each step.

    Raises:
        UserError: `build` of a schedule of the user's own returns something else.
    """
    betas = schedule.build(steps)
    if np.shape(betas) != (steps,):
        raise wrong_return(schedule.build, betas, f"beta, float64 [{steps}], one for each step")
    return betas


@dataclasses.dataclass(frozen=True)
class Linear(Schedule):
    """Takes beta_t from start to stop in equal steps; it is meant for 1000 steps."""

    start: Positive = 1e-4
    """beta at t = 1"""
    stop: Positive = 0.02
    """beta at t = T"""
    rescale: bool = True
    """multiply both by 1000 / steps, so that any number of steps adds as much noise in all"""

    def build(self, steps: int) -> np.ndarray:
        if not self.rescale:
            return schedules.linear(steps, self.start, self.stop)
        factor = 1000.0 / check_range("T", steps, NUM_STEPS, {})
        return schedules.linear(steps, self.start * factor, self.stop * factor)


@dataclasses.dataclass(frozen=True)
class Cosine(Schedule):
    """alpha_bar_t = cos((t / T + offset) / (1 + offset) pi / 2), not squared."""

    offset: NotNegative = 0.008
    """keeps the first beta away from 0"""
    largest: Annotated[float, Allowed("in (0, 1]", lambda x: 0 < x <= 1)] = 0.999
    """upper limit of beta"""

    def build(self, steps: int) -> np.ndarray:
        return schedules.cosine(steps, self.offset, self.largest)

    def continuous(self) -> schedules.continuous.Schedule:
        if self.offset == 0 and self.largest == 1:
            return schedules.continuous.cosine
        return super().continuous()


@dataclasses.dataclass(frozen=True)
class CosineSquared(Schedule):
    """Builds the schedule of Multinomial Diffusion: `Cosine` with a limit on alpha."""

    offset: NotNegative = 0.008
    """keeps the first beta away from 0"""
    smallest: UnitInterval = 0.001
    """lower limit of alpha squared"""

    def build(self, steps: int) -> np.ndarray:
        return schedules.cosine_squared(steps, self.offset, self.smallest)


@dataclasses.dataclass(frozen=True)
class Reciprocal(Schedule):
    """beta_t = 1 / (scale T - t + 1): for absorbing processes."""

    scale: Annotated[float, Allowed("of at least 1", lambda x: x >= 1)] = 1.0
    """above 1 to stop before everything is masked"""

    def build(self, steps: int) -> np.ndarray:
        return schedules.reciprocal(steps, self.scale)

    def continuous(self) -> schedules.continuous.Schedule:
        if self.scale == 1:
            return schedules.continuous.linear
        return super().continuous()


@dataclasses.dataclass(frozen=True)
class LogLinear(Schedule):
    """alpha_bar_t = 1 - (1 - eps) t / T."""

    eps: UnitInterval = 1e-3
    """alpha_bar at t = T"""

    def build(self, steps: int) -> np.ndarray:
        return schedules.log_linear(steps, self.eps)


@dataclasses.dataclass(frozen=True)
class Polynomial(Schedule):
    """alpha_bar_t = 1 - (t / T)^power."""

    power: Positive = 2.0
    """above 1 to remove little at first"""

    def build(self, steps: int) -> np.ndarray:
        return schedules.polynomial(steps, self.power)

    def continuous(self) -> schedules.continuous.Schedule:
        return functools.partial(schedules.continuous.polynomial, power=self.power)


@dataclasses.dataclass(frozen=True)
class MutualInformation(Schedule):
    """I(x_t; x_0) = (1 - (t / T)^power) H(x_0) (D3PM appendix A.7, with power = 1).

    For Uniform, Marginal, FromRate, Hierarchical and Absorbing.

    An Absorbing process whose mask is an extra symbol gets `Polynomial(power)`, `Reciprocal()` for power 1.
    """

    p0: Shares | FromData = "data"
    """how often the data has each category; a category beyond its end, an extra mask, never occurs"""
    power: Positive = 1.0
    """above 1 to remove little at first"""

    def build(self, steps: int) -> np.ndarray:
        raise ValueError(
            "MutualInformation() depends on what a step does, and is only for Uniform, Marginal, "
            "FromRate, Hierarchical and Absorbing; take another schedule, such as Reciprocal() for a "
            "mask"
        )

    def resampling(self, steps: int, pi: np.ndarray) -> np.ndarray:
        p0 = self._histogram(len(pi))
        return schedules.mutual_information(steps, p0, pi, self._information_left(steps))

    def durations(self, steps: int, rate: np.ndarray) -> np.ndarray:
        p0 = self._histogram(len(rate))
        return schedules.mutual_information_steps(steps, p0, rate, self._information_left(steps))

    def _information_left(self, steps: int) -> np.ndarray:
        """Returns I(x_t; x_0) / H(x_0) at t = 0, .., T, float64 [steps + 1].

        Raises:
            ValueError: a step removes less of it than can be told from nothing.
        """
        T = check_range("T", steps, NUM_STEPS, {})
        left = 1 - (np.arange(T + 1) / T) ** self.power
        # At t = 0 and t = T it is exactly 1 and 0; the steps between must differ from both.
        between = left[1:-1]
        for is_near, size, cure in (
            (between > 1 - NEAREST, "large", "smaller"),
            (between < NEAREST, "small", "larger"),
        ):
            if is_near.any():
                raise ValueError(
                    f"MutualInformation.power = {self.power:g} is too {size} for {steps} steps: some steps "
                    f"remove less than {NEAREST:g} of the information; choose a {cure} power, or fewer steps"
                )
        return left

    def _histogram(self, K: int) -> np.ndarray:
        """Returns how often the data has each of the K categories of the process, float64 [K]."""
        p0 = np.array(filled_field(self, "p0"), np.float64)
        if len(p0) > K:
            raise ValueError(
                f"MutualInformation.p0 has {len(p0)} categories, but the process has {K}: leave some out"
            )
        # An extra mask never occurs in the data.
        return np.pad(p0, (0, K - len(p0)))
