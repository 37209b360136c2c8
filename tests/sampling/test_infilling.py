"""Chains in which some elements are known."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import d3pm_jax as d3pm
from d3pm_jax import sampling

# Three categories and a mask.
K = 4
L = 3
MANY = 4000
TABLE = np.random.default_rng(5).normal(size=(K, K, L, K)) * 1.5
PROCESS = d3pm.absorbing(d3pm.reciprocal(5), K, mask_id=K - 1)
X0 = np.random.default_rng(6).integers(0, K - 1, (MANY, L))


def network(xt, t):
    """Logits from the first and the last element, without time."""
    return d3pm.forbid(jnp.asarray(TABLE)[xt[:, 0], xt[:, -1]], K - 1)


DENOISER = d3pm.Denoiser(PROCESS, network)


@jax.jit
def infilled(x0, mask):
    known = sampling.Known(x0, mask)
    return d3pm.sample(jax.random.key(1), DENOISER, (MANY, L), known=known, record=(0, 2, 5))


def test_what_is_known_stays_and_without_it_nothing_changes():
    known = jnp.asarray(np.random.default_rng(7).random((MANY, L)) < 0.5)
    states = np.asarray(infilled(jnp.asarray(X0), known).states)
    assert np.all(np.where(known, states == X0, True))
    assert np.all(states[0] < K - 1)
    assert np.all(np.where(known, True, states[2] == K - 1))
    sampled = jax.jit(lambda: d3pm.sample(jax.random.key(1), DENOISER, (MANY, L)).x0)()
    np.testing.assert_array_equal(infilled(jnp.asarray(X0), jnp.zeros_like(known)).x0, sampled)


def test_the_rest_follows_the_network_given_what_is_known():
    """With one unknown element there is one step that fills it in: its law is that of the network."""
    x0 = np.tile([1, 2, 0], (MANY, 1))
    actual = infilled(jnp.asarray(x0), jnp.asarray(np.tile([True, False, True], (MANY, 1)))).x0[:, 1]
    logits = TABLE[1, 0, 1, : K - 1]
    p = np.exp(logits) / np.exp(logits).sum()
    counts = np.bincount(actual, minlength=K)
    assert counts[K - 1] == 0
    np.testing.assert_array_less(np.abs(counts[:-1] - MANY * p), 4 * np.sqrt(MANY * p * (1 - p)))


def test_what_is_known_out_of_range_is_named_or_gives_minus_1():
    """Where the value is at hand it is named; a program gives -1 at its place, and says that it failed."""
    mask = np.random.default_rng(7).random((MANY, L)) < 0.5
    mask[5] = [False, True, False]
    x0 = X0.copy()
    x0[5, 1] = K
    few = sampling.Known(jnp.asarray(x0[:6]), jnp.asarray(mask[:6]))
    with pytest.raises(ValueError, match=r"known\.x0 contains 4, outside 0\.\.3"):
        d3pm.sample(jax.random.key(1), DENOISER, (6, L), known=few)
    chain = infilled(jnp.asarray(x0), jnp.asarray(mask))
    assert chain.x0[5, 1] == -1
    assert chain.failed_at == -1
    others = np.arange(MANY) != 5
    expected = infilled(jnp.asarray(X0), jnp.asarray(mask)).x0
    np.testing.assert_array_equal(chain.x0[others], expected[others])
