"""Builds the optimizers of a config, of Optax."""

import dataclasses
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import optax
from jax.typing import ArrayLike

from d3pm_jax.config.checks import Count, Natural, NotNegative, Positive, UnitInterval, undefined
from d3pm_jax.types import Params


@dataclasses.dataclass(frozen=True)
class Optimizer:
    """Describes the rule by which gradients change parameters."""

    may_change: ClassVar[tuple[str, ...]] = ()
    """fields that may change when a run is resumed: those that the state of the built rule does not keep"""

    def check(self) -> None:
        """Raises ValueError for a field that cannot be used."""

    def check_steps(self, steps: int) -> None:
        """Raises ValueError where the last of so many steps would change nothing."""

    def build(self) -> optax.GradientTransformation:
        """Builds the rule."""
        raise undefined(self, "build")


@dataclasses.dataclass(frozen=True)
class Adam(Optimizer):
    """Builds Adam with warm-up, cosine decay and clipping by the global norm."""

    may_change: ClassVar[tuple[str, ...]] = ("lr", "decay_steps")  # the state counts steps and keeps no rate
    lr: NotNegative = 2e-4
    """learning rate after warm-up; with 0 nothing is learnt"""
    b1: UnitInterval = 0.9
    """decay of the first moment"""
    b2: UnitInterval = 0.999
    """decay of the second moment"""
    warmup_steps: Natural = 0
    """steps from 0 to lr"""
    decay_steps: Count | None = None
    """step at which a cosine decay reaches 0; constant lr without"""
    clip: Positive = 1.0
    """largest global norm of a gradient"""
    weight_decay: NotNegative = 0.0
    """of AdamW: each step also takes lr times this part of a kernel away; biases and scales stay"""

    def check_steps(self, steps: int) -> None:
        if self.decay_steps is not None and steps > self.decay_steps:
            raise ValueError(
                f"optimizer.decay_steps = {self.decay_steps}: the learning rate is 0 after that, but "
                f"train.steps = {steps}; pass --optimizer.decay-steps {steps}, or fewer steps"
            )

    def build(self) -> optax.GradientTransformation:
        """Builds Adam with decoupled decay (Loshchilov and Hutter 2019) after clipping by the global norm."""
        adam = optax.adamw(
            self._learning_rate, b1=self.b1, b2=self.b2, weight_decay=self.weight_decay, mask=_decays
        )
        return optax.chain(optax.clip_by_global_norm(self.clip), adam)

    def _learning_rate(self, count: ArrayLike) -> ArrayLike:
        """Returns the rate of the update after count others."""
        decayed = (
            optax.constant_schedule(self.lr)
            if self.decay_steps is None
            else optax.cosine_decay_schedule(self.lr, self.decay_steps)
        )
        warm = jnp.minimum(1.0, (jnp.asarray(count) + 1.0) / max(1, self.warmup_steps))  # not float32 in x64
        return jnp.asarray(decayed(count)) * warm


def _decays(params: Params) -> Params:
    """Arrays of two axes and more decay: kernels, not biases, scales or the frequencies of time.

    Layers may be stacked, with an axis more: a bias is one by its name.
    """

    def decays(path: tuple, x: Any) -> bool:
        return x.ndim > 1 and not jax.tree_util.keystr(path).endswith(("['bias']", "['bias'].value"))

    return jax.tree_util.tree_map_with_path(decays, params)
