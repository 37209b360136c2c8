"""Gaussian and banded processes: published numbers, the official program, limits."""

import math

import jax.numpy as jnp
import numpy as np
import pytest

import d3pm_jax as d3pm
from tests.families import all_steps

pytestmark = [pytest.mark.usefixtures("x64"), pytest.mark.filterwarnings("ignore:x_T still depends")]


def i32(*x):
    return jnp.asarray(x, jnp.int32)


@pytest.mark.slow
def test_gaussian_diagonals_of_the_paper(x64):
    process = d3pm.gaussian(d3pm.linear(1000), 256)
    diagonal = np.diagonal(process.Qbar(i32(10, 100, 500)), axis1=1, axis2=2)[:, 128]
    np.testing.assert_allclose(diagonal, [0.1016, 0.01343, 0.003922], rtol=5e-3)
    one_step = np.diagonal(process.Q(i32(1, 1000)), axis1=1, axis2=2)[:, 128]
    np.testing.assert_allclose(one_step, [0.4425, 0.0313], rtol=5e-3)
    prior = d3pm.prior_kl(process, jnp.arange(256, dtype=jnp.int32)) / np.log(2)
    assert prior.max() == pytest.approx(6.6e-6, rel=0.02)
    np.testing.assert_allclose(process.Qbar(i32(1000)).sum(-1), 1.0, atol=1e-12)


@pytest.mark.parametrize(
    "build",
    [
        lambda beta: d3pm.gaussian(beta, 9, 2),
        lambda beta: d3pm.banded(beta, 9, 2),
    ],
)
def test_one_step_stays_within_its_bands(build):
    Q, Qbar = all_steps(build(np.full(10, 0.5)))
    distance = np.abs(np.subtract.outer(np.arange(9), np.arange(9)))
    np.testing.assert_array_equal(Q[1:] > 0, np.broadcast_to(distance <= 2, (10, 9, 9)))
    assert (Qbar[4] > 0).all()


@pytest.mark.parametrize("bands", [20, None])
def test_gaussian_is_the_official_program_at_256_levels(bands):
    """Values 0..255 times 2 / 255; a softmax over all distances within the bands, both ways."""
    beta = np.array([0.001, 0.02])
    Q, _ = all_steps(d3pm.gaussian(beta, 256, bands))
    reach = 255 if bands is None else bands
    for t, b in enumerate(beta, 1):
        total = 0.0
        for n in range(-reach, reach + 1):
            total += math.exp(-((n * 2 / 255) ** 2) / b)
        for i, j in [(0, 1), (100, 97), (255, 235), (3, 24)]:
            expected = 0.0
            if abs(i - j) <= reach:
                expected = math.exp(-((abs(i - j) * 2 / 255) ** 2) / b) / total
            assert Q[t, i, j] == pytest.approx(expected, rel=1e-12, abs=2.0**-580)
        left = sum(math.exp(-((n * 2 / 255) ** 2) / b) for n in range(1, reach + 1)) / total
        assert Q[t, 0, 0] == pytest.approx(1 - left, rel=1e-12)


def test_all_bands_are_the_uniform_process():
    beta = d3pm.cosine(20)
    for actual, expected in zip(
        all_steps(d3pm.banded(beta, 6, 5)), all_steps(d3pm.uniform(beta, 6)), strict=True
    ):
        np.testing.assert_allclose(actual, expected, atol=1e-14)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: d3pm.gaussian(np.ones(3), 5, 5), r"bands = 5 is outside 1\.\.4"),
        (lambda: d3pm.gaussian(np.ones(3), 1), r"K = 1, outside 2\.\."),
        (lambda: d3pm.banded(np.ones(3), 5, 0), r"bands = 0 is outside 1\.\.4"),
        (lambda: d3pm.banded(np.array([1.5]), 5, 1), r"beta = 1\.5 at t = 1 is outside"),
    ],
)
def test_nonsense_is_refused(build, message):
    with pytest.raises(ValueError, match=message):
        build()
