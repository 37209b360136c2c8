"""The classifier in whose features samples are compared, on MNIST."""

import numpy as np
import pytest

from d3pm_jax.data import open_split, read_all
from d3pm_jax.evaluation import digit_features
from tests.data.test_images import MNIST, needs_mnist


@pytest.fixture(scope="module")
def digits():
    """Images and labels of both splits."""
    return [read_all(open_split("mnist", split, str(MNIST)), 256) for split in ("train", "test")]


@needs_mnist
@pytest.mark.slow
@pytest.mark.optimised
@pytest.mark.parametrize(("levels", "steps"), [(256, digit_features.STEPS // 2), (2, digit_features.STEPS)])
def test_digits_are_told_apart(levels, steps, digits, monkeypatch):
    """Grey, by half of the training, and of two levels that are drawn once with the grey as probability."""
    monkeypatch.setattr(digit_features, "STEPS", steps)
    (x, labels), (test, expected) = digits
    if levels == 2:
        rng = np.random.default_rng(1)
        x = (255 * rng.random(x.shape) < x).astype(np.int32)
        test = (255 * rng.random(test.shape) < test).astype(np.int32)
    params = digit_features.train_classifier(x, labels, 10, levels)
    features, called = digit_features.classify_images(params, test, 10, levels)
    assert np.mean(called == expected) >= 0.985
    assert np.linalg.matrix_rank(np.cov(features, rowvar=False)) == 64
