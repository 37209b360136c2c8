"""The Fréchet distance, against closed forms and against the formula with a root of a matrix."""

import numpy as np
import pytest
import scipy.linalg

from d3pm_jax.evaluation import frechet


def gaussian(mean, covariance):
    return frechet.Statistics(np.asarray(mean, float), np.asarray(covariance, float), 1000)


def test_commuting_covariances_have_a_closed_form():
    """|mu - nu|^2 + sum (sigma - tau)^2, in axes that are turned; of rank 2 as well."""
    rng = np.random.default_rng(0)
    axes = np.linalg.qr(rng.normal(size=(4, 4)))[0]
    mean, other = rng.normal(size=(2, 4))
    for sigma, tau in (([1, 2, 3, 4], [4, 1, 1, 0.5]), ([1, 2, 0, 0], [0, 3, 1, 0])):
        sigma = np.array(sigma, float)
        tau = np.array(tau, float)
        a = gaussian(mean, axes * sigma**2 @ axes.T)
        b = gaussian(other, axes * tau**2 @ axes.T)
        expected = np.square(mean - other).sum() + np.square(sigma - tau).sum()
        assert frechet.compute_distance(a, b) == pytest.approx(expected, rel=1e-7)
        assert frechet.compute_distance(b, a) == pytest.approx(expected, rel=1e-7)


def test_features_that_are_moved_are_as_far_as_they_were_moved():
    x = np.random.default_rng(1).normal(size=(60, 5)).astype(np.float32)
    x = np.round(x * 64) / 64  # so that float32 adds exactly
    apart = frechet.compute_distance(
        frechet.compute_statistics(x), frechet.compute_statistics(x + np.float32(2))
    )
    assert apart == pytest.approx(5 * 4, rel=1e-10)
    assert frechet.compute_distance(
        frechet.compute_statistics(x), frechet.compute_statistics(x)
    ) == pytest.approx(0, abs=1e-12)


def test_any_covariances_against_the_root_of_their_product():
    rng = np.random.default_rng(2)
    x = rng.normal(size=(50, 6))
    y = rng.normal(size=(40, 6)) @ rng.normal(size=(6, 6)) + 0.3
    S = np.cov(x, rowvar=False)
    R = np.cov(y, rowvar=False)
    root = scipy.linalg.sqrtm(S @ R).real
    expected = np.square(x.mean(0) - y.mean(0)).sum() + np.trace(S + R - 2 * root)
    actual = frechet.compute_distance(frechet.compute_statistics(x), frechet.compute_statistics(y))
    assert actual == pytest.approx(expected, rel=1e-9)


def test_what_has_no_distance_is_refused():
    x = np.random.default_rng(3).normal(size=(6, 5))
    frechet.compute_statistics(x)
    with pytest.raises(
        ValueError, match=r"5 features of 5 numbers are too few: .* not have full rank.*; take 6 or more"
    ):
        frechet.compute_statistics(x[:5])
    few = frechet.Statistics(np.zeros(5), np.eye(5), 5)
    with pytest.raises(ValueError, match="take 6 or more"):
        frechet.compute_distance(few, frechet.compute_statistics(x))
    with pytest.raises(ValueError, match="not finite"):
        frechet.compute_statistics(np.where(x == x[2, 1], np.nan, x))
    with pytest.raises(ValueError, match="features of 5 and of 4 numbers"):
        frechet.compute_distance(frechet.compute_statistics(x), frechet.compute_statistics(x[:, :4]))
    with pytest.raises(ValueError, match="the eigenvalue -1"):
        frechet.compute_distance(gaussian([0, 0], [[1, 2], [2, 1]]), gaussian([0, 0], np.eye(2)))
