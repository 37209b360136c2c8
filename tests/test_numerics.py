"""Log-space care at the points where it matters, against exact arithmetic."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from d3pm_jax import drawing, numerics

INF = jnp.inf

pytestmark = pytest.mark.usefixtures("optimised")


def grad_of(f):
    """The gradient of the sum of f, of the finite entries only."""
    return jax.grad(lambda *a: jnp.sum(jnp.where(jnp.isfinite(f(*a)), f(*a), 0.0)))


def test_log_add_and_log_sum_at_probability_zero():
    a, b = jnp.array([-INF, -INF, 0.0, -3.0]), jnp.array([-INF, 1.0, -INF, -3.0])
    expected = [-INF, 1.0, 0.0, -3 + math.log(2)]
    np.testing.assert_allclose(numerics.log_add(a, b), expected, rtol=1e-6)
    np.testing.assert_allclose(numerics.log_sum(jnp.stack([a, b], -1)), expected, rtol=1e-6)
    np.testing.assert_allclose(jax.grad(lambda x: numerics.log_add(x, b)[0])(a), 0.0)
    np.testing.assert_allclose(grad_of(lambda x: numerics.log_add(x, b))(a), [0, 0, 1, 0.5], rtol=1e-6)
    np.testing.assert_allclose(jax.grad(lambda x: numerics.log_sum(x)[0])(jnp.full((1, 3), -INF)), 0.0)


def test_log_normalize_keeps_an_impossible_row():
    x = jnp.array([[-INF, -INF], [0.0, -INF], [1e4, -1e4]])
    np.testing.assert_array_equal(numerics.log_normalize(x), [[-INF, -INF], [0, -INF], [0, -2e4]])
    assert np.all(np.isfinite(grad_of(numerics.log_normalize)(x)))


def test_kl_conventions():
    half = math.log(0.5)
    q = jnp.array([[0.0, -INF], [half, half], [-INF, -INF], [half, half], [0.0, -INF]])
    p = jnp.array([[half, half], [half, half], [half, half], [0.0, -INF], [-1e4, 0.0]])
    np.testing.assert_allclose(numerics.kl(q, p), [math.log(2), 0, 0, INF, 1e4], rtol=1e-6)
    gradient = jax.grad(lambda p: jnp.sum(numerics.kl(q, p)))(p)
    assert not np.any(np.isnan(gradient))
    np.testing.assert_array_equal(gradient[2], 0)


def test_kl_keeps_the_digits_of_a_small_divergence(x64):
    rng = np.random.default_rng(0)
    q = rng.dirichlet(np.ones(256))
    p = q * (1 + 1e-3 * rng.normal(size=256))
    p /= p.sum()
    exact = math.fsum(q * np.log(q / p))
    found = numerics.kl(jnp.log(q).astype(jnp.float32), jnp.log(p).astype(jnp.float32))
    plain = jnp.sum(jnp.float32(q) * (jnp.log(q).astype(jnp.float32) - jnp.log(p).astype(jnp.float32)))
    assert abs(found / exact - 1) < 2e-3  # the inputs are rounded to 5e-7 of 1e-3
    assert abs(plain / exact - 1) > 2e-2  # what the textbook sum makes of the same inputs


@pytest.mark.parametrize("scale", [1.0, 100.0, 1e4, 1e30])
@pytest.mark.parametrize("x64_on", [False, True])
def test_log_matmul_equals_the_sum_in_log_space(scale, x64_on):
    rng = np.random.default_rng(0)
    log_p = np.float32(rng.normal(size=(3, 7, 5)) * scale)
    log_p[0, 0, 1], log_p[0, 1] = -np.inf, -np.inf
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
        found, pull = jax.vjp(jax.jit(lambda x: numerics.log_matmul(x, args[1])), args[0])
        (gradient,) = pull(jnp.asarray(g, dtype))
    enters = np.abs(terms[np.isfinite(terms)]).max()  # a sum of logs is as exact as its largest term
    tolerance = 4 * float(jnp.finfo(dtype).eps) * max(1.0, enters)
    np.testing.assert_allclose(found, expected, rtol=1e-14, atol=tolerance)
    if tolerance < 1e-2:
        np.testing.assert_allclose(gradient, (g[..., None, :] * share).sum(-1), atol=tolerance)
    assert not np.any(np.isnan(gradient))


def test_categorical_is_the_inverse_of_the_cumulative_sum():
    p = jnp.array([0.0, 0.25, 0.0, 0.5, 0.25, 0.0])
    u = jnp.array([0.0, 0.2499, 0.25, 0.7499, 0.75, 1 - 2**-24])
    found = drawing.categorical(jnp.broadcast_to(jnp.log(p) + 7.0, (6, 6)), u)
    np.testing.assert_array_equal(found, [1, 1, 3, 3, 4, 4])
    assert found.dtype == jnp.int32


def test_categorical_never_draws_probability_zero():
    key_p, key_zero, key_u = jax.random.split(jax.random.key(0), 3)
    log_p = jax.random.normal(key_p, (20000, 300)) * 5
    log_p = jnp.where(jax.random.bernoulli(key_zero, 0.9, log_p.shape), -INF, log_p)
    u = jnp.where(jnp.arange(20000) % 2 == 0, 1 - 2**-24, jax.random.uniform(key_u, (20000,)))
    drawn = drawing.categorical(log_p, u)
    assert np.all(np.isfinite(np.take_along_axis(np.asarray(log_p), np.asarray(drawn)[:, None], 1)))


@pytest.mark.parametrize("row", [[-INF, -INF], [jnp.nan, 0.0]])
def test_categorical_marks_what_is_no_distribution(row):
    assert drawing.categorical(jnp.array(row), jnp.asarray(0.5)) == -1
