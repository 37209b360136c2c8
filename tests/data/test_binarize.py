"""Binary data: which law its pixels have, when they are drawn anew, and one line for what has no levels."""

import numpy as np
import pytest

from d3pm_jax import config
from d3pm_jax.data import ArraySource, DatasetError, Description, read_all, train_batches
from d3pm_jax.data.binarize import BinarySource
from tests.data.test_images import MNIST
from tests.data.test_source import IMAGES, write_mnist

LEVELS = np.array([[0, 1, 51, 127, 128, 204, 255]] * 4)


@pytest.fixture
def arrays(tmp_path):
    np.save(tmp_path / "x.npy", LEVELS)

    def make(how, categories=256):
        return config.Arrays(
            str(tmp_path / "x.npy"), str(tmp_path / "x.npy"), categories, "array", binarize=how
        )

    return make


def test_a_threshold_is_half_of_the_highest_level(arrays, tmp_path):
    data = arrays("threshold")
    assert data.describe() == Description((7,), 2)
    x, _ = read_all(data.open("test"), 2, description=data.describe())
    np.testing.assert_array_equal(x[0], [0, 0, 0, 0, 1, 1, 1])
    write_mnist(tmp_path)
    data = config.Idx(str(tmp_path), binarize="threshold")
    assert data.describe() == Description((4, 3, 1), 2, 3, "image")
    np.testing.assert_array_equal(read_all(data.open("train"), 2)[0][..., 0], IMAGES > 127)


def test_dynamic_pixels_have_the_law_of_their_levels(arrays):
    data = arrays("dynamic")
    n = 4000
    source = data.open_training()
    rng = np.random.default_rng(1)
    anew = np.stack([data.random_map(source[0], rng)["x"] for _ in range(n)])
    grey = ArraySource(np.tile(LEVELS[0], (n, 1)))
    fixed, _ = read_all(BinarySource(grey, 256, "dynamic", "train"), 2)
    others, _ = read_all(BinarySource(grey, 256, "dynamic", "test"), 2)
    p = LEVELS[0] / 255
    for drawn in (anew, fixed, others):
        assert np.all(np.abs(drawn.mean(0) - p) <= 4.5 * np.sqrt(p * (1 - p) / n))  # 0 and 255 are certain
        assert abs(np.corrcoef(drawn[:, 3], drawn[:, 4])[0, 1]) < 4.5 / np.sqrt(n)
    assert abs(np.corrcoef(fixed[:, 3], others[:, 3])[0, 1]) < 4.5 / np.sqrt(n)


def test_dynamic_data_is_fixed_for_evaluation_and_drawn_anew_in_every_epoch(arrays):
    data = arrays("dynamic")
    first, _ = read_all(data.open("test"), 2)
    again, _ = read_all(data.open("test"), 2)
    np.testing.assert_array_equal(first, again)
    assert len(np.unique(first, axis=0)) > 1  # the same levels, other draws
    np.testing.assert_array_equal(data.open("test")[-1]["x"], first[3])

    def epochs(start):
        batches = train_batches(data.open_training(), 4, 0, 2, start, data.random_map, data.describe())
        return [sorted(map(tuple, next(batches)["x"])) for _ in range(8 - start)]

    actual = epochs(0)
    assert len(set(map(str, actual))) > 4
    assert actual[3:] == epochs(3)


def test_what_has_no_levels_is_one_line(arrays):
    with pytest.raises(DatasetError, match=r"an example holds 0..255, but its levels are 0..16: correct"):
        read_all(arrays("dynamic", 17).open("test"), 2)
    data = arrays("dynamic", 17)
    with pytest.raises(DatasetError, match=r"an example holds 0..255"):
        next(train_batches(data.open_training(), 4, 0, 2, 0, data.random_map, data.describe()))


def test_mirrored_images_are_half_of_all():
    x = np.arange(12).reshape(2, 3, 2)
    data = config.TfdsImages("mnist", mirror=True)
    rng = np.random.default_rng(0)
    actual = [data.random_map({"x": x}, rng)["x"] for _ in range(400)]
    turned = sum(np.array_equal(y, x[:, ::-1]) for y in actual)
    assert turned + sum(np.array_equal(y, x) for y in actual) == 400
    assert abs(turned - 200) < 45
    batch = next(train_batches(ArraySource(x[None]), 1, 0, 12, random_map=data.random_map))
    assert batch["x"].shape == (1, 2, 3, 2)


@pytest.mark.skipif(not MNIST.is_dir(), reason="MNIST is not prepared beside the project")
def test_mnist_pixels_are_binary_and_half_grey():
    data = config.TfdsImages("mnist", str(MNIST), binarize="dynamic")
    x, labels = read_all(data.open("test"), 2, 200, data.describe())
    grey, _ = read_all(config.TfdsImages("mnist", str(MNIST)).open("test"), 256, 200)
    assert labels is not None
    assert set(np.unique(x)) == {0, 1}
    assert abs(x.mean() - grey.mean() / 255) < 2e-3
