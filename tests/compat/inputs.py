"""What the comparisons with other programs share: inputs, and calls that are compiled once."""

from functools import reduce

import jax
import jax.numpy as jnp
import numpy as np

import d3pm_jax as d3pm
from d3pm_jax import compat

T = 10
BETA = np.linspace(0.2, 1.0, T)
# The examples of the recorded numbers, with K = 4.
X0 = np.array([[0, 1, 2], [3, 3, 1]])
XT = np.array([[0, 2, 2], [1, 3, 0]])

vb_bits, posterior_kl, prior_kl = map(jax.jit, (compat.vb_bits, d3pm.posterior_kl, d3pm.prior_kl))


def i32(x):
    return jnp.asarray(x, jnp.int32)


def product(Q):
    return reduce(np.matmul, Q, np.eye(Q.shape[-1]))


def inputs(K, seed=0):
    """x0, x_t [8, 3] and logits, which are numbers of float32."""
    rng = np.random.default_rng(seed)
    logits = (2 * rng.normal(size=(8, 3, K))).astype(np.float32).astype(np.float64)
    return rng.integers(0, K, (8, 3)), rng.integers(0, K, (8, 3)), logits


def probe(t, x, K, scale=1.0):
    """Logits of x_0 that the programs were given when numbers were recorded; t as that program counts."""
    return jnp.asarray(scale * np.cos(1.7 * t + (np.arange(K) + 1) * (x[..., None] + 1)))
