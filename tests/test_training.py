"""One training step against the formulas of clipping, Adam, warm-up, decay and averaging, in NumPy."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import d3pm_jax as d3pm
from d3pm_jax import config as configs
from d3pm_jax.training.step import build_optimizer, init_state, make_step
from tests import tiny

W0 = np.array([0.3, -0.2, 0.5])
ADAM = configs.Adam(lr=0.1, b1=0.8, b2=0.9, warmup_steps=2, decay_steps=10, clip=1e-3)


@pytest.mark.usefixtures("x64")
def test_steps_follow_the_formulas():
    """The network is three logits, the same everywhere: finite differences give the gradient."""
    base = tiny.get_config()
    train = dataclasses.replace(base.train, ema_decay=0.15)
    config = dataclasses.replace(base, optimizer=ADAM, train=train)
    tr, key = d3pm.uniform(d3pm.cosine(10), 3), jax.random.key(5)
    x0 = jnp.asarray(np.random.default_rng(0).integers(0, 3, (4, 2, 2, 1)), jnp.int32)

    def predict(params, xt, t, key=None):
        return jnp.broadcast_to(params, (*xt.shape, 3))

    optimizer = build_optimizer(ADAM)
    step = make_step(config, predict, optimizer)
    state = init_state(jnp.asarray(W0), optimizer)
    w, ema, m, v = W0.copy(), W0.copy(), np.zeros(3), np.zeros(3)
    for i in range(3):
        g = _gradient(config, tr, x0, jax.random.fold_in(key, i), w)
        norm = np.sqrt((g**2).sum())
        g = g * min(1.0, ADAM.clip / norm)
        m, v = 0.8 * m + 0.2 * g, 0.9 * v + 0.1 * g**2
        lr = 0.1 * min(1.0, (i + 1) / 2) * 0.5 * (1 + np.cos(np.pi * i / 10))
        w = w - lr * (m / (1 - 0.8 ** (i + 1))) / (np.sqrt(v / (1 - 0.9 ** (i + 1))) + 1e-8)
        decay = min(0.15, (1 + i) / (10 + i))
        ema = decay * ema + (1 - decay) * w
        state, metrics = step(state, tr, x0, key)
        np.testing.assert_allclose(metrics["grad_norm"], norm, rtol=1e-6)
        np.testing.assert_allclose(metrics["loss"], metrics["kl"] + 0.001 * metrics["ce"], rtol=1e-12)
        np.testing.assert_allclose(state.params, w, rtol=1e-5)
        np.testing.assert_allclose(state.ema, ema, rtol=1e-5)
        assert state.step == i + 1


def _gradient(config, tr, x0, key, w):
    """Central differences of the loss at the noise of this step, which a resume must repeat."""
    key_t, key_q, _ = jax.random.split(key, 3)
    t = d3pm.low_discrepancy(jax.random.uniform(key_t), 4, 10)
    xt = d3pm.q_sample(tr, x0, t, jax.random.uniform(key_q, x0.shape))

    def loss(w):
        logits = jnp.broadcast_to(jnp.asarray(w), (*x0.shape, 3))
        return float(d3pm.hybrid(tr, logits, x0, xt, t, config.loss.ce_weight).loss.mean())

    return np.array([(loss(w + d) - loss(w - d)) / 2e-6 for d in 1e-6 * np.eye(3)])
