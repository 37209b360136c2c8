"""The state of a run and the pure step from one to the next."""

import dataclasses
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax.typing import ArrayLike
from jaxtyping import Array, Key

from d3pm_jax import diffusion
from d3pm_jax.config import Adam, Config
from d3pm_jax.config_loss import weighted_mean
from d3pm_jax.timesteps import LossHistory
from d3pm_jax.training.network import Predict
from d3pm_jax.transitions import Transition
from d3pm_jax.types import Leaf, Params


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class TrainState:
    """Everything that training changes; with the config and the seed it determines all that follows."""

    step: Leaf  # int32 []  updates done
    params: Params
    ema: Params
    opt_state: optax.OptState
    history: Any = None  # what config.timesteps learns: a LossHistory or nothing


Metrics = dict[str, Array]
Step = Callable[[TrainState, Transition, Array, Key[Array, ""]], tuple[TrainState, Metrics]]


def build_optimizer(spec: Adam) -> optax.GradientTransformation:
    """Adam with decoupled weight decay (Loshchilov and Hutter 2019) after clipping by the global norm."""
    decayed = (
        optax.constant_schedule(spec.lr)
        if spec.decay_steps is None
        else optax.cosine_decay_schedule(spec.lr, spec.decay_steps)
    )

    def lr(count: ArrayLike) -> ArrayLike:
        warm = jnp.minimum(1.0, (jnp.asarray(count) + 1.0) / max(1, spec.warmup_steps))  # not float32 in x64
        return jnp.asarray(decayed(count)) * warm

    adam = optax.adamw(lr, b1=spec.b1, b2=spec.b2, weight_decay=spec.weight_decay)
    return optax.chain(optax.clip_by_global_norm(spec.clip), adam)


def init_state(
    params: Params, optimizer: optax.GradientTransformation, history: LossHistory | None = None
) -> TrainState:
    """The state before the first step. The average starts from a copy, so that both can be donated."""
    ema = jax.tree.map(jnp.copy, params)
    return TrainState(jnp.asarray(0, jnp.int32), params, ema, optimizer.init(params), history)


def make_step(config: Config, predict: Predict, optimizer: optax.GradientTransformation) -> Step:
    """The compiled step (state, tr, batch, key) -> (state, metrics); it takes over the memory of state.

    All randomness comes from fold_in(key, step), so a restart repeats it. Metrics: the loss, the means of
    kl and ce over t in nats per element, and the norm of the gradient before clipping.
    """

    def loss_fn(params: Params, tr: Transition, x0: Array, history: LossHistory | None, key: Key[Array, ""]):
        key_t, key_q, key_net = jax.random.split(key, 3)
        t, p_t = config.timesteps.draw(key_t, history, x0.shape[0], tr.T)
        xt = diffusion.q_sample(tr, x0, t, jax.random.uniform(key_q, x0.shape))
        logits = predict(params, xt, tr.time[t], key_net)
        loss, kl, ce = config.loss.terms(tr, logits, x0, xt, t, p_t)
        means = {name: weighted_mean(x, p_t, tr.T) for name, x in (("kl", kl), ("ce", ce))}
        history = config.timesteps.update(history, t, kl.reshape(kl.shape[0], -1).sum(axis=1))
        return loss, ({"loss": loss, **means}, history)

    @partial(jax.jit, donate_argnums=0)
    def step(state: TrainState, tr: Transition, x0: Array, key: Key[Array, ""]):
        grads, (metrics, history) = jax.grad(loss_fn, has_aux=True)(
            state.params, tr, x0, state.history, jax.random.fold_in(key, state.step)
        )
        updates, opt_state = optimizer.update(grads, state.opt_state, state.params)
        params = optax.apply_updates(state.params, updates)
        ema = optax.incremental_update(params, state.ema, 1.0 - _decay(config.train.ema_decay, state.step))
        metrics["grad_norm"] = optax.tree.norm(grads)
        return dataclasses.replace(
            state, step=state.step + 1, params=params, ema=ema, opt_state=opt_state, history=history
        ), metrics

    return step


def _decay(ema_decay: float, step: Array) -> Array:
    """ema_decay, but no more than (1 + step) / (10 + step): a short run is not held back by its start."""
    return jnp.minimum(ema_decay, (1.0 + step) / (10.0 + step))
