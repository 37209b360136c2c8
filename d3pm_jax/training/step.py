"""Makes the pure step from one state of a training to the next."""

import dataclasses
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, NamedTuple, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import optax
from jax.typing import ArrayLike
from jaxtyping import Array, Key

from d3pm_jax.checks import bare
from d3pm_jax.losses.variational import per_step
from d3pm_jax.processes import Process
from d3pm_jax.timesteps import LossHistory
from d3pm_jax.training.state import TrainState
from d3pm_jax.types import Params


@runtime_checkable
class Objective(Protocol):
    """Says what is minimised, such as `config.HybridLoss`."""

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
    """Says which t are trained on, such as `config.LowDiscrepancy`; hashable."""

    def draw(self, key: Array, history: LossHistory | None, B: int, T: int) -> tuple[Array, Array]:
        """Draws t in 1..T and gives the probability of each, [B]."""
        ...

    def update(self, history: LossHistory | None, t: Array, kl: Array) -> LossHistory | None:
        """Returns what is learnt from the kl [B] of a batch, summed over elements."""
        ...


class StepNoise(NamedTuple):
    """Holds what a step is random in, dropout apart; arrays of JAX, or of NumPy where drawn before."""

    t: Any  # int32 [B] in 1..T, or in continuous time float32 [B] in (0, T]
    p_t: Any  # [B]  the probability of each t
    u: Any  # [B, *S]  uniform in [0, 1), from which x_t is drawn


Metrics = dict[str, Array]
Batch = Mapping[str, Array]  # "x" int32 [B, *S]; if there are any, "label" int32 [B] and "weight" [B, *S]
Predict = Callable[..., Array]  # (params, xt, time, key=None, label=None, weight=None) -> logits of x_0
TrainStep = Callable[
    ..., tuple[TrainState, Metrics]
]  # (state, process, batch, key, noise=None) -> (state, metrics)


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
    """Draws the noise of a step, from fold_in(key, step).

    Args:
        timesteps: which t to train on.
        key: of the noise of a run.
        step: the number of updates before it.
        history: what the timesteps have learnt so far.
        shape: of the batch, [B, *S].
        T: number of steps of the process.
        sharding: of the batch, where it is spread over devices.
    """
    key_t, key_q, _ = _keys(key, step)
    t, p_t = timesteps.draw(key_t, history, shape[0], T)
    noise = StepNoise(t, p_t, jax.random.uniform(key_q, shape))
    return noise if sharding is None else jax.lax.with_sharding_constraint(noise, sharding)


def make_update(
    objective: Objective,
    timesteps: Timesteps,
    optimizer: optax.GradientTransformation,
    predict: Predict,
    ema_decay: float,
    accumulate: int = 1,
    layout: TrainState | None = None,
) -> Any:
    """Makes the compiled part of `make_step`, (state, process, batch, noise, key) -> (state, metrics)."""
    loss = partial(batch_loss, objective, predict)

    @partial(jax.jit, donate_argnums=0, out_shardings=(layout, None))
    def update(state: TrainState, process: Process, batch: Batch, noise: StepNoise, key: Key[Array, ""]):
        key_dropout = _keys(key, state.step)[2]
        grads, metrics, kl = _gradient(loss, accumulate, state.params, process, batch, noise, key_dropout)
        metrics["grad_norm"] = optax.tree.norm(grads)
        finite = jnp.isfinite(jnp.stack(list(metrics.values()))).all()
        # At most (1 + step) / (10 + step): a short run is not held back by its start.
        decay = jnp.minimum(ema_decay, (1.0 + state.step) / (10.0 + state.step))

        def updated() -> tuple[TrainState, Array]:
            updates, opt_state = optimizer.update(grads, state.opt_state, state.params)
            params: Any = optax.apply_updates(state.params, updates)
            ema: Any = optax.incremental_update(params, state.ema, 1.0 - decay)
            history = timesteps.update(state.history, noise.t, kl)
            after = dataclasses.replace(state, params=params, ema=ema, opt_state=opt_state, history=history)
            return after, jnp.int32(-1)

        def skipped() -> tuple[TrainState, Array]:
            bad = jnp.stack([~jnp.isfinite(leaf).all() for leaf in jax.tree.leaves(grads)])
            return state, jnp.where(bad.any(), jnp.argmax(bad), -1).astype(jnp.int32)

        after, metrics["first_nonfinite"] = jax.lax.cond(finite, updated, skipped)
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
) -> TrainStep:
    """Makes the step (state, process, batch, key, noise=None) -> (state, metrics), in the memory of state.

    All randomness comes from fold_in(key, step), so a restart repeats it. Noise that is not passed is drawn
    by a program of its own, so that passing what `draw_noise` gives changes no bit. The loss is
    sum(weight loss) / sum(weight) over the batch, weight 1 where it has none. Metrics: the loss, the means
    of kl and ce over t in nats per element, the norm of the gradient before clipping, and "first_nonfinite",
    the place among the leaves of params of the first whose gradient is not finite, or -1.

    Where the loss, a mean or the norm is not finite, the step is skipped: parameters, their average,
    optimizer and history stay as they are to the bit, while steps are counted on. Unlike that of
    `optax.apply_if_finite` this rule has no state, looks at the loss too, and takes no pass over the gradient
    of its own.

    A batch that is taken in parts makes one step, that of the whole batch up to rounding, but for dropout,
    which has a key for each part. Unlike with `optax.MultiSteps` the state knows nothing of it.

    Args:
        objective: what is minimised.
        timesteps: which t to train on.
        optimizer: the update rule.
        predict: the network, (params, xt, time, key, label, weight) -> logits of x_0 [B, *S, K], with dropout
            for a key; the last two are passed where a batch has them.
        ema_decay: of the averaged parameters.
        sharding: of the batch and the noise, where they are spread over devices.
        accumulate: how many parts a batch is taken in, one after the other; divides B.
        layout: the sharding of each array of the state, where it is spread over devices.
    """
    update = make_update(objective, timesteps, optimizer, predict, ema_decay, accumulate, layout)

    def step(
        state: TrainState, process: Process, batch: Batch, key: Key[Array, ""], noise: StepNoise | None = None
    ) -> tuple[TrainState, Metrics]:
        if noise is None:
            shape = batch["x"].shape
            noise = draw_noise(timesteps, key, state.step, state.history, shape, process.T, sharding)
        return update(state, process, batch, noise, key)

    return step


def _gradient(
    loss: Callable[..., tuple[Array, tuple[Metrics, Array]]],
    accumulate: int,
    params: Params,
    process: Process,
    batch: Batch,
    noise: StepNoise,
    key: Key[Array, ""],
) -> tuple[Params, Metrics, Array]:
    """Returns the gradient of the loss of a batch, taken in so many parts, its metrics and kl [B]."""
    total = jnp.sum(batch["weight"]) if "weight" in batch else batch["x"].size

    def of_part(batch: Batch, noise: StepNoise, key: Key[Array, ""]) -> tuple[tuple[Params, Metrics], Array]:
        grads, (metrics, kl) = jax.grad(loss, has_aux=True)(params, process, batch, noise, key, total)
        return (grads, metrics), kl

    if accumulate == 1:
        (grads, metrics), kl = of_part(batch, noise, key)
        return grads, metrics, kl

    def add(sums: tuple[Params, Metrics], part: tuple) -> tuple[tuple[Params, Metrics], Array]:
        found, kl = of_part(*part)
        return jax.tree.map(jnp.add, sums, found), kl

    # [B, ...] becomes [accumulate, B / accumulate, ...]: rows i, i + accumulate, ... are part i. So every
    # device that holds rows of a batch which follow one another has rows of each part.
    def cut(x: Array) -> Array:
        if len(x) % accumulate:
            raise ValueError(
                f"a batch of {len(x)} does not divide into accumulate = {accumulate} parts: change one"
            )
        return x.reshape(-1, accumulate, *x.shape[1:]).swapaxes(0, 1)

    parts = *jax.tree.map(cut, (dict(batch), noise)), jax.random.split(key, accumulate)
    shapes = jax.eval_shape(lambda: of_part(*jax.tree.map(lambda x: x[0], parts))[0])
    (grads, metrics), kl = jax.lax.scan(add, jax.tree.map(jnp.zeros_like, shapes), parts)
    return grads, metrics, kl.swapaxes(0, 1).reshape(-1)


def batch_loss(
    objective: Objective,
    predict: Predict,
    params: Params,
    process: Process,
    batch: Batch,
    noise: StepNoise,
    key: Key[Array, ""],
    total: ArrayLike,
) -> tuple[Array, tuple[Metrics, Array]]:
    """Returns the loss, and what is reported of it: means over t, and the kl [B] of each example.

    Means are sums over these examples divided by total, the sum of weights of the whole batch.
    """
    (t, p_t, u), x0, weight = noise, batch["x"], batch.get("weight")
    xt = objective.draw(process, x0, t, u)
    more = {name: batch[name] for name in ("label", "weight") if name in batch}
    time = process.time[t] if jnp.issubdtype(t.dtype, jnp.integer) else t
    logits = predict(params, xt, time, key, **more)
    loss, kl, ce = objective.terms(process, logits, x0, xt, t, p_t)
    spread = {name: bare(per_step)(x, p_t, process.T) for name, x in (("kl", kl), ("ce", ce))}
    means = {name: _weighted(x, weight).sum() / total for name, x in {"loss": loss, **spread}.items()}
    return means["loss"], (means, _weighted(kl, weight).reshape(kl.shape[0], -1).sum(axis=1))


def _weighted(x: Array, weight: Array | None) -> Array:
    """Returns weight x, and 0 where the weight is 0, whatever x is."""
    return x if weight is None else jnp.where(weight > 0, weight * x, 0.0)


def _keys(key: Key[Array, ""], step: ArrayLike) -> Key[Array, " 3"]:
    """Makes the keys of t, of u and of dropout, from fold_in(key, step)."""
    return jax.random.split(jax.random.fold_in(key, step), 3)
