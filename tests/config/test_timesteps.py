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


def test_real_times_by_a_power_have_the_density_that_weighs_them():
    """The mean of (t / T)^2 / (T p_t) is that over even times, 1 / 3; more are early than late."""
    T = 7
    for power in (1.0, 2.0, 3.5):
        t, p_t = configs.RealTimes(power).draw(jax.random.key(0), None, 1000, T)
        np.testing.assert_allclose(jnp.mean((t / T) ** 2 / (T * p_t)), 1 / 3, rtol=2e-3)
        np.testing.assert_allclose(jnp.mean(t <= T / 4), 0.25 ** (1 / power), atol=2e-3)
