"""Says what part of the learning rate of an optimizer each update has."""

import dataclasses
from typing import Literal

import jax.numpy as jnp
import optax
from jax.typing import ArrayLike

from d3pm_jax.config.checks import Count, Part, undefined


@dataclasses.dataclass(frozen=True)
class Rate(Part):
    """Describes the learning rate of every update, as a part of the `lr` of its optimizer.

    Warm-up is not in it: the optimizer multiplies by that. No state keeps a rate: a run may be resumed with
    any other, which then holds as if it had been that from the start.
    """

    def check_steps(self, steps: int) -> None:
        """Raises ValueError where the last of so many steps would change nothing."""

    def build(self) -> optax.Schedule:
        """Builds n -> the part of lr of the update after n others, a scalar of at least 0."""
        raise undefined(self, "build")


@dataclasses.dataclass(frozen=True)
class ConstantRate(Rate):
    """r(n) = 1."""

    def build(self) -> optax.Schedule:
        return optax.constant_schedule(1.0)


@dataclasses.dataclass(frozen=True)
class CosineRate(Rate):
    """r(n) = (1 + cos(pi n / steps)) / 2 (Loshchilov and Hutter 2017, arXiv 1608.03983)."""

    steps: Count
    """updates after which it is 0"""

    def check_steps(self, steps: int) -> None:
        check_end("optimizer.rate.steps", self.steps, steps)

    def build(self) -> optax.Schedule:
        return optax.cosine_decay_schedule(1.0, self.steps)


@dataclasses.dataclass(frozen=True)
class InverseSqrtRate(Rate):
    """r(n) = sqrt(hold_steps / max(hold_steps, n + 1)), which has no end.

    With as many steps of warm-up it is the rate of Vaswani et al. 2017 (arXiv 1706.03762).
    """

    hold_steps: Count
    """updates at the whole rate"""

    def build(self) -> optax.Schedule:
        def part(count: ArrayLike) -> ArrayLike:
            return jnp.sqrt(self.hold_steps / jnp.maximum(self.hold_steps, jnp.asarray(count) + 1.0))

        return part


@dataclasses.dataclass(frozen=True)
class WSDRate(Rate):
    """r(n) = 1 - x or 1 - sqrt(x), x = max(0, 1 - (steps - n) / decay_steps): 1 but for the last decay_steps.

    With a warm-up it is warm-up, stable, decay (Hu et al. 2024, arXiv 2404.06395): a run is made longer from
    any checkpoint before its decay. The square root is of Hägele et al. 2024 (arXiv 2405.18392).
    """

    steps: Count
    """updates after which it is 0"""
    decay_steps: Count
    """how many of them, the last ones, it falls in"""
    decay: Literal["linear", "sqrt"] = "sqrt"
    """how it falls"""

    def check(self) -> None:
        if self.decay_steps > self.steps:
            raise ValueError(
                f"optimizer.rate.decay_steps = {self.decay_steps}: it falls in the last of "
                f"optimizer.rate.steps = {self.steps}; pass fewer"
            )

    def check_steps(self, steps: int) -> None:
        check_end("optimizer.rate.steps", self.steps, steps)

    def build(self) -> optax.Schedule:
        def part(count: ArrayLike) -> ArrayLike:
            left = (self.steps - jnp.asarray(count) + 0.0) / self.decay_steps  # 0.0: not float32 in x64
            x = jnp.clip(1.0 - left, 0.0, 1.0)
            return 1.0 - (x if self.decay == "linear" else jnp.sqrt(x))

        return part


def check_end(field: str, end: int, steps: int) -> None:
    """Raises ValueError where more steps are asked for than there are until the rate is 0."""
    if steps > end:
        flag = field.replace("_", "-")
        raise ValueError(
            f"{field} = {end}: the learning rate is 0 after that, but train.steps = {steps}; pass --{flag} "
            f"{steps}, or fewer steps"
        )
