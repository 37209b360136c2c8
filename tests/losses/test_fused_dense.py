"""The fused form of dense processes steps aside where floats end."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import d3pm_jax as d3pm
from d3pm_jax.losses import fused_dense, variational

pytestmark = pytest.mark.filterwarnings("ignore:x_T still depends")


def test_the_fused_form_of_dense_processes_is_the_definition_and_steps_aside_where_floats_end():
    process = d3pm.gaussian(d3pm.linear(100, 1e-3, 0.2), 64)
    rng = np.random.default_rng(0)
    x0 = jnp.asarray(rng.integers(0, 64, (4, 50)), jnp.int32)
    t = jnp.array([1, 2, 30, 100])
    u = jnp.asarray(rng.random((4, 50)), jnp.float32)
    normal = jnp.asarray(3 * rng.normal(size=(4, 50, 64)), jnp.float32)

    @jax.jit
    def sums_and_gradients(process, x):
        xt = d3pm.q_sample(process, x0, t, u)

        def differentiate(kl):
            return jax.value_and_grad(lambda x: kl(process, x, x0, xt, t).sum())(x)

        is_used = ~jnp.isnan(fused_dense.kl_from_weights(process, x, x0, xt, t)).any()
        return is_used, differentiate(d3pm.posterior_kl), differentiate(variational.posterior_kl_definition)

    for x, holds in ((normal, True), (normal * 1e3, False)):
        is_used, fast, expected = sums_and_gradients(process, x)
        assert is_used == holds
        np.testing.assert_allclose(fast[0], expected[0], rtol=1e-5)
        np.testing.assert_allclose(fast[1], expected[1], atol=2e-6)
