"""Specs of the spread of t, and the weights that go with it."""

import jax
import jax.numpy as jnp
import numpy as np

from d3pm_jax import config as configs, losses


def test_uniform_steps_of_their_own_weigh_every_example_the_same():
    spec = configs.Independent()
    t, p_t = spec.draw(jax.random.key(0), None, 500, 7)
    assert set(np.asarray(t)) == set(range(1, 8))
    x = jnp.arange(1000.0).reshape(500, 2)
    np.testing.assert_allclose(losses.mean_over_steps(x, p_t, 7), x.mean(), rtol=1e-6)
