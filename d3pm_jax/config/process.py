"""Describes the forward processes of a config; `d3pm_jax.processes.Process` is what they build."""

import dataclasses

from d3pm_jax import processes
from d3pm_jax.config.schedule import Schedule


@dataclasses.dataclass(frozen=True)
class Process:
    """Describes the forward process."""

    K: int
    """number of categories, a mask counted"""
    steps: int
    """T"""
    beta: Schedule

    def build(self) -> processes.Process:
        """Builds the process with its tables."""
        raise NotImplementedError


@dataclasses.dataclass(frozen=True)
class Uniform(Process):
    """Resamples uniformly."""

    def build(self) -> processes.Process:
        return processes.uniform(self.beta.build(self.steps), self.K)


@dataclasses.dataclass(frozen=True)
class Absorbing(Process):
    """Moves to a mask and stays."""

    mask_id: int
    """which category the mask is; K - 1 for an extra symbol"""

    def build(self) -> processes.Process:
        return processes.absorbing(self.beta.build(self.steps), self.K, self.mask_id)


@dataclasses.dataclass(frozen=True)
class Gaussian(Process):
    """Moves to near values of ordinal data."""

    bands: int | None = None
    """the furthest that one step can move; K - 1 without"""

    def build(self) -> processes.Process:
        return processes.gaussian(self.beta.build(self.steps), self.K, self.bands)


@dataclasses.dataclass(frozen=True)
class Banded(Process):
    """Resamples uniformly, but keeps only moves to near values."""

    bands: int
    """the furthest that one step can move"""

    def build(self) -> processes.Process:
        return processes.banded(self.beta.build(self.steps), self.K, self.bands)
