"""Baselines of examples with weights."""

import numpy as np

from d3pm_jax.evaluation import baselines


def test_a_unigram_counts_no_padding():
    nats = baselines.unigram_nats(np.array([2, 0, 5]), np.array([[0, 2, 1]]), np.array([[1.0, 1.0, 0.0]]))
    np.testing.assert_allclose(nats, [-np.log(3 / 10) - np.log(6 / 10)])
    np.testing.assert_allclose(
        baselines.unigram_nats(np.array([2, 0, 5]), np.array([[0, 1]])), [-np.log(0.03)]
    )
