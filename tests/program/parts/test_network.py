"""The network of a run with the head of its config."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

import d3pm_jax as d3pm
from d3pm_jax import config as configs
from d3pm_jax.config.head import make_logits
from d3pm_jax.program.parts import network
from tests import tiny


def test_the_head_of_a_config_centres_on_x_t():
    """At first the network gives 0, so loc = tanh(x_t in [-1, 1]) and log_scale = 0."""
    base = tiny.get_config()
    config = dataclasses.replace(base, head=configs.LogisticHead())
    functions = network.split_network(config, tiny.DIGITS, config.process.build(), extra_mask=16)
    xt = jax.random.randint(jax.random.key(1), (2, 8, 8, 1), 0, 17)
    shapes = jax.eval_shape(
        lambda k: functions.predict(functions.init(k), xt, jnp.array([1, 10])), jax.random.key(0)
    )
    logits = make_logits(config.head, jnp.zeros((*xt.shape, 2)), xt, 17, functions.extra_mask)
    loc = np.tanh(np.asarray(xt) / 8 - 1.0)
    expected = d3pm.logistic(jnp.asarray(loc, jnp.float32), jnp.zeros(xt.shape), 17)
    assert logits.shape == shapes.shape == (2, 8, 8, 1, 17)
    np.testing.assert_allclose(logits[..., :16], expected[..., :16], rtol=1e-5)
    assert np.all(np.isneginf(logits[..., 16]))
