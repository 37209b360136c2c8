"""The product of logs with a table, against the sum in log space in float64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from d3pm_jax import numerics

pytestmark = pytest.mark.optimised


@pytest.mark.parametrize("scale", [1.0, 100.0, 1e4, 1e30])
@pytest.mark.parametrize("x64_on", [False, True])
def test_log_matmul_equals_the_sum_in_log_space(scale, x64_on):
    rng = np.random.default_rng(0)
    log_p = np.float32(rng.normal(size=(3, 7, 5)) * scale)
    log_p[0, 0, 1] = -np.inf
    log_p[0, 1] = -np.inf
    table = rng.uniform(size=(3, 5, 6)) * (rng.uniform(size=(3, 5, 6)) < 0.6)
    table[1] = np.where(table[1] > 0, 1e-23, 0)  # as small as float32 tables get
    table = np.float32(table)
    with np.errstate(divide="ignore", invalid="ignore"):
        terms = np.float64(log_p)[..., None] + np.log(np.float64(table))[:, None]
        top = terms.max(-2, keepdims=True)
        weights = np.where(top == -np.inf, 0, np.exp(terms - np.where(top == -np.inf, 0, top)))
        expected = np.log(weights.sum(-2)) + top[..., 0, :]
    g = rng.normal(size=expected.shape)
    share = np.divide(weights, weights.sum(-2, keepdims=True), out=np.zeros_like(weights), where=weights > 0)
    with jax.enable_x64(x64_on):
        dtype = jnp.float64 if x64_on else jnp.float32
        args = jnp.asarray(log_p, dtype), jnp.asarray(table, dtype)
        actual, pull = jax.vjp(jax.jit(lambda x: numerics.log_matmul(x, args[1])), args[0])
        (gradient,) = pull(jnp.asarray(g, dtype))
    enters = np.abs(terms[np.isfinite(terms)]).max()  # a sum of logs is as exact as its largest term
    tolerance = 4 * float(jnp.finfo(dtype).eps) * max(1.0, enters)
    np.testing.assert_allclose(actual, expected, rtol=1e-14, atol=tolerance)
    if tolerance < 1e-2:
        np.testing.assert_allclose(gradient, (g[..., None, :] * share).sum(-1), atol=tolerance)
    assert not np.any(np.isnan(gradient))
