"""Log-space care at the points where it matters, against exact arithmetic."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from d3pm_jax import numerics

INF = jnp.inf

pytestmark = pytest.mark.optimised


def grad_of(f):
    """The gradient of the sum of f, of the finite entries only."""
    return jax.grad(lambda *a: jnp.sum(jnp.where(jnp.isfinite(f(*a)), f(*a), 0.0)))


def test_log_add_and_log_sum_at_probability_zero():
    a = jnp.array([-INF, -INF, 0.0, -3.0])
    b = jnp.array([-INF, 1.0, -INF, -3.0])
    expected = [-INF, 1.0, 0.0, -3 + math.log(2)]

    @jax.jit
    def run(a, b, nothing):
        values = numerics.log_add(a, b), numerics.log_sum(jnp.stack([a, b], -1))
        at_zero = jax.grad(lambda x: numerics.log_add(x, b)[0])(a)
        of_nothing = jax.grad(lambda x: numerics.log_sum(x)[0])(nothing)
        return values, at_zero, of_nothing, grad_of(lambda x: numerics.log_add(x, b))(a)

    values, at_zero, of_nothing, gradient = run(a, b, jnp.full((1, 3), -INF))
    for actual in values:
        np.testing.assert_allclose(actual, expected, rtol=1e-6)
    np.testing.assert_allclose(at_zero, 0.0)
    np.testing.assert_allclose(of_nothing, 0.0)
    np.testing.assert_allclose(gradient, [0, 0, 1, 0.5], rtol=1e-6)


def test_log_normalize_keeps_an_impossible_row():
    x = jnp.array([[-INF, -INF], [0.0, -INF], [1e4, -1e4]])
    actual, gradient = jax.jit(lambda x: (numerics.log_normalize(x), grad_of(numerics.log_normalize)(x)))(x)
    np.testing.assert_array_equal(actual, [[-INF, -INF], [0, -INF], [0, -2e4]])
    assert np.all(np.isfinite(gradient))


def test_kl_conventions():
    half = math.log(0.5)
    q = jnp.array([[0.0, -INF], [half, half], [-INF, -INF], [half, half], [0.0, -INF]])
    p = jnp.array([[half, half], [half, half], [half, half], [0.0, -INF], [-1e4, 0.0]])
    actual, pull = jax.jit(lambda q, p: jax.vjp(lambda p: numerics.kl(q, p), p))(q, p)
    np.testing.assert_allclose(actual, [math.log(2), 0, 0, INF, 1e4], rtol=1e-6)
    (gradient,) = jax.jit(lambda pull: pull(jnp.ones(5)))(pull)
    assert not np.any(np.isnan(gradient))
    np.testing.assert_array_equal(gradient[2], 0)


def test_kl_keeps_the_digits_of_a_small_divergence(x64):
    rng = np.random.default_rng(0)
    q = rng.dirichlet(np.ones(256))
    p = q * (1 + 1e-3 * rng.normal(size=256))
    p /= p.sum()
    exact = math.fsum(q * np.log(q / p))
    actual = numerics.kl(jnp.log(q).astype(jnp.float32), jnp.log(p).astype(jnp.float32))
    plain = jnp.sum(jnp.float32(q) * (jnp.log(q).astype(jnp.float32) - jnp.log(p).astype(jnp.float32)))
    assert abs(actual / exact - 1) < 2e-3  # the inputs are rounded to 5e-7 of 1e-3
    assert abs(plain / exact - 1) > 2e-2  # what the textbook sum makes of the same inputs


@pytest.mark.usefixtures("x64")
def test_log1mexp_has_no_cliff():
    log_x = np.concatenate([[-1e5, -800.0], np.linspace(-60, 8, 1001) + 1e-4, [1e5]])
    value, gradient = jax.vmap(jax.value_and_grad(numerics.log1mexp))(jnp.asarray(log_x))
    assert np.isfinite(value).all()
    with np.errstate(all="ignore"):
        x = np.exp(log_x)
        expected = np.where(log_x < -35, log_x, np.log(-np.expm1(-x)))
        slope = np.where(log_x < -35, 1.0, np.where(log_x > 6.5, 0.0, x / np.expm1(x)))
    np.testing.assert_allclose(value, expected, rtol=1e-14, atol=1e-16)
    np.testing.assert_allclose(gradient, slope, rtol=1e-13, atol=1e-14)
