"""Defines what a run minimises at a step: the noise, and the loss of a batch with this noise."""

from collections.abc import Mapping
from typing import Any, Protocol, runtime_checkable

import jax
import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Array, Key

from d3pm_jax.types import Params

Metrics = dict[str, Array]
# "x" int32 [B, *S]; if there are any, "label" int32 [B], "weight" [B, *S] and "condition" [B, *C]
Batch = Mapping[str, Array]
Buffers = Any  # batch statistics and all other variables that are no parameters; None where there are none
Noise = Any  # the random numbers of a step, but for those of dropout: a pytree of arrays [B, ..]


@runtime_checkable
class BatchLoss(Protocol):
    """Defines the loss of a batch, as `training.diffusion.DiffusionLoss` and `training.flow.FlowLoss` do.

    A process is passed as an argument, since its tables are arguments of compiled functions; None for a flow.
    """

    def start_history(self, process: Any) -> Any:
        """Returns what the noise has learnt before the first step; None where it learns nothing."""
        ...

    def draw_noise(
        self,
        process: Any,
        key: Key[Array, ""],
        step: ArrayLike,
        history: Any,
        shape: tuple[int, ...],
        sharding: jax.sharding.Sharding | None = None,
    ) -> Noise:
        """Draws the noise of a step from fold_in(key, step), for a batch of a shape [B, *S]."""
        ...

    def compute(
        self,
        params: Params,
        buffers: Buffers,
        process: Any,
        batch: Batch,
        noise: Noise,
        key: Key[Array, ""],
        total: ArrayLike,
    ) -> tuple[Array, tuple[Metrics, Array, Buffers]]:
        """Computes the loss; the means that are reported; a cost of each example [B]; and the new buffers.

        Means are sums over these examples divided by total, the sum of weights of the whole batch. The key is
        that of dropout.
        """
        ...

    def update_history(self, history: Any, noise: Noise, costs: Array) -> Any:
        """Returns what the noise has learnt after a batch, from its costs [B]."""
        ...


def split_keys(key: Key[Array, ""], step: ArrayLike) -> Key[Array, " 3"]:
    """Splits fold_in(key, step) into two keys of noise, and that of dropout."""
    return jax.random.split(jax.random.fold_in(key, step), 3)


def spread_noise(noise: Noise, sharding: jax.sharding.Sharding | None) -> Noise:
    """Returns the noise, spread over devices like the batch where that is spread."""
    if sharding is None:
        return noise
    return jax.lax.with_sharding_constraint(noise, sharding)


def list_shapes(tree: Any) -> list[Any]:
    """Returns the structure of a tree, and the shape of each leaf."""
    return [jax.tree.structure(tree), *map(np.shape, jax.tree.leaves(tree))]


def list_types(tree: Any) -> list[Any]:
    """Returns the type of the entries of each leaf."""
    return [getattr(leaf, "dtype", type(leaf)) for leaf in jax.tree.leaves(tree)]
