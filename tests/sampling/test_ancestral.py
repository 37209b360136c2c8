"""Chains: the same in any batch, and what they say of a network that breaks down."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import d3pm_jax as d3pm


def test_samples_do_not_depend_on_the_batch():
    process = d3pm.uniform(d3pm.cosine(20), 7)
    key = jax.random.key(0)

    def network(xt, t):
        return 2.0 * jax.nn.one_hot(xt, 7)

    @partial(jax.jit, static_argnums=(0, 1))
    def run(n, first):
        chain = d3pm.sample(key, d3pm.Denoiser(process, network), (n, 3, 2), first=first)
        return chain, d3pm.estimate_bound(key, network, process, chain.x0, first + jnp.arange(n))

    whole, all_at_once = run(6, 0)
    part, later = run(2, 4)
    np.testing.assert_array_equal(whole.x0[4:], part.x0)
    np.testing.assert_allclose(all_at_once.steps[:, 4:], later.steps, rtol=1e-5, atol=1e-6)


def test_in_a_shorter_chain_the_network_is_told_the_steps_that_were_kept():
    """It says that x_0 is t."""
    process = d3pm.respace(d3pm.uniform(d3pm.cosine(20), 21), [6, 13, 20])
    key = jax.random.key(0)

    def network(xt, t):
        return 1e4 * jax.nn.one_hot(jnp.broadcast_to(t[:, None], xt.shape), 21)

    def said(process, logits, x0, xt, t):
        return jnp.argmax(logits, axis=-1).astype(float)

    @jax.jit
    def run(process):
        x0 = d3pm.sample(key, d3pm.Denoiser(process, network), (2, 3)).x0
        return x0, d3pm.estimate_bound(key, network, process, x0, jnp.arange(2), said)

    x0, bound = run(process)
    np.testing.assert_array_equal(x0, 6)
    np.testing.assert_array_equal(bound.steps, 3 * np.array([[6, 6], [13, 13], [20, 20]]))


@pytest.mark.parametrize(
    "process",
    ["uniform", *(pytest.param(name, marks=pytest.mark.slow) for name in ("absorbing", "gaussian"))],
    indirect=True,
)
def test_a_network_that_breaks_down_is_noticed(process):
    def network(xt, t):
        return jnp.full((*xt.shape, 7), jnp.nan)

    @jax.jit
    def draw(process):
        return d3pm.sample(jax.random.key(0), d3pm.Denoiser(process, network), (2, 3))

    chain = draw(process)
    assert chain.failed_at == 20


def test_recorded_steps_are_checked():
    process = d3pm.uniform(d3pm.cosine(20), 7)
    denoiser = d3pm.Denoiser(process, lambda x, t: jax.nn.one_hot(x, 7))
    with pytest.raises(ValueError, match=r"record = \[21\]"):
        d3pm.sample(jax.random.key(0), denoiser, (1, 1), record=[21])


def test_a_shape_that_jit_traces_is_told_to_be_static():
    process = d3pm.uniform(d3pm.cosine(4), 3)
    denoiser = d3pm.Denoiser(process, lambda xt, t: jnp.zeros((*xt.shape, 3)))

    def sample(key, shape):
        return d3pm.sample(key, denoiser, shape)

    message = r"shape\[0\] is traced by jit, .* mark it as static, jax.jit\(f, static_argnames='shape'\)"
    with pytest.raises(TypeError, match=message):
        jax.jit(sample)(jax.random.key(0), (2, 3))
    with pytest.raises(ValueError, match=r"shape = \(\): it must be \(B, \*S\)"):
        sample(jax.random.key(0), ())
