"""Schedules in continuous time against their formulas."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from d3pm_jax.schedules import continuous

SCHEDULES = {
    "linear": continuous.linear,
    "cosine": continuous.cosine,
    "cubic": lambda u: continuous.polynomial(u, 3.0),
}
ALPHA = {"linear": lambda u: 1 - u, "cosine": lambda u: np.cos(np.pi / 2 * u), "cubic": lambda u: 1 - u**3}
BETA = {"linear": lambda u: u, "cosine": lambda u: 2 * np.sin(np.pi / 4 * u) ** 2, "cubic": lambda u: u**3}


@pytest.mark.parametrize("name", SCHEDULES)
def test_schedules_keep_the_digits_of_both_parts(name):
    """In float32 against float64, down to a time of 1e-4 and up to 1 - 2^-12."""
    time = np.float32([0.0, 1e-4, 0.01, 0.3, 0.9, 1 - 2.0**-12, 1.0])
    actual = SCHEDULES[name](jnp.asarray(time))
    alpha = ALPHA[name](time.astype(np.float64))
    np.testing.assert_allclose(actual.alpha, alpha, rtol=2e-6, atol=1e-16)
    np.testing.assert_allclose(actual.beta, BETA[name](time.astype(np.float64)), rtol=1e-6)
    rate = jax.vmap(jax.grad(lambda u: SCHEDULES[name](u).beta))(jnp.asarray(time[1:-1]))
    h = 1e-6
    u = time[1:-1].astype(np.float64)
    np.testing.assert_allclose(
        rate, (ALPHA[name](u - h) - ALPHA[name](u + h)) / (2 * h), rtol=1e-5, atol=1e-8
    )
