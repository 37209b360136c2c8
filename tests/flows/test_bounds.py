"""Bounds lie below the probability that quadrature gives, and their weights are probabilities on average."""

import jax
import jax.numpy as jnp
import numpy as np
from scipy.special import logsumexp

from d3pm_jax import flows

MATRIX = np.array([[0.8, -0.6, 0.2], [0.5, 0.9, -0.4], [0.1, 0.3, 1.1]])


def log_density(v):
    """log p(v) of a flow that is no identity, v [N, K]: z = W coupling(v) is standard normal."""
    K = v.shape[-1]

    def condition(fixed):
        weights = 0.7 * jnp.sin(jnp.arange(1.0, (K - 1) * 8 + 1))[None]
        return (jnp.tanh(fixed) @ weights).reshape(len(fixed), K - 1, 8)

    z, log_det = flows.coupling(condition, v, 1, flows.mixture_affine)
    z, log_det_of_matrix = flows.linear(z, jnp.asarray(MATRIX[:K, :K], v.dtype))
    return jnp.sum(jax.scipy.stats.norm.logpdf(z), axis=-1) + log_det + log_det_of_matrix


@jax.jit
def log_weights_of(x, noise):
    """log p(v) - log q(v | x) of noise [n, N, K], q the softplus threshold of a normal."""
    u = 1.5 * noise + 0.5 * jax.nn.one_hot(x, noise.shape[-1])[None]
    log_q = jax.scipy.stats.norm.logpdf(noise).sum(axis=-1) - noise.shape[-1] * jnp.log(1.5)
    v, log_det = flows.softplus_threshold(u, jnp.broadcast_to(x, noise.shape[:-1]))
    log_p = log_density(v.reshape(-1, v.shape[-1])).reshape(log_q.shape)
    return log_p - (log_q - log_det)


def test_importance_weights_sum_to_1_over_all_x(x64):
    """K = 3, L = 1: sum over x of E[exp(log weight)] = sum over x of P(x)."""
    n, K = 20_000, 3
    noise = np.random.default_rng(0).normal(size=(n, K, K))
    log_weights = np.asarray(log_weights_of(jnp.arange(K), jnp.asarray(noise)))
    probabilities = np.exp(flows.importance_bound(jnp.asarray(log_weights)))
    error = np.sqrt(np.sum(np.var(np.exp(log_weights), axis=0) / n))
    assert error < 0.01
    assert abs(probabilities.sum() - 1) < 4 * error
    assert probabilities.min() > 0.05


def test_bounds_lie_below_the_exact_likelihood(x64):
    """K = 2: P(x) is the integral of p(v) over the half of the plane where argmax v = x."""
    # Midpoints in the sum and the difference of the two numbers, of which the sign says which is larger.
    total, difference = (np.linspace(-end, end, 401)[1:] - end / 400 for end in (40.0, 30.0))
    v_0 = (total[:, None] + difference) / 2
    v_1 = (total[:, None] - difference) / 2
    grid = np.stack([v_0.ravel(), v_1.ravel()], axis=-1)
    density = np.exp(jax.jit(log_density)(jnp.asarray(grid)))
    cell = (total[1] - total[0]) * (difference[1] - difference[0]) / 2
    x_of_grid = grid.argmax(axis=-1)
    exact = np.array([density[x_of_grid == x].sum() * cell for x in (0, 1)])
    np.testing.assert_allclose(exact.sum(), 1, rtol=0, atol=1e-4)

    n = 20_000
    noise = np.random.default_rng(1).normal(size=(n, 2, 2))
    log_weights = log_weights_of(jnp.arange(2), jnp.asarray(noise))  # [n, 2]
    elbo = np.mean(log_weights, axis=0)
    error = np.std(log_weights, axis=0) / np.sqrt(n)
    assert np.all(elbo < np.log(exact) - 10 * error)

    # Bounds of 16 draws lie between, that of all draws at the end.
    of_16 = log_weights.reshape(16, -1)  # [16, n / 16 * 2]
    of_16 = np.asarray(flows.importance_bound(of_16)).reshape(-1, 2).mean(axis=0)
    assert np.all(of_16 > elbo + 10 * error)
    assert np.all(of_16 < np.log(exact) + error)
    relative_error = np.std(np.exp(log_weights), axis=0) / np.sqrt(n) / exact
    of_all = flows.importance_bound(log_weights)
    assert np.all(np.abs(of_all - np.log(exact)) < 4 * relative_error + 1e-4)
    assert relative_error.max() < 0.02


def test_the_bound_is_that_of_numpy():
    rng = np.random.default_rng(2)
    log_weights = (rng.normal(size=(7, 5)) * 20 + np.array([0, 0, 1e4, -1e4, 300])).astype(np.float32)
    log_weights[2:, 0] = -np.inf
    log_weights[:, 1] = -np.inf  # x is impossible
    bound = flows.importance_bound(jnp.asarray(log_weights))
    right = logsumexp(log_weights.astype(np.float64), axis=0) - np.log(7)
    np.testing.assert_allclose(bound, right, rtol=1e-6)
    # Of one draw it is the ELBO.
    np.testing.assert_array_equal(flows.importance_bound(jnp.asarray(log_weights[:1])), log_weights[0])
