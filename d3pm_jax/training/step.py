"""The state of a run and the pure step from one to the next."""

import dataclasses
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.typing import ArrayLike
from jaxtyping import Array, Key

from d3pm_jax import diffusion
from d3pm_jax.config import Adam, Config
from d3pm_jax.config_loss import Timesteps, weighted_mean
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


class StepNoise(NamedTuple):
    """What a step is random in, dropout apart; arrays of JAX, or of NumPy from a bank."""

    t: Any  # int32 [B] in 1..T
    p_t: Any  # [B]  the probability of each t
    u: Any  # [B, H, W, C]  uniform in [0, 1), from which x_t is drawn


Metrics = dict[str, Array]
Step = Callable[..., tuple[TrainState, Metrics]]  # (state, tr, x0, key, noise=None) -> (state, metrics)


def build_optimizer(spec: Adam) -> optax.GradientTransformation:
    """Adam with decoupled weight decay (Loshchilov and Hutter 2019) after clipping by the global norm.

    Only arrays of two axes and more decay: kernels, not biases, scales or the frequencies of time.
    """
    decayed = (
        optax.constant_schedule(spec.lr)
        if spec.decay_steps is None
        else optax.cosine_decay_schedule(spec.lr, spec.decay_steps)
    )

    def lr(count: ArrayLike) -> ArrayLike:
        warm = jnp.minimum(1.0, (jnp.asarray(count) + 1.0) / max(1, spec.warmup_steps))  # not float32 in x64
        return jnp.asarray(decayed(count)) * warm

    def decays(params: Params) -> Params:
        return jax.tree.map(lambda x: x.ndim > 1, params)

    adam = optax.adamw(lr, b1=spec.b1, b2=spec.b2, weight_decay=spec.weight_decay, mask=decays)
    return optax.chain(optax.clip_by_global_norm(spec.clip), adam)


def init_state(
    params: Params, optimizer: optax.GradientTransformation, history: LossHistory | None = None
) -> TrainState:
    """The state before the first step. The average starts from a copy, so that both can be donated."""
    ema = jax.tree.map(jnp.copy, params)
    return TrainState(jnp.asarray(0, jnp.int32), params, ema, optimizer.init(params), history)


@partial(jax.jit, static_argnames=("spec", "shape", "T", "sharding"))
def draw_noise(
    spec: Timesteps,
    key: Key[Array, ""],
    step: ArrayLike,
    history: LossHistory | None,
    shape: tuple[int, ...],
    T: int,
    sharding: jax.sharding.Sharding | None = None,
) -> StepNoise:
    """The noise of a step, from fold_in(key, step).

    Args:
        spec: which t to train on.
        key: of the noise of a run.
        step: the number of updates before it.
        history: what spec has learnt so far.
        shape: of the batch, [B, H, W, C].
        T: number of steps of the process.
        sharding: of the batch, where it is spread over devices.
    """
    key_t, key_q, _ = _keys(key, step)
    t, p_t = spec.draw(key_t, history, shape[0], T)
    noise = StepNoise(t, p_t, jax.random.uniform(key_q, shape))
    return noise if sharding is None else jax.lax.with_sharding_constraint(noise, sharding)


def make_step(
    config: Config,
    predict: Predict,
    optimizer: optax.GradientTransformation,
    sharding: jax.sharding.Sharding | None = None,
) -> Step:
    """The step (state, tr, batch, key, noise=None) -> (state, metrics); it takes over the memory of state.

    All randomness comes from fold_in(key, step), so a restart repeats it. Noise that is not passed is drawn
    by a program of its own, so that passing what `draw_noise` gives changes no bit. Metrics: the loss, the
    means of kl and ce over t in nats per element, and the norm of the gradient before clipping.

    Args:
        config: of the run.
        predict: the network.
        optimizer: the update rule.
        sharding: of the batch and the noise, where they are spread over devices.
    """

    def loss_fn(params: Params, tr: Transition, x0: Array, noise: StepNoise, key: Key[Array, ""]):
        t, p_t, u = noise
        xt = diffusion.q_sample(tr, x0, t, u)
        logits = predict(params, xt, tr.time[t], key)
        loss, kl, ce = config.loss.terms(tr, logits, x0, xt, t, p_t)
        means = {name: weighted_mean(x, p_t, tr.T) for name, x in (("kl", kl), ("ce", ce))}
        return loss, ({"loss": loss, **means}, kl.reshape(kl.shape[0], -1).sum(axis=1))

    @partial(jax.jit, donate_argnums=0)
    def update(state: TrainState, tr: Transition, x0: Array, noise: StepNoise, key: Key[Array, ""]):
        grads, (metrics, kl) = jax.grad(loss_fn, has_aux=True)(
            state.params, tr, x0, noise, _keys(key, state.step)[2]
        )
        updates, opt_state = optimizer.update(grads, state.opt_state, state.params)
        params = optax.apply_updates(state.params, updates)
        ema = optax.incremental_update(params, state.ema, 1.0 - _decay(config.train.ema_decay, state.step))
        metrics["grad_norm"] = optax.tree.norm(grads)
        history = config.timesteps.update(state.history, noise.t, kl)
        return dataclasses.replace(
            state, step=state.step + 1, params=params, ema=ema, opt_state=opt_state, history=history
        ), metrics

    def step(
        state: TrainState,
        tr: Transition,
        x0: Array,
        key: Key[Array, ""],
        noise: StepNoise | None = None,
    ) -> tuple[TrainState, Metrics]:
        if noise is None:
            noise = draw_noise(config.timesteps, key, state.step, state.history, x0.shape, tr.T, sharding)
        return update(state, tr, x0, noise, key)

    return step


def _keys(key: Key[Array, ""], step: ArrayLike) -> Key[Array, " 3"]:
    """Of t, of u and of dropout."""
    return jax.random.split(jax.random.fold_in(key, step), 3)


def _decay(ema_decay: float, step: Array) -> Array:
    """ema_decay, but no more than (1 + step) / (10 + step): a short run is not held back by its start."""
    return jnp.minimum(ema_decay, (1.0 + step) / (10.0 + step))
