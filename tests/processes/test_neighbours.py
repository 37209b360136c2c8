"""Weights of neighbours and directions of embeddings."""

import numpy as np
import pytest

import d3pm_jax as d3pm
from d3pm_jax import processes

pytestmark = [pytest.mark.usefixtures("x64"), pytest.mark.filterwarnings("ignore:x_T still depends")]


def points(K, d, seed=0):
    return np.random.default_rng(seed).normal(size=(K, d))


def test_the_scale_of_a_gaussian_goes_from_the_nearest_to_all_the_same():
    d = np.array([[0.0, 0.0, 1.0], [1e10, 2e10, 3e10]])
    np.testing.assert_array_equal(processes.gaussian_weights(d, 1e-300), [[1.5, 1.5, 0], [3, 0, 0]])
    np.testing.assert_allclose(processes.gaussian_weights(d, 1e20), 1, rtol=1e-12)


def test_unit_rows_are_near_where_directions_are():
    x = np.array([[3.0, 4.0], [-6.0, -8.0], [30.0, 41.0]])
    np.testing.assert_allclose(processes.unit_rows(x)[:2], [[0.6, 0.8], [-0.6, -0.8]], rtol=1e-15)
    assert d3pm.knn_rate(x, 1)[0, 1] > 0
    assert d3pm.knn_rate(processes.unit_rows(x), 1)[0, 2] == 1


@pytest.mark.parametrize("scale", [1e200, 1e-200])
def test_neighbours_and_directions_do_not_depend_on_the_unit(scale):
    x = points(9, 3)
    k = 3
    np.testing.assert_allclose(processes.unit_rows(x * scale), processes.unit_rows(x), rtol=1e-14)
    seen = []
    np.testing.assert_array_equal(d3pm.knn_rate(x * scale, k), d3pm.knn_rate(x, k))
    for unit in (scale, 1.0):
        d3pm.knn_rate(x * unit, k, lambda d, unit=unit: seen.append(d / unit) or np.ones_like(d))
    np.testing.assert_allclose(*seen, rtol=1e-13)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: processes.unit_rows(np.array([[1.0, 2.0], [0.0, 0.0]])), r"embeddings\[1\] has norm 0, so"),
        (lambda: processes.rank_weights(np.array([[2.0, 1.0]])), r"distances must .* rise along each row"),
        (lambda: processes.gaussian_weights(np.ones((2, 2)), 0.0), "scale = 0.0: it must be above 0"),
    ],
)
def test_nonsense_is_refused(build, message):
    with pytest.raises(ValueError, match=message):
        build()
