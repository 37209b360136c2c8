"""Uniform and absorbing processes: published numbers, small noise, and chains that do not finish."""

import warnings

import jax
import jax.extend.core
import jax.numpy as jnp
import numpy as np
import pytest

import d3pm_jax as d3pm


def i32(*x):
    return jnp.asarray(x, jnp.int32)


@pytest.mark.parametrize(
    ("build", "bits"),
    [
        (lambda: d3pm.uniform(d3pm.linear(1000), 256), 3.0e-7),
        (lambda: d3pm.uniform(d3pm.cosine(1000), 256), 4.5e-10),
        (lambda: d3pm.uniform(d3pm.linear(1000, 0.02, 1.0), 256), 0.0),
        (lambda: d3pm.absorbing(d3pm.reciprocal(1000), 256, 128), 0.0),
    ],
)
def test_published_prior_kl(build, bits, x64):
    actual = d3pm.prior_kl(build(), jnp.arange(256, dtype=jnp.int32)) / np.log(2)
    assert actual.max() == pytest.approx(bits, rel=0.05, abs=1e-16)


def test_tables_keep_small_noise_that_float32_products_lose():
    process = d3pm.uniform(np.append(np.full(1000, 1e-9), 1.0), 4)
    np.testing.assert_allclose(np.exp(process.log_beta_bar[i32(1, 1000)]), [1e-9, 1e-6], rtol=2e-6)


def test_an_absorbing_chain_that_does_not_finish_has_infinite_prior_kl():
    with pytest.warns(UserWarning, match="prior KL is up to inf"):
        process = d3pm.absorbing(np.full(10, 0.1), 5, 4)
    np.testing.assert_array_equal(d3pm.prior_kl(process, i32(0, 4)), [np.inf, 0.0])


@pytest.mark.filterwarnings("ignore:x_T still depends")
def test_noise_too_small_for_float32_is_refused():
    beta = np.append(np.full(9, 1e-19), 1.0)
    with pytest.raises(ValueError, match=r"beta as small as 1e-19 .* use float64"):
        d3pm.uniform(beta, 4)
    with jax.enable_x64(True), warnings.catch_warnings():
        d3pm.uniform(beta, 4)
    d3pm.absorbing(beta, 4, 3)


def test_places_of_fewer_categories_need_an_extra_mask():
    sizes = np.array([2, 3, 5])
    beta = np.array([0.5, 1.0])
    d3pm.absorbing(beta, 6, 5).check_places(sizes)
    for process in (d3pm.uniform(beta, 5), d3pm.absorbing(beta, 5, 4), d3pm.absorbing(beta, 6, 2)):
        with pytest.raises(ValueError, match="places have 2 to 5 categories, but Mixing has one K for all"):
            process.check_places(sizes)
