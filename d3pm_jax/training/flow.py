"""Computes the loss of an argmax flow: minus the ELBO, of one v ~ q(v | x) for each example."""

import dataclasses
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Array, Key

from d3pm_jax.checks import is_array
from d3pm_jax.errors import wrong_return
from d3pm_jax.models.variables import merge_variables
from d3pm_jax.training.loss import Batch, Buffers, Metrics, split_keys, spread_noise
from d3pm_jax.types import Params

__all__ = ["FlowLoss"]

# (params, x, u, normal, key) -> log weights [B], the buffers after the call; see `models.ArgmaxFlow`
LogWeights = Callable[..., tuple[Array, Buffers]]


class FlowNoise(NamedTuple):
    """Holds the random numbers of a step, but for those of dropout."""

    u: Any  # [B, *S]  uniform in [0, 1), from which a code of each category is drawn
    normal: Any  # [B, *S, D]  standard normal, from which v is drawn


@partial(jax.jit, static_argnames=("shape", "num_digits", "sharding"))
def draw_noise(
    key: Key[Array, ""],
    step: ArrayLike,
    shape: tuple[int, ...],
    num_digits: int,
    sharding: jax.sharding.Sharding | None = None,
) -> FlowNoise:
    """Draws the noise of a step from fold_in(key, step).

    Args:
        key: of the noise of a run.
        step: the number of updates before this step.
        shape: of the batch, [B, *S].
        num_digits: D, numbers of v for each category.
        sharding: of the batch, where it is spread over devices.
    """
    key_u, key_normal, _ = split_keys(key, step)
    u = jax.random.uniform(key_u, shape)  # [B, *S]
    normal = jax.random.normal(key_normal, (*shape, num_digits))  # [B, *S, D]
    return spread_noise(FlowNoise(u, normal), sharding)


@dataclasses.dataclass(frozen=True)
class FlowLoss:
    """Computes minus the ELBO, E[log q(v | x) - log p(v)], divided by the elements of an example."""

    log_weights: LogWeights
    num_digits: int

    def start_history(self, process: None) -> None:
        """Returns nothing: the noise of a flow learns nothing."""

    def draw_noise(
        self,
        process: None,
        key: Key[Array, ""],
        step: ArrayLike,
        history: None,
        shape: tuple[int, ...],
        sharding: jax.sharding.Sharding | None = None,
    ) -> FlowNoise:
        """Draws the noise of the codes and of v, see `draw_noise`."""
        return draw_noise(key, step, shape, self.num_digits, sharding)

    def compute(
        self,
        params: Params,
        buffers: Buffers,
        process: None,
        batch: Batch,
        noise: FlowNoise,
        key: Key[Array, ""],
        total: ArrayLike,
    ) -> tuple[Array, tuple[Metrics, Array, Buffers]]:
        """Computes the loss; its mean; the nats [B] of each example; and the new buffers: see `BatchLoss`."""
        if "weight" in batch:
            raise ValueError("the batch has weights, but a flow takes whole examples: leave weight out")
        x = batch["x"]
        variables = merge_variables(params, buffers)
        output = self.log_weights(variables, x, noise.u, noise.normal, key)
        is_pair = isinstance(output, tuple | list) and len(output) == 2
        if not is_pair or not is_array(output[0], x.shape[:1], jnp.floating):
            cure = f"log weights, floating [{len(x)}], and buffers, which are None where there are none"
            raise wrong_return(self.log_weights, output, cure)
        log_weights, new_buffers = output
        loss = -log_weights.sum() / total
        return loss, ({"loss": loss}, -log_weights, new_buffers)

    def update_history(self, history: None, noise: FlowNoise, costs: Array) -> None:
        """Returns nothing: the noise of a flow learns nothing."""
        return history
