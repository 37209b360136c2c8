"""Makes the pure function that takes a training from one state to the next."""

import dataclasses
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, NamedTuple, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from jax.typing import ArrayLike
from jaxtyping import Array, Key

from d3pm_jax.checks import values_in_range
from d3pm_jax.errors import wrong_return
from d3pm_jax.losses.variational import per_step
from d3pm_jax.models.variables import merge_variables, split_variables
from d3pm_jax.processes import Process
from d3pm_jax.timesteps import LossHistory
from d3pm_jax.training.state import TrainState
from d3pm_jax.types import Params


@runtime_checkable
class Objective(Protocol):
    """Defines the loss that is minimised, as `config.HybridLoss` does."""

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

    def draw(self, key: Array, history: LossHistory | None, B: int, T: int) -> tuple[Array, Array]:
        """Draws t in 1..T and returns them with the probability of each, both [B]."""
        ...

    def update(self, history: LossHistory | None, t: Array, kl: Array) -> LossHistory | None:
        """Returns the history after a batch, from its t [B] and its kl [B], summed over elements."""
        ...


class StepNoise(NamedTuple):
    """Holds the random numbers of a step, but for those of dropout.

    They are arrays of JAX, or of NumPy where they were drawn in advance.
    """

    t: Any  # int32 [B] in 1..T, or in continuous time float32 [B] in (0, T]
    p_t: Any  # [B]  the probability of each t
    u: Any  # [B, *S]  uniform in [0, 1), from which x_t is drawn


Metrics = dict[str, Array]
# "x" int32 [B, *S]; if there are any, "label" int32 [B], "weight" [B, *S] and "condition" [B, *C]
Batch = Mapping[str, Array]
Buffers = Any  # batch statistics and all other variables that are no parameters; None where there are none

# (params, xt, time, key=None, label=None, weight=None, condition=None) -> logits of x_0
Predict = Callable[..., Array]
# The same with a key, -> (logits, the buffers after the call)
TrainPredict = Callable[..., tuple[Array, Buffers]]
# (state, process, batch, key, noise=None) -> (state, metrics)
TrainStep = Callable[..., tuple[TrainState, Metrics]]


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
    key_t, key_q, _ = _keys(key, step)
    drawn = timesteps.draw(key_t, history, shape[0], T)
    _check_times(timesteps, drawn, shape[0])
    t, p_t = drawn
    u = jax.random.uniform(key_q, shape)  # [B, *S]
    noise = StepNoise(t, p_t, u)
    if sharding is None:
        return noise
    return jax.lax.with_sharding_constraint(noise, sharding)


def _check_times(timesteps: Timesteps, drawn: Any, B: int) -> None:
    """Raises UserError unless what a timesteps of the user's own drew is t and its probability, [B] each."""
    is_pair = isinstance(drawn, tuple | list) and len(drawn) == 2
    t_type = jnp.floating if getattr(timesteps, "real", False) else jnp.integer
    if not is_pair or not (_is_array(drawn[0], (B,), t_type) and _is_array(drawn[1], (B,), jnp.floating)):
        cure = f"t, {t_type.__name__} [{B}], and its probability, floating [{B}]"
        raise wrong_return(timesteps.draw, drawn, cure)


def _is_array(x: Any, shape: tuple[int, ...], wider: Any) -> bool:
    """Says whether x is an array of this shape, whose type is a case of a wider one."""
    return hasattr(x, "dtype") and np.shape(x) == shape and jnp.issubdtype(x.dtype, wider)


def make_update(
    objective: Objective,
    timesteps: Timesteps,
    optimizer: optax.GradientTransformation,
    predict: Predict,
    ema_decay: float,
    accumulate: int = 1,
    layout: TrainState | None = None,
    train_predict: TrainPredict | None = None,
) -> Any:
    """Makes the compiled part of `make_step`, (state, process, batch, noise, key) -> (state, metrics).

    The memory of the state that is passed is used for the one that is returned. The arguments are those of
    `make_step`.
    """
    loss = partial(batch_loss, objective, train_predict or without_buffers(predict))

    @partial(jax.jit, donate_argnums=0, out_shardings=(layout, None))
    def update(state: TrainState, process: Process, batch: Batch, noise: StepNoise, key: Key[Array, ""]):
        key_dropout = _keys(key, state.step)[2]
        params, buffers = split_variables(state.params)
        grads, metrics, kl, new_buffers = _gradient(
            loss, accumulate, params, buffers, process, batch, noise, key_dropout
        )
        metrics["grad_norm"] = optax.tree.norm(grads)

        # All metrics decide, not the gradient alone: an infinite loss can have a finite gradient, as where a
        # category of the data has probability 0 whatever the parameters are. The norm, which is computed
        # anyway, stands for the whole gradient: it is not finite where any entry is not.
        finite = jnp.isfinite(jnp.stack(list(metrics.values()))).all()

        # The average starts from random weights, which a decay of 0.9999 would keep for 10,000 steps. With at
        # most (1 + step) / (10 + step) the first average is nearly the newest weights, and the decay that was
        # asked for is reached as soon as the average can be that long.
        decay = jnp.minimum(ema_decay, (1.0 + state.step) / (10.0 + state.step))

        # A branch of `cond`, not a select between two results: only one of them is computed, and a skipped
        # step returns the very arrays it was passed, moments of the optimizer and history among them.
        def take_update() -> tuple[TrainState, Array]:
            updates, opt_state = optimizer.update(grads, state.opt_state, params)
            variables = merge_variables(optax.apply_updates(params, updates), new_buffers)
            ema = _move_average(state.ema, variables, 1.0 - decay)
            history = timesteps.update(state.history, noise.t, kl)
            if jax.tree.structure(history) != jax.tree.structure(state.history):
                cure = "what start(T) returned, after the batch"
                raise wrong_return(timesteps.update, history, cure)
            after = dataclasses.replace(
                state, params=variables, ema=ema, opt_state=opt_state, history=history
            )
            return after, jnp.int32(-1)  # no leaf

        # Where the loss alone is not finite, all gradients may be, and no leaf is to blame.
        def skip_update() -> tuple[TrainState, Array]:
            nonfinite = jnp.stack([~jnp.isfinite(leaf).all() for leaf in jax.tree.leaves(grads)])  # [leaves]
            return state, jnp.where(nonfinite.any(), jnp.argmax(nonfinite), -1).astype(jnp.int32)

        after, metrics["first_nonfinite"] = jax.lax.cond(finite, take_update, skip_update)

        # A skipped step is counted too. The count decides which batch and which noise come next, so that the
        # batch that failed is not drawn a second time, and a restart finds the place where it was.
        return dataclasses.replace(after, step=state.step + 1), metrics

    return update


def make_step(
    objective: Objective,
    timesteps: Timesteps,
    optimizer: optax.GradientTransformation,
    predict: Predict,
    ema_decay: float,
    sharding: jax.sharding.Sharding | None = None,
    accumulate: int = 1,
    layout: TrainState | None = None,
    train_predict: TrainPredict | None = None,
) -> TrainStep:
    """Makes the training step (state, process, batch, key, noise=None) -> (state, metrics).

    The new state is written to the memory of the old one, which cannot be used again.

    All randomness comes from fold_in(key, step), so a restart repeats it. Noise that is not passed is drawn
    by a program of its own, so that passing what `draw_noise` gives changes no bit. The loss is
    sum(weight loss) / sum(weight) over the batch, weight 1 where it has none. Metrics: the loss, the means
    of kl and ce over t in nats per element, the norm of the gradient before clipping, and "first_nonfinite",
    the place among the leaves of params of the first whose gradient is not finite, or -1.

    Where the loss, a mean or the norm is not finite, the step is skipped: parameters, their average,
    buffers, optimizer and history stay as they are to the bit, while steps are counted on. Unlike that of
    `optax.apply_if_finite` this rule has no state, looks at the loss too, and takes no pass over the gradient
    of its own.

    A batch that is taken in parts makes one step, that of the whole batch up to rounding, but for dropout,
    which has a key for each part, and for batch statistics, which each part makes and hands to the next.
    Unlike with `optax.MultiSteps` the state knows nothing of it.

    Args:
        objective: what is minimised.
        timesteps: which t to train on.
        optimizer: the update rule.
        predict: the network, (params, xt, time, key, label, weight, condition) -> logits of x_0 [B, *S, K],
            with dropout for a key; the last three are passed where a batch has them.
        ema_decay: of the averaged parameters.
        sharding: of the batch and the noise, where they are spread over devices.
        accumulate: how many parts a batch is taken in, one after the other; divides B.
        layout: the sharding of each array of the state, where it is spread over devices.
        train_predict: takes the place of predict in training where a network has buffers: called with a key,
            it returns the logits and the buffers after the call.
    """
    update = make_update(
        objective, timesteps, optimizer, predict, ema_decay, accumulate, layout, train_predict
    )

    def step(
        state: TrainState, process: Process, batch: Batch, key: Key[Array, ""], noise: StepNoise | None = None
    ) -> tuple[TrainState, Metrics]:
        # Noise is drawn in a program of its own even where it could be drawn inside the update: the update is
        # then the same program whether its noise comes from here or from a file.
        if noise is None:
            shape = batch["x"].shape  # [B, *S]
            noise = draw_noise(timesteps, key, state.step, state.history, shape, process.T, sharding)
        return update(state, process, batch, noise, key)

    return step


def _gradient(
    loss: Callable[..., tuple[Array, tuple[Metrics, Array, Buffers]]],
    accumulate: int,
    params: Params,
    buffers: Buffers,
    process: Process,
    batch: Batch,
    noise: StepNoise,
    key: Key[Array, ""],
) -> tuple[Params, Metrics, Array, Buffers]:
    """Returns the gradient of the loss of a batch, its metrics, the kl [B] of its examples, and the buffers.

    The batch is taken in `accumulate` parts, one after the other, to need the activations of one part alone.
    """
    # Every part divides by the weights of the whole batch, so that gradients and means of parts add up to
    # those of the batch, also where one part holds more padding than another.
    if "weight" in batch:
        total = jnp.sum(batch["weight"])
    else:
        total = batch["x"].size

    def differentiate(
        buffers: Buffers, batch: Batch, noise: StepNoise, key: Key[Array, ""]
    ) -> tuple[tuple[Params, Metrics], Array, Buffers]:
        gradient = jax.grad(loss, has_aux=True)
        grads, (metrics, kl, buffers) = gradient(params, buffers, process, batch, noise, key, total)
        return (grads, metrics), kl, buffers

    if accumulate == 1:
        (grads, metrics), kl, buffers = differentiate(buffers, batch, noise, key)
        return grads, metrics, kl, buffers

    def add_part(carry: tuple, part: tuple) -> tuple[tuple, Array]:
        sums, buffers = carry
        summands, kl, buffers = differentiate(buffers, *part)
        return (jax.tree.map(jnp.add, sums, summands), buffers), kl

    # [B, ...] becomes [accumulate, B / accumulate, ...]: rows i, i + accumulate, ... are part i. Each device
    # holds rows of the batch that follow one another, and so has rows of every part: all devices compute on
    # each part, and no row moves to another device.
    def split_rows(x: Array) -> Array:
        if len(x) % accumulate:
            raise ValueError(
                f"a batch of {len(x)} does not divide into accumulate = {accumulate} parts: change one"
            )
        return x.reshape(-1, accumulate, *x.shape[1:]).swapaxes(0, 1)

    batches, noises = jax.tree.map(split_rows, (dict(batch), noise))
    parts = (batches, noises, jax.random.split(key, accumulate))

    # The scan starts from zeros of the shapes that the sums will have; `eval_shape` computes nothing.
    def first_summands() -> tuple[Params, Metrics]:
        return differentiate(buffers, *jax.tree.map(lambda x: x[0], parts))[0]

    zeros = jax.tree.map(jnp.zeros_like, jax.eval_shape(first_summands))
    carry, kl = jax.lax.scan(add_part, (zeros, buffers), parts)  # kl [accumulate, B / accumulate]
    (grads, metrics), buffers = carry

    # Back in the order of the batch, the inverse of `split_rows`: the history pairs kl with t.
    return grads, metrics, kl.swapaxes(0, 1).reshape(-1), buffers


def batch_loss(
    objective: Objective,
    train_predict: TrainPredict,
    params: Params,
    buffers: Buffers,
    process: Process,
    batch: Batch,
    noise: StepNoise,
    key: Key[Array, ""],
    total: ArrayLike,
) -> tuple[Array, tuple[Metrics, Array, Buffers]]:
    """Returns the loss; the means of loss, kl and ce that are reported; kl [B]; and the new buffers.

    Means are sums over these examples divided by total, the sum of weights of the whole batch.
    """
    t, p_t, u = noise
    x0 = batch["x"]  # int32 [B, *S]
    weight = batch.get("weight")  # [B, *S], or None where every element counts once
    xt = objective.draw(process, x0, t, u)  # int32 [B, *S]
    if not _is_array(xt, x0.shape, jnp.integer):
        raise wrong_return(objective.draw, xt, f"x_t, {x0.dtype} {list(x0.shape)}, like x_0")

    # Whole steps are numbered from 1. The network sees process.time of them: a respaced process shows the
    # network the step numbers of the original. Real times are passed on as they are.
    if jnp.issubdtype(t.dtype, jnp.integer):
        time = process.time[t]
    else:
        time = t

    extra_inputs = {name: batch[name] for name in ("label", "weight", "condition") if name in batch}
    variables = merge_variables(params, buffers)
    logits, new_buffers = train_predict(variables, xt, time, key, **extra_inputs)  # [B, *S, K]
    terms = objective.terms(process, logits, x0, xt, t, p_t)
    are_terms = isinstance(terms, tuple | list) and len(terms) == 3
    if not are_terms or not all(_is_array(term, x0.shape, jnp.floating) for term in terms):
        cure = f"Terms(loss, kl, ce), each of a float type and of shape {list(x0.shape)}"
        raise wrong_return(objective.terms, terms, cure)
    loss, kl, ce = terms  # each [B, *S]

    # The loss is already divided by T p_t, as an estimate of the mean over t has to be; kl and ce are what
    # the network did at the t that were drawn, and are brought to the same mean here.
    with values_in_range():
        kl_per_step = per_step(kl, p_t, process.T)
        ce_per_step = per_step(ce, p_t, process.T)

    def mean(x: Array) -> Array:
        return _weighted(x, weight).sum() / total

    means = {"loss": mean(loss), "kl": mean(kl_per_step), "ce": mean(ce_per_step)}
    kl_per_example = _weighted(kl, weight).reshape(kl.shape[0], -1).sum(axis=1)  # [B]
    return means["loss"], (means, kl_per_example, new_buffers)


def without_buffers(predict: Predict) -> TrainPredict:
    """Makes the function that training calls of a network that has no buffers."""

    def train_predict(*args: Any, **options: Any) -> tuple[Array, None]:
        return predict(*args, **options), None

    return train_predict


def _move_average(average: Any, newest: Any, weight: Array) -> Any:
    """Returns average + weight (newest - average) of parameters and batch statistics of floats.

    Every other buffer is the newest: a mean of integers is none, and a mean of a constant with itself may be
    another number, by rounding.
    """
    if not isinstance(newest, nnx.State):
        return optax.incremental_update(newest, average, weight)

    def is_averaged(path: tuple, x: Any) -> bool:
        return isinstance(x, nnx.Param | nnx.BatchStat) and jnp.issubdtype(x.dtype, jnp.floating)

    newest, others = nnx.split_state(newest, is_averaged, ...)
    average = nnx.filter_state(average, is_averaged)
    moved: Any = optax.incremental_update(newest, average, weight)
    return nnx.merge_state(moved, others)


def _weighted(x: Array, weight: Array | None) -> Array:
    """Returns weight x [B, *S], and 0 where the weight is 0, whatever x is.

    On padding x may be infinite or NaN, of which a plain product would make NaN.
    """
    if weight is None:
        return x
    return jnp.where(weight > 0, weight * x, 0.0)


def _keys(key: Key[Array, ""], step: ArrayLike) -> Key[Array, " 3"]:
    """Makes the keys of t, of u and of dropout, from fold_in(key, step)."""
    return jax.random.split(jax.random.fold_in(key, step), 3)
