"""Chains: the same in any batch, and what they say of a network that breaks down."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import d3pm_jax as d3pm


def test_samples_do_not_depend_on_the_batch():
    process = d3pm.uniform(d3pm.cosine(20), 7)
    key = jax.random.key(0)

    def denoise(xt, t):
        return 2.0 * jax.nn.one_hot(xt, 7)

    whole = d3pm.sample(key, denoise, process, (6, 3, 2))
    part = d3pm.sample(key, denoise, process, (2, 3, 2), start=4)
    np.testing.assert_array_equal(whole.x0[4:], part.x0)
    x0 = whole.x0
    all_at_once = d3pm.estimate_bound(key, denoise, process, x0, jnp.arange(6))
    later = d3pm.estimate_bound(key, denoise, process, x0[4:], jnp.arange(4, 6))
    np.testing.assert_allclose(all_at_once.steps[:, 4:], later.steps, rtol=1e-5, atol=1e-6)


def test_a_network_that_breaks_down_is_noticed(process):
    chain = d3pm.sample(jax.random.key(0), lambda xt, t: jnp.full((*xt.shape, 7), jnp.nan), process, (2, 3))
    assert chain.failed_at == 20


def test_recorded_steps_are_checked():
    process = d3pm.uniform(d3pm.cosine(20), 7)
    with pytest.raises(ValueError, match=r"record = \[21\]"):
        d3pm.sample(jax.random.key(0), lambda x, t: jax.nn.one_hot(x, 7), process, (1, 1), record=[21])
