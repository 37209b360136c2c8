"""Drops the label and the condition of some examples, so that a network learns to do without them.

Classifier-free guidance calls the network both ways (Ho and Salimans 2022, arXiv 2207.12598).
"""

import dataclasses

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Array, Bool, Key

from d3pm_jax.processes.tables import expand_trailing
from d3pm_jax.training.loss import Batch

# Folded into the key of a step, which is split for noise and dropout: "drop" in ASCII.
DROPPING = 0x64726F70


@dataclasses.dataclass(frozen=True)
class Dropping:
    """Replaces the label and the condition of an example by null inputs, both or neither, at a rate.

    The null label is the number `classes`, one above the labels of the data. Every condition gets a feature
    more at the end of its last axis. It is 0, and in a null condition it is 1 and all else is 0.
    """

    rate: float
    classes: int | None = None  # labels are in 0..classes - 1; None: the network takes none
    condition: tuple[int, ...] | None = None  # *C of the data; None: there is none
    condition_type: str = "float32"

    @property
    def num_labels(self) -> int | None:
        """Returns how many labels the network takes, the null label among them."""
        if self.classes is None:
            return None
        return self.classes + 1

    @property
    def extended_condition(self) -> tuple[int, ...] | None:
        """Returns the shape of a condition with the feature that says whether it is null."""
        if self.condition is None:
            return None
        *leading, features = self.condition
        return (*leading, features + 1)

    def null_inputs(self, B: int) -> dict[str, Array]:
        """Returns the null inputs of B examples, "label" int32 [B] and "condition" [B, *C], if any."""
        inputs: dict[str, Array] = {}
        if self.classes is not None:
            inputs["label"] = jnp.full(B, self.classes, jnp.int32)
        if self.condition is not None:
            zeros = jnp.zeros((B, *self.condition), self.condition_type)
            inputs["condition"] = _append_feature(zeros, 1)
        return inputs

    def extend_condition(self, condition: Array) -> Array:
        """Returns conditions [B, *C] with one more feature, which says that they are not null.

        Those that have it, as null conditions do, are returned as they are.
        """
        if condition.shape[1:] == self.extended_condition:
            return condition
        return _append_feature(condition, 0)

    def draw(self, key: Key[Array, ""], step: ArrayLike, B: int) -> Bool[Array, " B"]:
        """Draws which examples of a batch are dropped; (key, step, their place in the batch) decide."""
        u = jax.random.uniform(jax.random.fold_in(jax.random.fold_in(key, step), DROPPING), (B,))
        return u < self.rate

    def drop(self, batch: Batch, key: Key[Array, ""], step: ArrayLike) -> Batch:
        """Returns a batch of which the examples that are dropped have null inputs."""
        B = len(batch["x"])
        dropped = self.draw(key, step, B)  # [B]
        inputs = dict(batch)
        if self.condition is not None:
            inputs["condition"] = self.extend_condition(batch["condition"])
        for name, null in self.null_inputs(B).items():
            is_dropped = expand_trailing(dropped, null.shape)  # [B, 1, ..]
            inputs[name] = jnp.where(is_dropped, null, inputs[name])
        return inputs


def _append_feature(condition: Array, value: int) -> Array:
    """Returns conditions [B, .., c] with one more feature of this value, [B, .., c + 1]."""
    feature = jnp.full((*condition.shape[:-1], 1), value, condition.dtype)
    return jnp.concatenate([condition, feature], axis=-1)
