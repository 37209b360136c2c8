"""The truncated logistic head against its formula in 50 digits."""

import itertools
from decimal import Context, Decimal, localcontext

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import d3pm_jax as d3pm
from d3pm_jax import config as configs

LOC = np.float32([-1.5, -1.0, -0.7, -0.003, 0.0, 0.3337, 0.999, 1.5])
LOG_SCALE = np.float32([-7.0, -3.3, -0.1, 0.0, 1.7, 7.0])

pytestmark = pytest.mark.optimised


def every_pair(loc, log_scale):
    """Every location with every scale, [N] both."""
    return [x.reshape(-1) for x in np.meshgrid(loc, log_scale)]


def by_formula(loc, log_scale, K):
    """log(sigmoid(b) - sigmoid(a)) to the digits of a float64."""
    with localcontext(Context(prec=60, Emin=-999999, Emax=999999)):
        inverse = (2 - Decimal(float(log_scale))).exp()
        unit = Decimal(1)

        def sigmoid(edge):
            return unit / (unit + (-(edge - Decimal(float(loc))) * inverse).exp())

        ends = [sigmoid(Decimal(2 * j - K) / (K - 1)) for j in range(K + 1)]
        return [float((b - a).ln()) if b > a else None for a, b in itertools.pairwise(ends)]


@pytest.mark.parametrize("K", [2, 17])
def test_logits_are_those_of_the_formula(K):
    """Where the difference of the sigmoids is not lost even in 60 digits."""
    loc, log_scale = every_pair(LOC, LOG_SCALE)
    actual = np.asarray(jax.jit(d3pm.logistic, static_argnums=2)(loc, log_scale, K), np.float64)
    expected = np.array([by_formula(*x, K) for x in zip(loc, log_scale, strict=True)], float)
    resolved = np.isfinite(expected)
    assert resolved.mean() > 0.8
    error = np.abs(actual - expected) / np.maximum(1, np.abs(expected))
    assert error[resolved].max() < 1e-6


@pytest.mark.parametrize("K", [2, pytest.param(17, marks=pytest.mark.slow), 256])
def test_float32_keeps_the_digits_that_the_official_formula_loses(K):
    loc, log_scale = every_pair(LOC, LOG_SCALE)
    ours = np.asarray(jax.jit(d3pm.logistic, static_argnums=2)(loc, log_scale, K))
    assert ours.dtype == np.float32
    with jax.enable_x64(True):
        exact = np.asarray(d3pm.logistic(*(jnp.asarray(x, jnp.float64) for x in (loc, log_scale)), K))
    error = np.abs(ours - exact) / np.maximum(1, np.abs(exact))
    assert error.max() < 1e-6
    centres = np.linspace(-1, 1, K, dtype=np.float32) - loc[:, None]
    half = np.float32(1 / (K - 1))
    inverse = np.exp(-(log_scale[:, None] - 2))
    low = jax.nn.log_sigmoid(inverse * (centres - half))
    high = jax.nn.log_sigmoid(inverse * (centres + half))
    official = np.asarray(high + jnp.log1p(-jnp.exp(low - high) + 1e-6))
    moderate = exact > -8  # not where its 1e-6 is meant to change the value
    assert K == 2 or (np.abs(official - exact) / np.maximum(1, np.abs(exact)))[moderate].max() > 1e-5


def test_extreme_values_have_finite_gradients_and_a_distribution():
    loc, log_scale = every_pair(np.float32([-1e3, -1.0, 0.0, 1e3]), np.float32([-60.0, 60.0]))

    def cross_entropy(loc, log_scale):
        return -d3pm.log_prob(d3pm.logistic(loc, log_scale, 256), jnp.full(loc.shape, 255)).sum()

    value, gradients = jax.jit(jax.value_and_grad(cross_entropy, (0, 1)))(loc, log_scale)
    assert np.isfinite(value)
    assert all(np.isfinite(g).all() for g in gradients)
    wide = jax.nn.softmax(d3pm.logistic(jnp.zeros(1), jnp.full(1, 60.0), 4))
    np.testing.assert_allclose(wide, 0.25, rtol=1e-6)


def test_residual_logistic_refuses_what_it_cannot_scale():
    with pytest.raises(ValueError, match=r"K = 1, outside 2\.\."):
        d3pm.heads.residual_logistic(jnp.zeros((3, 2)), jnp.zeros(3, jnp.int32), 1)
    with pytest.raises(ValueError, match=r"xt contains 7, outside 0\.\.3"):
        d3pm.heads.residual_logistic(jnp.zeros((1, 2)), jnp.array([7]), 4)


@pytest.mark.parametrize("head", [configs.LogisticHead(), configs.LogisticHead(input_range=(0.0, 255.0))])
def test_outputs_of_16_bits_start_from_every_category(head):
    """bfloat16 has 8 digits: where x_t is among 256 takes more."""
    xt = jnp.arange(256)
    output = jnp.stack([jnp.zeros(256), jnp.full(256, -4.0)], axis=-1)
    expected = head.logits(output, xt, 256)
    np.testing.assert_array_equal(head.logits(output.astype(jnp.bfloat16), xt, 256), expected)
    if head.input_range is None:
        np.testing.assert_array_equal(
            d3pm.heads.residual_logistic(output.astype(jnp.bfloat16), xt, 256),
            d3pm.heads.residual_logistic(output, xt, 256),
        )
