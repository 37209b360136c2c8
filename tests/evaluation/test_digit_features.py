"""The classifier in whose features samples are compared, on MNIST."""

import numpy as np
import pytest

from d3pm_jax.data import open_split, read_all
from d3pm_jax.evaluation import digit_features
from tests.data.test_images import MNIST, needs_mnist


@needs_mnist
@pytest.mark.slow
@pytest.mark.optimised
@pytest.mark.parametrize("levels", [256, 2])
def test_digits_are_told_apart(levels):
    """Grey, and of two levels that are drawn once with the grey as their probability."""
    x, labels = read_all(open_split("mnist", "train", str(MNIST)), 256)
    test, expected = read_all(open_split("mnist", "test", str(MNIST)), 256)
    if levels == 2:
        rng = np.random.default_rng(1)
        x = (255 * rng.random(x.shape) < x).astype(np.int32)
        test = (255 * rng.random(test.shape) < test).astype(np.int32)
    params = digit_features.train_classifier(x, labels, 10, levels)
    features, called = digit_features.classify_images(params, test, 10, levels)
    assert np.mean(called == expected) >= 0.985
    assert np.linalg.matrix_rank(np.cov(features, rowvar=False)) == 64
