"""Conditions of digits: what their numbers mean, on which scale they are, and that data has them."""

import dataclasses

import numpy as np
import pytest
from sklearn.datasets import load_digits

from d3pm_jax import config
from d3pm_jax.data import ArraySource, DatasetError, Description, read_batch, train_batches
from d3pm_jax.data.digit_conditions import (
    STYLE_DEVIATIONS,
    STYLE_MEANS,
    ConditionedSource,
    block_means,
    measure_style,
    scaled_style,
)


def draw_stroke(shift, level=16):
    """A stroke of two pixels a row, which moves to the right by `shift` pixels for each row downwards."""
    x = np.zeros((8, 8, 1), np.uint8)
    for row in range(1, 6):
        column = 3 + shift * (row - 3)
        x[row, column : column + 2] = level
    return x


def test_slant_is_the_shear_of_a_stroke():
    for shift in (-1, 0, 1):
        _, slant, _ = measure_style(draw_stroke(shift))
        np.testing.assert_allclose(slant, -shift, atol=1e-12)  # to the right for each row upwards


def test_thickness_is_how_much_of_its_pixels_the_ink_covers():
    for level in (4, 16):
        thickness, _, brightness = measure_style(draw_stroke(0, level))
        np.testing.assert_allclose([thickness, brightness], [level / 16, 10 * level / 16 / 64])
    grey_beside_ink = draw_stroke(0)
    grey_beside_ink[1:6, 5] = 8
    thickness, _, brightness = measure_style(grey_beside_ink)
    np.testing.assert_allclose(thickness, (10 + 5 * 0.25) / (10 + 5 * 0.5))
    np.testing.assert_allclose(brightness, 12.5 / 64)


def test_a_digit_without_slant_is_refused():
    x = np.zeros((8, 8, 1), np.uint8)
    with pytest.raises(DatasetError, match="a digit has ink in 0 of its rows"):
        measure_style(x)
    x[3] = 16
    with pytest.raises(DatasetError, match=r"ink in 1 of its rows: .* conditioned=False"):
        measure_style(x)


def test_the_scale_is_that_of_the_training_digits():
    images = load_digits().images[:1500, ..., None].astype(np.uint8)
    styles = np.stack([measure_style(x) for x in images])
    np.testing.assert_allclose(styles.mean(0), STYLE_MEANS, atol=5e-6)
    np.testing.assert_allclose(styles.std(0), STYLE_DEVIATIONS, atol=5e-6)
    scaled = np.stack([scaled_style(x) for x in images])
    assert scaled.dtype == np.float32
    np.testing.assert_allclose(scaled.mean(0), 0, atol=1e-3)
    np.testing.assert_allclose(scaled.std(0), 1, atol=1e-3)


def test_block_means_are_those_of_two_by_two_pixels():
    x = np.random.default_rng(0).integers(0, 17, (8, 8, 1)).astype(np.uint8)
    means = block_means(x)
    assert (means.shape, means.dtype) == ((4, 4, 1), np.float32)
    for row in range(4):
        for column in range(4):
            block = x[2 * row : 2 * row + 2, 2 * column : 2 * column + 2, 0].astype(float)
            assert means[row, column, 0] == block.mean() / 16
    assert block_means(np.full((8, 8, 1), 16, np.uint8)).max() == 1


def test_a_source_adds_the_condition_of_each_example():
    x = np.arange(12).reshape(2, 6)
    source = ConditionedSource(ArraySource(x, np.array([4, 5])), lambda row: row.sum(keepdims=True))
    assert len(source) == 2
    assert source[1]["label"] == 5
    assert source[1]["condition"] == x[1].sum()


@pytest.mark.parametrize(
    ("spec", "shape", "condition_of"),
    [(config.StyledDigits, (3,), scaled_style), (config.UpsampledDigits, (4, 4, 1), block_means)],
)
def test_digits_are_data_with_a_condition_or_without(spec, shape, condition_of, data_dir):
    data = spec(dir=data_dir)
    description = data.describe()
    assert description == Description((8, 8, 1), 17, 10, "image", condition=shape)
    batch = next(train_batches(data.open("train"), 8, 0, 17, description=description))
    assert (batch["condition"].shape, batch["condition"].dtype) == ((8, *shape), np.float32)
    for x, condition in zip(batch["x"], batch["condition"], strict=True):
        np.testing.assert_array_equal(condition, condition_of(x))

    without = spec(dir=data_dir, conditioned=False)
    assert without.describe() == dataclasses.replace(description, condition=None)
    batch = read_batch(without.open("test"), 17, 5, without.describe())
    assert set(batch) == {"x", "label"}
    with_condition = read_batch(data.open("test"), 17, 5, description)
    np.testing.assert_array_equal(batch["x"], with_condition["x"])
