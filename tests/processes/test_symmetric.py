"""Processes whose matrices are symmetric are doubly stochastic, and end uniform."""

import numpy as np
import pytest

import d3pm_jax as d3pm
from tests.families import all_steps

pytestmark = [pytest.mark.usefixtures("x64"), pytest.mark.filterwarnings("ignore:x_T still depends")]


def points(K, d, seed=0):
    return np.random.default_rng(seed).normal(size=(K, d))


SYMMETRIC = {
    "gaussian": lambda: d3pm.gaussian(d3pm.linear(40, 0.01, 1.0), 17, 3),
    "banded": lambda: d3pm.banded(d3pm.linear(40, 0.01, 1.0), 17, 4),
    "random_walk": lambda: d3pm.random_walk(d3pm.linear(40, 0.01, 1.0), d3pm.knn_graph(points(27, 8), 4)),
    "from_rate": lambda: d3pm.from_rate(d3pm.knn_rate(points(27, 8), 4), np.geomspace(1e-3, 100.0, 40)),
}


@pytest.mark.parametrize("name", SYMMETRIC)
def test_tables_are_doubly_stochastic_and_the_prior_uniform(name):
    process = SYMMETRIC[name]()
    for table in all_steps(process):
        assert table.min() >= 0
        np.testing.assert_allclose(table.sum(-1), 1.0, atol=1e-12)
        np.testing.assert_allclose(table.sum(-2), 1.0, atol=1e-12)
    np.testing.assert_allclose(np.exp(process.log_prior()), 1 / process.K, rtol=1e-12)
