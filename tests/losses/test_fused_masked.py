"""The fused form of masked processes where the loss is infinite."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import d3pm_jax as d3pm
from tests.processes.odd import PROCESSES

pytestmark = pytest.mark.filterwarnings("ignore:x_T still depends")


def test_an_infinite_loss_has_gradient_zero_for_masked_processes_too():
    process = PROCESSES["masked gaussian"]()
    logits = jnp.zeros((1, 7)).at[0, 0].set(-jnp.inf)
    x0 = jnp.array([0])
    xt = jnp.array([6])
    t = jnp.array(1)
    value, gradient = jax.jit(jax.value_and_grad(lambda x: d3pm.posterior_kl(process, x, x0, xt, t).sum()))(
        logits
    )
    assert value == np.inf
    np.testing.assert_array_equal(gradient, 0.0)
