"""Training steps against the formulas of losses, clipping, Adam, warm-up, decay and averaging, in NumPy."""

import dataclasses
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import Mesh, NamedSharding, PartitionSpec

import d3pm_jax as d3pm
from d3pm_jax import config as configs
from d3pm_jax.errors import UserError
from d3pm_jax.program.storage import checkpoint
from d3pm_jax.training.diffusion import DiffusionLoss, draw_noise, without_buffers
from d3pm_jax.training.state import init_state
from d3pm_jax.training.step import make_step, make_update
from tests import tiny

W0 = np.array([0.3, -0.2, 0.5])
ADAM = configs.Adam(lr=0.1, b1=0.8, b2=0.9, warmup_steps=2, decay_steps=10, clip=1e-3, weight_decay=0.3)


@pytest.mark.parametrize("dtype", ["complex64", "bfloat16", "float16"])
def test_parameters_that_cannot_be_trained_or_averaged_are_refused(dtype):
    optimizer = optax.sgd(0.1)

    def predict(params, xt, t, key=None):
        raise AssertionError("the network is not called")

    step = make_step(configs.HybridLoss(), configs.LowDiscrepancy(), optimizer, predict, ema_decay=0.9)
    batch = {"x": jnp.zeros((2, 1), jnp.int32)}
    for params, name in ({"v": jnp.zeros(2), "w": jnp.zeros(2, dtype)}, "w"), (jnp.zeros(2, dtype), "params"):
        with pytest.raises(ValueError, match=f"^{name} is a parameter of {dtype}, "):
            step(init_state(params, optimizer), d3pm.uniform(d3pm.cosine(10), 3), batch, jax.random.key(0))


@pytest.mark.usefixtures("x64")
def test_steps_follow_the_formulas():
    """The network is three logits, the same everywhere: finite differences give the gradient.

    One is the bias, the others a kernel: it alone decays.
    """
    base = tiny.get_config()
    train = dataclasses.replace(base.train, ema_decay=0.15)
    config = dataclasses.replace(base, optimizer=ADAM, train=train)
    process = d3pm.uniform(d3pm.cosine(10), 3)
    key = jax.random.key(5)
    x0 = jnp.asarray(np.random.default_rng(0).integers(0, 3, (4, 2, 2, 1)), jnp.int32)

    def predict(params, xt, t, key=None):
        logits = jnp.concatenate([params["kernel"][0], params["bias"]])
        return jnp.broadcast_to(logits, (*xt.shape, 3))

    def flat(params):
        return np.concatenate([params["kernel"][0], params["bias"]])

    optimizer = ADAM.build()
    step = make_step(config.loss, config.timesteps, optimizer, predict, config.train.ema_decay)
    state = init_state({"kernel": jnp.asarray(W0[None, :2]), "bias": jnp.asarray(W0[2:])}, optimizer)
    w = W0.copy()
    ema = W0.copy()
    m = np.zeros(3)
    v = np.zeros(3)
    for i in range(3):
        g = _gradient(config, process, x0, jax.random.fold_in(key, i), w)
        norm = np.sqrt((g**2).sum())
        g = g * min(1.0, ADAM.clip / norm)
        m = 0.8 * m + 0.2 * g
        v = 0.9 * v + 0.1 * g**2
        lr = 0.1 * min(1.0, (i + 1) / 2) * 0.5 * (1 + np.cos(np.pi * i / 10))
        adam = (m / (1 - 0.8 ** (i + 1))) / (np.sqrt(v / (1 - 0.9 ** (i + 1))) + 1e-8)
        w = w - lr * (adam + 0.3 * w * [1, 1, 0])
        decay = min(0.15, (1 + i) / (10 + i))
        ema = decay * ema + (1 - decay) * w
        state, metrics = step(state, process, {"x": x0}, key)
        np.testing.assert_allclose(metrics["grad_norm"], norm, rtol=1e-6)
        np.testing.assert_allclose(metrics["loss"], metrics["kl"] + 0.001 * metrics["ce"], rtol=1e-12)
        np.testing.assert_allclose(flat(state.params), w, rtol=1e-5)
        np.testing.assert_allclose(flat(state.ema), ema, rtol=1e-5)
        assert state.step == i + 1


def _gradient(config, process, x0, key, w):
    """Central differences of the loss at the noise of this step, which a resume must repeat."""
    key_t, key_q, _ = jax.random.split(key, 3)
    t = d3pm.low_discrepancy(jax.random.uniform(key_t), 4, 10)
    xt = d3pm.q_sample(process, x0, t, jax.random.uniform(key_q, x0.shape))

    def loss(w):
        return _mean_loss(w, process, x0, xt, t, config.loss.ce_weight, config.loss.belief)

    return np.array([(loss(w + d) - loss(w - d)) / 2e-6 for d in 1e-6 * np.eye(3)])


@partial(jax.jit, static_argnames=("ce_weight", "belief"))
def _mean_loss(w, process, x0, xt, t, ce_weight, belief):
    logits = jnp.broadcast_to(w, (*x0.shape, 3))
    return d3pm.hybrid(process, logits, x0, xt, t, ce_weight, belief=belief).loss.mean()


@pytest.mark.usefixtures("x64")
def test_the_loss_is_the_weighted_mean_and_labels_reach_the_network():
    """What has weight 0 does not count, even where it costs infinity."""
    process = d3pm.uniform(d3pm.cosine(10), 3)
    key = jax.random.key(5)
    rng = np.random.default_rng(0)
    x0 = jnp.asarray(rng.integers(0, 2, (4, 2)), jnp.int32)
    label = jnp.array([0, 1, 1, 0], jnp.int32)
    weight = jnp.asarray(rng.random((4, 2))).at[1, 0].set(0.0)
    x0 = x0.at[1, 0].set(2)  # which the network rules out

    def predict(params, xt, t, key=None, label=None, weight=None):
        return jnp.broadcast_to(params[label][:, None], (*xt.shape, 3))

    params = jnp.asarray([[0.3, -0.2, -jnp.inf], [0.1, 1.0, -jnp.inf]])
    optimizer = ADAM.build()
    step = make_step(configs.HybridLoss(), configs.LowDiscrepancy(), optimizer, predict, 0.9)
    batch = {"x": x0, "label": label, "weight": weight}
    state, metrics = step(init_state(jnp.copy(params), optimizer), process, batch, key)
    key_t, key_q, _ = jax.random.split(jax.random.fold_in(key, 0), 3)
    t = d3pm.low_discrepancy(jax.random.uniform(key_t), 4, 10)
    xt = d3pm.q_sample(process, x0, t, jax.random.uniform(key_q, x0.shape))
    logits = predict(params, xt, t, None, label)
    hybrid = jax.jit(d3pm.hybrid, static_argnames=("ce_weight", "belief"))
    terms = hybrid(process, logits, x0, xt, t, ce_weight=0.001, belief="leave_one_out")
    assert np.isinf(terms.loss[1, 0])
    counted = np.where(weight > 0, weight * terms.loss, 0.0)
    np.testing.assert_allclose(metrics["loss"], counted.sum() / weight.sum(), rtol=1e-12)
    assert np.isfinite(state.params[:, :2]).all()


def bits(tree):
    return [np.asarray(x) for x in jax.tree.leaves(tree)]


def test_importance_learns_what_it_saw_and_resumes_to_the_same_bits(tmp_path):
    base = tiny.get_config()
    spec = configs.Importance(least_count=0)
    config = dataclasses.replace(base, timesteps=spec, loss=configs.StochasticBound())
    process = d3pm.uniform(d3pm.cosine(4), 3)
    key = jax.random.key(5)
    T = 4
    x0 = jnp.asarray(np.random.default_rng(0).integers(0, 3, (8, 2, 2, 1)), jnp.int32)

    def predict(params, xt, t, key=None):
        return jnp.broadcast_to(params, (*xt.shape, 3))

    @jax.jit
    def kl_at(w, t, u):
        xt = d3pm.q_sample(process, x0, t, u)
        return d3pm.posterior_kl(process, predict(w, xt, t), x0, xt, t)

    optimizer = config.optimizer.build()
    step = make_step(config.loss, config.timesteps, optimizer, predict, config.train.ema_decay)
    state = init_state(jnp.asarray(W0, jnp.float32), optimizer, spec.start(T))
    prior = np.asarray(jax.jit(d3pm.prior_kl)(process, x0)).reshape(8, -1).sum(1)
    for i in range(4):
        before, w = jax.device_get((state.history, state.params))
        state, metrics = step(state, process, {"x": x0}, key)
        if i == 1:
            checkpoint.save_checkpoint(tmp_path, 2, state, keep=1)
        key_t, key_q, _ = jax.random.split(jax.random.fold_in(key, i), 3)
        p = np.sqrt(before.mean_square + 1e-10) + 1e-4
        p[0] = p[1]
        if (before.counts > 0).all():
            p = p / p.sum()
        else:
            p = np.full(T, 1 / T)
        t = np.searchsorted(np.cumsum(p), jax.random.uniform(key_t, (8,)), side="right") + 1
        kl = kl_at(w, jnp.asarray(t), jax.random.uniform(key_q, x0.shape))
        sums = np.asarray(kl).reshape(8, -1).sum(1)
        np.testing.assert_allclose(metrics["loss"], (sums / p[t - 1] + prior).mean(), rtol=1e-5)
        np.testing.assert_allclose(metrics["kl"], (sums / 4 / p[t - 1] / T).mean(), rtol=1e-5)
        np.testing.assert_array_equal(state.history.counts, before.counts + np.bincount(t, minlength=5)[1:])
    assert (state.history.counts > 0).all()
    assert len(np.unique(state.history.mean_square)) == 4
    again = checkpoint.restore_state(tmp_path, 2, state)
    for _ in range(2):
        again, _ = step(again, process, {"x": x0}, key)
    for a, b in zip(bits(again), bits(state), strict=True):
        np.testing.assert_array_equal(a, b)


def test_what_parts_of_ones_own_return_to_a_step_is_checked():
    process = d3pm.uniform(d3pm.cosine(4), K=3)
    x0 = jnp.zeros((2, 5), jnp.int32)
    key = jax.random.key(0)
    state = init_state(jnp.zeros(3), optax.sgd(0.1), d3pm.timesteps.empty_history(4))
    draws = {
        r"draw returns None: return t, integer \[2\], and its probability": None,
        r"draw returns int32 \[2\]: return t": jnp.ones(2, jnp.int32),
        r"draw returns \(float32 \[2\], float32 \[2\]\): return t": (jnp.ones(2), jnp.ones(2)),
        r"draw returns \(int32 \[2\], float\): return t": (jnp.ones(2, jnp.int32), 0.25),
        r"draw returns \(int32 \[\], float32 \[\]\): return t": (jnp.asarray(1), jnp.asarray(0.25)),
    }
    states = {
        r"draw returns None: return x_t, int32 \[2, 5\], like x_0": None,
        r"draw returns float32 \[2, 5\]: return x_t": jnp.ones((2, 5)),
        r"draw returns \(int32 \[2, 5\], int32 \[2, 5\]\): return x_t": (x0, x0),
    }
    number = jnp.zeros((2, 5))
    terms = {
        r"terms returns \(int32 \[2, 5\], int32 \[2, 5\], int32 \[2, 5\]\): return Terms": (x0, x0, x0),
        r"terms returns dict: return Terms\(loss, kl, ce\), each of a float type": {"loss": number},
        r"terms returns \(float32 \[2\], .*of shape \[2, 5\]": (number[:, 0], number, number),
    }

    def predict(params, xt, time, key=None, **extra_inputs):
        return jnp.broadcast_to(params, (*xt.shape, 3))

    @dataclasses.dataclass(frozen=True)
    class Times(configs.LowDiscrepancy):
        drawn: Any = None

        def draw(self, key, history, B, T):
            return self.drawn

        def update(self, history, t, kl):
            return None

    @dataclasses.dataclass(frozen=True)
    class Loss(configs.HybridLoss):
        state: Any = None
        costs: Any = None

        def draw(self, process, x0, t, u):
            return self.state

        def terms(self, process, logits, x0, xt, t, p_t):
            return self.costs

    pair = (jnp.ones(2, jnp.int32), jnp.ones(2))
    objectives = [(message, (pair, x0, costs)) for message, costs in terms.items()]
    objectives += [(message, (pair, xt, None)) for message, xt in states.items()]
    objectives += [(message, (drawn, None, None)) for message, drawn in draws.items()]
    objectives.append((r"update returns None: return what start\(T\) returned", (pair, x0, (number,) * 3)))
    for message, (drawn, xt, costs) in objectives:
        loss = DiffusionLoss(Loss(state=xt, costs=costs), Times(drawn), without_buffers(predict))
        step = make_update(loss, optax.sgd(0.1), ema_decay=0.9)

        def take_step(times, step):
            noise = draw_noise.__wrapped__(times, key, 0, None, x0.shape, 4)
            return step(state, process, {"x": x0}, noise, key)

        with pytest.raises(UserError, match=message):
            jax.eval_shape(partial(take_step, Times(drawn), step))


@pytest.mark.parametrize("axes", [(), ("fsdp",)])
def test_accelerators_lay_gradients_out_as_parameters(axes):
    """Where devices hold parts of them, a constraint would gather them."""
    process = d3pm.uniform(d3pm.cosine(4), K=4)
    x0 = jnp.zeros((2, 5), jnp.int32)
    key = jax.random.key(0)
    optimizer = optax.sgd(0.1)
    state = init_state(jnp.zeros(4), optimizer, d3pm.timesteps.empty_history(4))
    mesh = Mesh(np.array(jax.devices()), ("fsdp",))
    whole = NamedSharding(mesh, PartitionSpec())
    layout = jax.tree.map(lambda _: whole, state)
    layout = dataclasses.replace(layout, params=NamedSharding(mesh, PartitionSpec(*axes)))

    def predict(params, xt, time, key=None):
        return jnp.broadcast_to(params, (*xt.shape, 4))

    times = configs.LowDiscrepancy()
    loss = DiffusionLoss(configs.HybridLoss(), times, without_buffers(predict))
    step = make_update(loss, optimizer, ema_decay=0.9, layout=layout)
    noise = draw_noise.__wrapped__(times, key, 0, None, x0.shape, 4)
    traced = step.trace(state, process, {"x": x0}, noise, key)
    for platform, constraints in ("cuda", int(not axes)), ("cpu", 0):
        text = traced.lower(lowering_platforms=(platform,)).as_text()
        assert text.count("LayoutConstraint") == constraints
