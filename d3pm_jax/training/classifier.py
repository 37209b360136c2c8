"""Computes the loss of a classifier: x_t is drawn from x_0, and the network tells the label."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Array, Key

from d3pm_jax.checks import is_array, values_in_range
from d3pm_jax.errors import wrong_return
from d3pm_jax.losses.variational import per_step
from d3pm_jax.models.variables import merge_variables
from d3pm_jax.processes import Process
from d3pm_jax.timesteps import LossHistory
from d3pm_jax.training import diffusion
from d3pm_jax.training.loss import Batch, Buffers, Metrics
from d3pm_jax.types import Params


@dataclasses.dataclass(frozen=True)
class ClassifierLoss:
    """Computes -log p(label | x_t, t), averaged over t in 0..T.

    Clean examples, t = 0, are among those that it is trained on: guidance multiplies the law of x_s, and s is
    0 in the last step.
    """

    objective: diffusion.Objective  # draws x_t
    timesteps: diffusion.Timesteps
    # (params, xt, time, key) -> (logits of the label [B, classes], buffers)
    train_predict: diffusion.TrainPredict

    def start_history(self, process: Process) -> LossHistory | None:
        """Returns the history of the timesteps before the first step."""
        if isinstance(process.time, jax.ShapeDtypeStruct):
            # On devices that are only described it has no numbers, and always all steps.
            return self.timesteps.start(process.T + 1)
        return self.timesteps.start(int(np.asarray(process.time)[-1]) + 1)

    def draw_noise(
        self,
        process: Process,
        key: Key[Array, ""],
        step: ArrayLike,
        history: LossHistory | None,
        shape: tuple[int, ...],
        sharding: jax.sharding.Sharding | None = None,
    ) -> diffusion.StepNoise:
        """Draws t in 0..T and the noise of x_t from fold_in(key, step), for a batch of a shape [B, *S]."""
        # Timesteps spread over 1..n. With n = T + 1 each of them is one above the t that it stands for.
        noise = diffusion.draw_noise(self.timesteps, key, step, history, shape, process.T + 1, sharding)
        return noise._replace(t=noise.t - 1)

    def compute(
        self,
        params: Params,
        buffers: Buffers,
        process: Process,
        batch: Batch,
        noise: diffusion.StepNoise,
        key: Key[Array, ""],
        total: ArrayLike,
    ) -> tuple[Array, tuple[Metrics, Array, Buffers]]:
        """Computes the loss; its mean and that of right answers; the nats [B]; and the new buffers."""
        if "weight" in batch:
            raise ValueError("the batch has weights, but a classifier takes whole examples: leave weight out")
        t, p_t, u = noise
        x0 = batch["x"]  # int32 [B, *S]
        label = batch["label"]  # int32 [B]
        xt = self.objective.draw(process, x0, t, u)  # int32 [B, *S]
        if not is_array(xt, x0.shape, jnp.integer):
            raise wrong_return(self.objective.draw, xt, f"x_t, {x0.dtype} {list(x0.shape)}, like x_0")

        variables = merge_variables(params, buffers)
        logits, new_buffers = self.train_predict(variables, xt, process.time[t], key)  # [B, classes]
        log_p = jax.nn.log_softmax(logits)
        nats = -jnp.take_along_axis(log_p, label[:, None], axis=1)[:, 0]  # [B]
        is_right = (jnp.argmax(logits, axis=1) == label).astype(nats.dtype)  # [B]

        # `total` counts elements, and there is one label for each example.
        examples = total / (x0.size // x0.shape[0])
        with values_in_range():
            loss = per_step(nats, p_t, process.T + 1).sum() / examples
            accuracy = per_step(is_right, p_t, process.T + 1).sum() / examples
        return loss, ({"loss": loss, "accuracy": accuracy}, nats, new_buffers)

    def update_history(
        self, history: LossHistory | None, noise: diffusion.StepNoise, costs: Array
    ) -> LossHistory | None:
        """Returns the history of the timesteps after a batch, from its nats [B]."""
        return self.timesteps.update(history, noise.t + 1, costs)
