"""Nearest examples, precision and recall, against all pairs of points, by parts that do not divide them."""

import numpy as np
import pytest

from d3pm_jax.evaluation import baselines, neighbours
from d3pm_jax.evaluation.neighbours import find_nearest, precision_recall


@pytest.fixture(autouse=True, params=[7, 1000])
def small_parts(request, monkeypatch):
    monkeypatch.setattr(neighbours, "CHUNK", request.param)


def pairs(a, b):
    return np.square(a[:, None].astype(float) - b[None].astype(float)).sum(-1)


def test_nearest_is_the_first_of_the_nearest():
    rng = np.random.default_rng(0)
    queries = rng.integers(4, size=(23, 2, 2, 1))
    examples = rng.integers(4, size=(40, 2, 2, 1))
    distances = pairs(queries.reshape(23, 4), examples.reshape(40, 4))
    index, squared = find_nearest(queries, examples)
    np.testing.assert_array_equal(index, distances.argmin(1))
    np.testing.assert_array_equal(squared, distances.min(1))
    assert (squared == 0).any()
    assert (squared > 0).any()
    assert ((distances == distances.min(1)[:, None]).sum(1) > 1).any()  # there are ties


def brute_force(real, samples, k):
    """By sorting all distances: the first of a point's own kind is that to itself."""

    def covered(points, centres):
        radius = np.sort(pairs(centres, centres), axis=1)[:, k]
        return np.mean([(row <= radius).any() for row in pairs(points, centres)])

    return covered(samples, real), covered(real, samples)


def test_precision_and_recall_are_those_of_all_pairs():
    rng = np.random.default_rng(1)
    real = rng.normal(size=(31, 3))
    samples = 0.4 * rng.normal(size=(26, 3)) + 0.4
    shares = precision_recall(real, samples)
    assert tuple(shares) == brute_force(real, samples, 3)
    assert 0 < shares.recall < shares.precision
    assert tuple(precision_recall(real, samples, 1)) == brute_force(real, samples, 1) != tuple(shares)
    assert precision_recall(real, real + 100) == (0, 0)
    with pytest.raises(
        ValueError, match="3 samples are too few to have a neighbour number 3: take 4 or more"
    ):
        precision_recall(real, samples[:3])


def test_samples_of_the_histogram_keep_each_pixel_and_lose_what_joins_them():
    train = np.repeat(np.array([[0, 0], [5, 5], [5, 5], [5, 5]])[..., None], 1, axis=-1)
    x = baselines.histogram_samples(train, 4000, 0)
    assert x.shape == (4000, 2, 1)
    np.testing.assert_allclose((x == 5).mean(0), 0.75, atol=0.03)
    assert np.mean((x == 5).all((1, 2))) == pytest.approx(0.75**2, abs=0.03)
