"""Baselines of examples with weights, and of places with categories of their own."""

import numpy as np

from d3pm_jax.evaluation import baselines


def test_a_unigram_counts_no_padding():
    nats = baselines.unigram_nats(np.array([2, 0, 5]), np.array([[0, 2, 1]]), np.array([[1.0, 1.0, 0.0]]))
    np.testing.assert_allclose(nats, [-np.log(3 / 10) - np.log(6 / 10)])
    np.testing.assert_allclose(
        baselines.unigram_nats(np.array([2, 0, 5]), np.array([[0, 1]])), [-np.log(0.03)]
    )


def test_a_histogram_has_the_categories_of_its_place():
    train = np.array([[0, 2], [1, 1], [0, 2]])
    test = np.array([[0, 0], [1, 2]])
    nats = baselines.histogram_nats(train, test, np.array([2, 3]))
    np.testing.assert_allclose(nats, -np.log([3 / 5 * 1 / 6, 2 / 5 * 3 / 6]))
    of_one_class = baselines.class_mixture_nats(train, np.zeros(3, int), test, np.array([2, 3]))
    np.testing.assert_allclose(of_one_class, nats)
