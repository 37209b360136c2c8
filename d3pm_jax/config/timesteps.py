"""Says which t a config trains on."""

import dataclasses
from typing import ClassVar

import jax
import jax.numpy as jnp
from jaxtyping import Array

from d3pm_jax import timesteps
from d3pm_jax.checks import values_in_range
from d3pm_jax.config.checks import CheckedPart, Natural, UnitInterval, UpTo5, undefined_method


@dataclasses.dataclass(frozen=True)
class Timesteps(CheckedPart):
    """Says which t to train on."""

    real: ClassVar[bool] = False
    """whether t are real numbers in (0, T], for an objective in continuous time"""

    def start(self, T: int) -> timesteps.LossHistory | None:
        """Returns the losses that it remembers, as they are before the first step; None to remember none."""
        return None

    def draw(self, key: Array, history: timesteps.LossHistory | None, B: int, T: int) -> tuple[Array, Array]:
        """Draws t in 1..T and returns t and its probability, [B] each; for real t in (0, T], its density."""
        raise undefined_method(self, "draw")

    def update(
        self, history: timesteps.LossHistory | None, t: Array, kl: Array
    ) -> timesteps.LossHistory | None:
        """Returns the losses that it remembers after a batch whose kl [B] is summed over elements."""
        return history


@dataclasses.dataclass(frozen=True)
class LowDiscrepancy(Timesteps):
    """Draws t uniformly, spread evenly over each batch."""

    @values_in_range()
    def draw(self, key: Array, history: timesteps.LossHistory | None, B: int, T: int) -> tuple[Array, Array]:
        t = timesteps.low_discrepancy(jax.random.uniform(key), B, T)
        return t, jnp.full(B, 1 / T)


@dataclasses.dataclass(frozen=True)
class Independent(Timesteps):
    """Draws t uniformly, for every example by itself."""

    @values_in_range()
    def draw(self, key: Array, history: timesteps.LossHistory | None, B: int, T: int) -> tuple[Array, Array]:
        t = timesteps.uniform(jax.random.uniform(key, (B,)), T)
        return t, jnp.full(B, 1 / T)


@dataclasses.dataclass(frozen=True)
class RealTimes(Timesteps):
    """Draws real t in (0, T], spread evenly over each batch, for an objective in continuous time."""

    real: ClassVar[bool] = True

    power: UpTo5 = 1.0
    """t = T u^power of uniform u, at most 5: above 1 more of them are early, each weighted down by as much"""

    @values_in_range()
    def draw(self, key: Array, history: timesteps.LossHistory | None, B: int, T: int) -> tuple[Array, Array]:
        u = timesteps.antithetic(jax.random.uniform(key), B)
        if self.power == 1:
            return u * T, jnp.full(B, 1 / T)
        # dt / du = power T u^(power - 1), whose inverse is the density of t.
        return T * u**self.power, u ** (1 - self.power) / (self.power * T)


@dataclasses.dataclass(frozen=True)
class Importance(Timesteps):
    """Draws steps with a large loss more often, weighted down by as much; uniformly until enough is known."""

    least_count: Natural = 10
    """t is uniform until each step has been drawn for more examples than this"""
    decay: UnitInterval = 0.9
    """of the running mean of each step's squared loss"""

    def start(self, T: int) -> timesteps.LossHistory | None:
        return timesteps.empty_history(T)

    @values_in_range()
    def draw(self, key: Array, history: timesteps.LossHistory | None, B: int, T: int) -> tuple[Array, Array]:
        assert history is not None
        u = jax.random.uniform(key, (B,))
        return timesteps.importance(u, timesteps.probabilities(history, self.least_count))

    @values_in_range()
    def update(
        self, history: timesteps.LossHistory | None, t: Array, kl: Array
    ) -> timesteps.LossHistory | None:
        assert history is not None
        return timesteps.update(history, t, kl, self.decay)
