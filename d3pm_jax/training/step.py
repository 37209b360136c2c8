"""Makes the pure function that takes a training from one state to the next."""

import dataclasses
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import nnx
from jax.experimental.layout import Layout, with_layout_constraint
from jaxtyping import Array, Key

from d3pm_jax.errors import wrong_return
from d3pm_jax.models.variables import check_precision, is_narrow, merge_variables, split_variables
from d3pm_jax.processes import Process
from d3pm_jax.training.diffusion import (
    DiffusionLoss,
    Objective as Objective,
    Predict as Predict,
    Timesteps as Timesteps,
    TrainPredict as TrainPredict,
    without_buffers,
)
from d3pm_jax.training.dropping import Dropping
from d3pm_jax.training.loss import (
    Batch,
    BatchLoss,
    Buffers,
    Metrics as Metrics,
    Noise,
    list_shapes,
    list_types,
    split_keys,
)
from d3pm_jax.training.state import TrainState
from d3pm_jax.types import Params

# (state, process, batch, key, noise=None) -> (state, metrics)
TrainStep = Callable[..., tuple[TrainState, Metrics]]


def make_update(
    loss: BatchLoss,
    optimizer: optax.GradientTransformation,
    ema_decay: float,
    accumulate: int = 1,
    layout: TrainState | None = None,
    dropping: Dropping | None = None,
) -> Any:
    """Makes the compiled part of `make_loss_step`, (state, process, batch, noise, key) -> (state, metrics).

    The memory of the state that is passed is used for the one that is returned. The arguments are those of
    `make_loss_step`.
    """

    @partial(jax.jit, donate_argnums=0, out_shardings=(layout, None))
    def update(state: TrainState, process: Process | None, batch: Batch, noise: Noise, key: Key[Array, ""]):
        # Before the batch is taken in parts: which examples are dropped does not depend on the parts.
        if dropping is not None:
            batch = dropping.drop(batch, key, state.step)
        key_dropout = split_keys(key, state.step)[2]
        params, buffers = split_variables(state.params)
        check_precision(params)
        grads, metrics, costs, new_buffers = _gradient(
            loss, accumulate, params, buffers, process, batch, noise, key_dropout
        )
        if layout is None or not _are_spread(layout.params):
            grads = jax.tree.map(_lay_out_by_rows, grads)
        metrics["grad_norm"] = optax.tree.norm(grads)

        # All metrics decide, not the gradient alone: an infinite loss can have a finite gradient, as where a
        # category of the data has probability 0 whatever the parameters are. The norm, which is computed
        # anyway, stands for the whole gradient: it is not finite where any entry is not.
        finite = jnp.isfinite(jnp.stack(list(metrics.values()))).all()

        # The average starts from random weights, which a decay of 0.9999 would keep for 10,000 steps. With at
        # most (1 + step) / (10 + step) the first average is nearly the newest weights, and the decay that was
        # asked for is reached as soon as the average can be that long.
        decay = jnp.minimum(ema_decay, (1.0 + state.step) / (10.0 + state.step))

        def take_update() -> TrainState:
            changed = optimizer.update(grads, state.opt_state, params)
            # Updates may be of another type than the parameters, to which they are added in theirs.
            is_alike = list_shapes(changed) == list_shapes((grads, state.opt_state))
            if not is_alike or list_types(changed[1]) != list_types(state.opt_state):
                raise wrong_return(
                    optimizer.update, changed, "updates and a state, each array as what it takes the place of"
                )
            updates, opt_state = changed
            variables = merge_variables(optax.apply_updates(params, updates), new_buffers)
            ema = _move_average(state.ema, variables, 1.0 - decay)
            history = loss.update_history(state.history, noise, costs)
            return dataclasses.replace(state, params=variables, ema=ema, opt_state=opt_state, history=history)

        # Where the loss alone is not finite, all gradients may be, and no leaf is to blame.
        def find_nonfinite_leaf() -> Array:
            nonfinite = jnp.stack([~jnp.isfinite(leaf).all() for leaf in jax.tree.leaves(grads)])  # [leaves]
            return jnp.where(nonfinite.any(), jnp.argmax(nonfinite), -1).astype(jnp.int32)

        no_leaf = jnp.int32(-1)

        # A skipped step returns the very numbers it was passed, moments of the optimizer and history among
        # them. On a CPU one branch of a `cond` is computed, and a skipped step touches no array.
        def update_in_branch() -> tuple[TrainState, Array]:
            return jax.lax.cond(
                finite, lambda: (take_update(), no_leaf), lambda: (state, find_nonfinite_leaf())
            )

        # A GPU would copy all arrays that such a branch returns, one by one, so it selects one of two states.
        # That is to the bit too, where a product with 0 would make NaN of NaN. The leaf is one number, and a
        # branch saves a read of all gradients.
        def select_update() -> tuple[TrainState, Array]:
            after = jax.tree.map(partial(jax.lax.select, finite), take_update(), state)
            return after, jax.lax.cond(finite, lambda: no_leaf, find_nonfinite_leaf)

        after, metrics["first_nonfinite"] = jax.lax.platform_dependent(
            cpu=update_in_branch, default=select_update
        )

        # A skipped step is counted too. The count decides which batch and which noise come next, so that the
        # batch that failed is not drawn a second time, and a restart finds the place where it was.
        return dataclasses.replace(after, step=state.step + 1), metrics

    return update


def make_loss_step(
    loss: BatchLoss,
    optimizer: optax.GradientTransformation,
    ema_decay: float,
    sharding: jax.sharding.Sharding | None = None,
    accumulate: int = 1,
    layout: TrainState | None = None,
    dropping: Dropping | None = None,
) -> TrainStep:
    """Makes the training step of a loss, (state, process, batch, key, noise=None) -> (state, metrics).

    The new state is written to the memory of the old one, which cannot be used again.

    All randomness comes from fold_in(key, step), so a restart repeats it. Noise that is not passed is drawn
    by a program of its own, so that passing what `draw_noise` gives changes no bit. The loss is
    sum(weight loss) / sum(weight) over the batch, weight 1 where it has none. Metrics: the loss and the other
    means that it reports, the norm of the gradient before clipping, and "first_nonfinite", the place among
    the leaves of params of the first whose gradient is not finite, or -1.

    Where the loss, a mean or the norm is not finite, the step is skipped: parameters, their average,
    buffers, optimizer and history stay as they are to the bit, while steps are counted on. Unlike that of
    `optax.apply_if_finite` this rule has no state, looks at the loss too, and takes no pass over the gradient
    of its own.

    Parameters are real numbers of 32 bits or more: a step raises ValueError for others.

    A batch that is taken in parts makes one step, that of the whole batch up to rounding, but for dropout,
    which has a key for each part, and for batch statistics, which each part makes and hands to the next.
    Unlike with `optax.MultiSteps` the state knows nothing of it.

    Args:
        loss: what is minimised, such as `training.flow.FlowLoss`; the process is None for a flow.
        optimizer: the update rule.
        ema_decay: of the averaged parameters.
        sharding: of the batch and the noise, where they are spread over devices.
        accumulate: how many parts a batch is taken in, one after the other; divides B.
        layout: the sharding of each array of the state, where it is spread over devices.
        dropping: of labels and conditions; None to drop none. Batches are those of the data either way.
    """
    update = make_update(loss, optimizer, ema_decay, accumulate, layout, dropping)

    def step(
        state: TrainState,
        process: Process | None,
        batch: Batch,
        key: Key[Array, ""],
        noise: Noise | None = None,
    ) -> tuple[TrainState, Metrics]:
        # Noise is drawn in a program of its own even where it could be drawn inside the update: the update is
        # then the same program whether its noise comes from here or from a file.
        if noise is None:
            shape = batch["x"].shape  # [B, *S]
            noise = loss.draw_noise(process, key, state.step, state.history, shape, sharding)
        return update(state, process, batch, noise, key)

    return step


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
    dropping: Dropping | None = None,
) -> TrainStep:
    """Makes the training step of a diffusion, (state, process, batch, key, noise=None) -> (state, metrics).

    It is `make_loss_step` of a `DiffusionLoss`. Metrics are the loss, and the means of kl and ce over t in
    nats per element.

    Args:
        objective: what is minimised.
        timesteps: which t to train on.
        predict: the network, (params, xt, time, key, label, weight, condition) -> logits of x_0 [B, *S, K],
            with dropout for a key; the last three are passed where a batch has them.
        optimizer, ema_decay, sharding, accumulate, layout, dropping: as for `make_loss_step`.
        train_predict: takes the place of predict in training where a network has buffers: called with a key,
            it returns the logits and the buffers after the call.
    """
    loss = DiffusionLoss(objective, timesteps, train_predict or without_buffers(predict))
    return make_loss_step(loss, optimizer, ema_decay, sharding, accumulate, layout, dropping)


def _gradient(
    loss: BatchLoss,
    accumulate: int,
    params: Params,
    buffers: Buffers,
    process: Process | None,
    batch: Batch,
    noise: Noise,
    key: Key[Array, ""],
) -> tuple[Params, Metrics, Array, Buffers]:
    """Returns the gradient of the loss of a batch, its metrics, the costs [B] of examples, and the buffers.

    The batch is taken in `accumulate` parts, one after the other, to need the activations of one part alone.
    """
    # Every part divides by the weights of the whole batch, so that gradients and means of parts add up to
    # those of the batch, also where one part holds more padding than another.
    if "weight" in batch:
        total = jnp.sum(batch["weight"])
    else:
        total = batch["x"].size

    def differentiate(
        buffers: Buffers, batch: Batch, noise: Noise, key: Key[Array, ""]
    ) -> tuple[tuple[Params, Metrics], Array, Buffers]:
        gradient = jax.grad(loss.compute, has_aux=True)
        grads, (metrics, costs, buffers) = gradient(params, buffers, process, batch, noise, key, total)
        return (grads, metrics), costs, buffers

    if accumulate == 1:
        (grads, metrics), costs, buffers = differentiate(buffers, batch, noise, key)
        return grads, metrics, costs, buffers

    def add_part(carry: tuple, part: tuple) -> tuple[tuple, Array]:
        sums, buffers = carry
        summands, costs, buffers = differentiate(buffers, *part)
        return (jax.tree.map(jnp.add, sums, summands), buffers), costs

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
    carry, costs = jax.lax.scan(add_part, (zeros, buffers), parts)  # costs [accumulate, B / accumulate]
    (grads, metrics), buffers = carry

    # Back in the order of the batch, the inverse of `split_rows`: the history pairs costs with t.
    return grads, metrics, costs.swapaxes(0, 1).reshape(-1), buffers


def _are_spread(shardings: Any) -> bool:
    """Says whether devices hold parts of parameters, which `_lay_out_by_rows` would gather."""
    return any(not sharding.is_fully_replicated for sharding in jax.tree.leaves(shardings))


def _lay_out_by_rows(gradient: Array) -> Array:
    """Returns a gradient that lies in memory as the parameters do, the last axis first.

    A GPU makes gradients of the kernels of convolutions in another order of axes, and XLA would bring the
    parameters, their average and all moments to that order, and back again.
    """

    def lay_out(x: Array) -> Array:
        return with_layout_constraint(x, Layout(tuple(range(x.ndim))))

    return jax.lax.platform_dependent(gradient, cpu=lambda x: x, default=lay_out)


def _move_average(average: Any, newest: Any, weight: Array) -> Any:
    """Returns average + weight (newest - average) of parameters and batch statistics of 32 bits or more.

    Every other buffer is the newest: a mean of integers is none, and a mean of a constant with itself may be
    another number, by rounding. In 16 bits rounding would outweigh the change.
    """
    if not isinstance(newest, nnx.State):
        return optax.incremental_update(newest, average, weight)

    def is_averaged(path: tuple, x: Any) -> bool:
        is_wide_float = jnp.issubdtype(x.dtype, jnp.floating) and not is_narrow(x.dtype)
        return isinstance(x, nnx.Param | nnx.BatchStat) and is_wide_float

    newest, others = nnx.split_state(newest, is_averaged, ...)
    average = nnx.filter_state(average, is_averaged)
    moved: Any = optax.incremental_update(newest, average, weight)
    return nnx.merge_state(moved, others)
