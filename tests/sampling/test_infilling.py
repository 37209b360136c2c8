"""Chains in which some elements are known."""

import jax
import jax.numpy as jnp
import numpy as np

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


@jax.jit
def infilled(x0, known):
    return sampling.sample_infill(jax.random.key(1), network, PROCESS, x0, known, record=(0, 2, 5))


def test_what_is_known_stays_and_without_it_nothing_changes():
    known = jnp.asarray(np.random.default_rng(7).random((MANY, L)) < 0.5)
    states = np.asarray(infilled(jnp.asarray(X0), known).states)
    assert np.all(np.where(known, states == X0, True))
    assert np.all(states[0] < K - 1)
    assert np.all(np.where(known, True, states[2] == K - 1))
    sampled = jax.jit(lambda: d3pm.sample(jax.random.key(1), network, PROCESS, (MANY, L)).x0)()
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
