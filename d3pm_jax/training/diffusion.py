"""Computes the loss of a diffusion: x_t is drawn from x_0, and the network says what x_0 was."""

import dataclasses
from collections.abc import Callable
from functools import partial
from typing import Any, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Array, Key

from d3pm_jax.checks import is_array, values_in_range
from d3pm_jax.config.objective import ask_once, check_terms, has_own_compute, terms_of
from d3pm_jax.errors import wrong_return
from d3pm_jax.losses.variational import per_step
from d3pm_jax.models.variables import merge_variables
from d3pm_jax.processes import Process
from d3pm_jax.projection import weigh
from d3pm_jax.timesteps import LossHistory, StepNoise
from d3pm_jax.training.loss import (
    Batch,
    Buffers,
    Metrics,
    list_shapes,
    list_types,
    split_keys,
    spread_noise,
)
from d3pm_jax.types import Params

__all__ = ["DiffusionLoss", "Objective", "Timesteps"]


@runtime_checkable
class Objective(Protocol):
    """Defines the loss that is minimised, as `config.HybridLoss` does.

    One with a method `ask` or `compute`, as those of `config.Objective`, calls the network itself.
    """

    def draw(self, process: Process, x0: Array, t: Array, u: Array) -> Array:
        """Draws x_t from uniform noise u."""
        ...

    def terms(
        self, process: Process, logits: Array, x0: Array, xt: Array, t: Array, p_t: Array
    ) -> tuple[Array, Array, Array]:
        """Returns loss / (T p_t), kl and ce of each element [B, *S]; p_t [B]: how likely each t was."""
        ...


@runtime_checkable
class Timesteps(Protocol):
    """Defines which t are trained on, as `config.LowDiscrepancy` does; it is hashable."""

    def start(self, T: int) -> LossHistory | None:
        """Returns the history before the first step; None where there is none."""
        ...

    def draw(self, key: Array, history: LossHistory | None, B: int, T: int) -> tuple[Array, Array]:
        """Draws t in 1..T and returns them with the probability of each, both [B]."""
        ...

    def update(self, history: LossHistory | None, t: Array, kl: Array) -> LossHistory | None:
        """Returns the history after a batch, from its t [B] and its kl [B], summed over elements."""
        ...


# (params, xt, time, key=None, **inputs) -> logits of x_0, or a `Projection` of them; the inputs are label,
# weight, condition and layout
Predict = Callable[..., Any]
# The same with a key, -> (logits, the buffers after the call)
TrainPredict = Callable[..., tuple[Any, Buffers]]


@partial(jax.jit, static_argnames=("timesteps", "shape", "T", "sharding"))
def draw_noise(
    timesteps: Timesteps,
    key: Key[Array, ""],
    step: ArrayLike,
    history: LossHistory | None,
    shape: tuple[int, ...],
    T: int,
    sharding: jax.sharding.Sharding | None = None,
) -> StepNoise:
    """Draws the noise of a step from fold_in(key, step).

    Args:
        timesteps: which t to train on.
        key: of the noise of a run.
        step: the number of updates before this step.
        history: what the timesteps have learnt so far.
        shape: of the batch, [B, *S].
        T: number of steps of the process.
        sharding: of the batch, where it is spread over devices.
    """
    key_t, key_q, _ = split_keys(key, step)
    drawn = timesteps.draw(key_t, history, shape[0], T)
    _check_times(timesteps, drawn, shape[0])
    t, p_t = drawn
    # What is no probability, or of real times no density, becomes NaN, as does the loss.
    is_density = jnp.issubdtype(t.dtype, jnp.floating)
    p_t = jnp.where((p_t > 0) & (p_t < jnp.inf) & (is_density | (p_t <= 1)), p_t, jnp.nan)
    u = jax.random.uniform(key_q, shape)  # [B, *S]
    return spread_noise(StepNoise(t, p_t, u), sharding)


def _check_times(timesteps: Timesteps, drawn: Any, B: int) -> None:
    """Raises UserError unless what a timesteps of the user's own drew is t and its probability, [B] each."""
    is_pair = isinstance(drawn, tuple | list) and len(drawn) == 2
    t_type = jnp.floating if getattr(timesteps, "real", False) else jnp.integer
    if not is_pair or not (is_array(drawn[0], (B,), t_type) and is_array(drawn[1], (B,), jnp.floating)):
        cure = f"t, {t_type.__name__} [{B}], and its probability, floating [{B}]"
        raise wrong_return(timesteps.draw, drawn, cure)


@dataclasses.dataclass(frozen=True)
class DiffusionLoss:
    """Computes the loss of an objective at the t that a spread of timesteps draws."""

    objective: Objective
    timesteps: Timesteps
    train_predict: TrainPredict

    def start_history(self, process: Process) -> LossHistory | None:
        """Returns the history of the timesteps before the first step."""
        if isinstance(process.time, jax.ShapeDtypeStruct):
            # On devices that are only described it has no numbers, and always all steps.
            return self.timesteps.start(process.T)
        # The last time is T of the process with all steps, also where the process has some of them alone. A
        # process of the user's own makes its times when it is asked, and the caller may be traced.
        with jax.ensure_compile_time_eval():
            last_time = int(process.time[-1])
        return self.timesteps.start(last_time)

    def draw_noise(
        self,
        process: Process,
        key: Key[Array, ""],
        step: ArrayLike,
        history: LossHistory | None,
        shape: tuple[int, ...],
        sharding: jax.sharding.Sharding | None = None,
    ) -> StepNoise:
        """Draws t and the noise of x_t, see `draw_noise`."""
        return draw_noise(self.timesteps, key, step, history, shape, process.T, sharding)

    def compute(
        self,
        params: Params,
        buffers: Buffers,
        process: Process,
        batch: Batch,
        noise: StepNoise,
        key: Key[Array, ""],
        total: ArrayLike,
    ) -> tuple[Array, tuple[Metrics, Array, Buffers]]:
        """Computes the loss; the means of loss, kl and ce; kl [B]; and the new buffers: see `BatchLoss`."""
        x0 = batch["x"]  # int32 [B, *S]
        weight = batch.get("weight")  # [B, *S], or None where every element counts once
        extra_inputs = {name: batch[name] for name in ("label", "weight", "condition") if name in batch}
        variables = merge_variables(params, buffers)
        new_buffers = buffers

        def network(x: Array, time: Array, **inputs: Any) -> Any:
            nonlocal new_buffers
            output, new_buffers = self.train_predict(variables, x, time, key, **extra_inputs, **inputs)
            return output

        objective: Any = self.objective
        if has_own_compute(objective):
            terms = objective.compute(process, network, x0, noise, weight)
            check_terms(objective.compute, terms, x0)
            loss_sum = _weighted(terms[0], weight).sum()
        else:
            if hasattr(objective, "ask"):
                asked = objective.ask(process, network, x0, noise, weight)
            else:
                # An objective in a loop of one's own may be any class with draw and terms.
                asked = ask_once(objective, process, network, x0, noise)
            terms_of_rows = terms_of(objective, process, asked)
            loss_sum, terms = weigh(asked.logits, terms_of_rows, asked.rows, weight, asked.looks_at)
        _, kl, ce = terms  # [B, *S] each
        p_t = noise.p_t

        # The loss is already divided by T p_t, as an estimate of the mean over t has to be; kl and ce are
        # what the network did at the t that were drawn, and are brought to the same mean here.
        with values_in_range():
            kl_per_step = per_step(kl, p_t, process.T)
            ce_per_step = per_step(ce, p_t, process.T)

        def mean(x: Array) -> Array:
            return _weighted(x, weight).sum() / total

        means = {"loss": loss_sum / total, "kl": mean(kl_per_step), "ce": mean(ce_per_step)}
        kl_per_example = _weighted(kl, weight).reshape(kl.shape[0], -1).sum(axis=1)  # [B]
        return means["loss"], (means, kl_per_example, new_buffers)

    def update_history(
        self, history: LossHistory | None, noise: StepNoise, costs: Array
    ) -> LossHistory | None:
        """Returns the history of the timesteps after a batch, from its kl [B]."""
        updated = self.timesteps.update(history, noise.t, costs)
        if [*list_shapes(updated), *list_types(updated)] != [*list_shapes(history), *list_types(history)]:
            cure = "what start(T) returned, after the batch"
            raise wrong_return(self.timesteps.update, updated, cure)
        return updated


def without_buffers(predict: Predict) -> TrainPredict:
    """Makes the function that training calls of a network that has no buffers."""

    def train_predict(*args: Any, **options: Any) -> tuple[Array, None]:
        return predict(*args, **options), None

    return train_predict


def _weighted(x: Array, weight: Array | None) -> Array:
    """Returns weight x [B, *S], and 0 where the weight is 0, whatever x is.

    On padding x may be infinite or NaN, of which a plain product would make NaN.
    """
    if weight is None:
        return x
    return jnp.where(weight > 0, weight * x, 0.0)
