"""Bounds of examples with weights: padding counts nothing, and figures per dimension are ratios."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import d3pm_jax as d3pm
from d3pm_jax.evaluation import bound
from d3pm_jax.models import Transformer

K = 5
T = 4
L = 6
SHORT = 4


@pytest.mark.usefixtures("x64")
@pytest.mark.filterwarnings("ignore:x_T still depends")
def test_a_padded_example_has_the_bound_of_the_shorter_one():
    """With the same noise where both are: of a transformer that is told the weights."""
    from flax import nnx

    rng = np.random.default_rng(0)
    process = d3pm.uniform(np.array([0.2, 0.3, 0.4, 0.6]), K)
    graphdef, params = nnx.split(Transformer(K, T, width=8, num_layers=1, num_heads=2, rngs=nnx.Rngs(0)))
    params = jax.tree.map(lambda x: jnp.asarray(rng.normal(size=x.shape)), params)
    x0 = rng.integers(0, K, (2, L))
    u = rng.random((T + 1, 2, L))
    ut = rng.random((2, 2))
    weight = (np.arange(L) < SHORT) * np.ones((2, 1))

    @jax.jit
    def bounds(x0, u, weight, seen_weight):
        def denoise(xt, t):
            return nnx.merge(graphdef, params)(xt, t, weight=seen_weight)

        parts = d3pm.all_t_bound(denoise, process, x0, lambda t: u[t], weight=weight)
        return *parts, d3pm.strata_bound(denoise, process, x0, jnp.asarray(ut), lambda t: u[t], weight=weight)

    ones = np.ones((2, SHORT))
    expected = bounds(x0[:, :SHORT], u[..., :SHORT], ones, ones)
    actual = bounds(x0, u, weight, weight)
    assert actual[0].shape == (T, 2)
    for a, b in zip(actual, expected, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-12)
    untold = bounds(x0, u, weight, np.ones((2, L)))
    assert not np.allclose(untold[0], expected[0], rtol=1e-3)


def test_bits_per_dim_are_a_ratio_with_its_error():
    rng = np.random.default_rng(0)
    nats = rng.normal(100, 5, 50)
    same = bound.summarize_bound(nats, 20)
    assert same["bits_per_dim"] == pytest.approx(nats.mean() / 20 / np.log(2))
    assert same["standard_error"] == pytest.approx(nats.std(ddof=1) / 50**0.5 / 20 / np.log(2))
    assert same == pytest.approx(bound.summarize_bound(nats, np.full(50, 20.0)))
    D = rng.integers(1, 30, 50).astype(float)
    exact = bound.summarize_bound(2 * D, D)
    assert exact["bits_per_dim"] == pytest.approx(2 / np.log(2))
    assert exact["standard_error"] == pytest.approx(0, abs=1e-12)
    assert exact["nats_standard_error"] > 1
    assert bound.summarize_bound(nats[:1], 20)["standard_error"] is None
    infinite = bound.summarize_bound(np.append(nats, np.inf), 20)
    assert (infinite["bits_per_dim"], infinite["standard_error"]) == (np.inf, None)
    assert (infinite["nats"], infinite["nats_standard_error"]) == (np.inf, None)
    assert bound.count_elements(np.zeros((3, 2, 4))) == 8
    np.testing.assert_array_equal(
        bound.count_elements(np.zeros((2, 3)), np.array([[1, 1, 0], [1, 0, 0]])), [2, 1]
    )


def test_the_error_of_the_ratio_is_that_of_many_draws():
    rng = np.random.default_rng(1)
    D = rng.integers(1, 30, (2000, 200)).astype(float)
    nats = D * 2 + rng.normal(size=D.shape) * D**0.5
    figures = [bound.summarize_bound(n, d) for n, d in zip(nats, D, strict=True)]
    bits = [x["bits_per_dim"] for x in figures]
    errors = [x["standard_error"] for x in figures]
    assert np.mean(errors) == pytest.approx(np.std(bits), rel=0.06)


def test_parts_of_a_bound_are_per_weighted_element():
    parts = bound.summarize_parts(
        d3pm.likelihood.Bound(np.array([[1.0, 3.0], [2.0, 2.0]]), np.array([0.0, 2.0])), np.array([1.0, 3.0])
    )
    np.testing.assert_allclose(
        [parts["reconstruction"], parts["prior"], *parts["steps"]], np.array([1, 0.5, 1, 1]) / np.log(2)
    )
