"""Images that are conditioned on images are shown beside them."""

import numpy as np
import pytest

from d3pm_jax.data import Description
from d3pm_jax.kinds import Samples, make_kind
from d3pm_jax.kinds.image import LINE_LEVEL, put_beside_conditions


def test_a_condition_stands_enlarged_on_the_left_of_its_image():
    tiles = np.random.default_rng(0).integers(0, 256, (3, 4, 6, 3)).astype(np.uint8)
    conditions = np.array([[0.0, 1.0], [0.2, 2.0]], np.float32)[None, ..., None] * np.ones((2, 1, 1, 1))
    conditions[1] = 0.4
    joined = put_beside_conditions(tiles, conditions)
    assert (joined.shape, joined.dtype) == ((3, 4, 13, 3), np.uint8)
    np.testing.assert_array_equal(joined[:, :, 7:], tiles)
    assert np.all(joined[:, :, 6] == LINE_LEVEL)
    np.testing.assert_array_equal(joined[0, :, :6, 0], np.kron([[0, 255], [51, 255]], np.ones((2, 3))))
    assert np.all(joined[1, :, :6] == 102)
    np.testing.assert_array_equal(joined[2, :, :6], joined[0, :, :6])  # image i has condition i modulo 2


def test_integers_are_drawn_up_to_the_largest():
    tiles = np.zeros((1, 2, 2, 3), np.uint8)
    joined = put_beside_conditions(tiles, np.array([[[[0], [5]], [[10], [10]]]]))
    np.testing.assert_array_equal(joined[0, :, :2, 1], [[0, 128], [255, 255]])
    assert not put_beside_conditions(tiles, np.zeros((1, 2, 2, 1), np.int32))[:, :, :2].any()


@pytest.mark.parametrize("shape", [(3,), (3, 4, 1), (4, 4, 2)])
def test_other_conditions_are_not_drawn(shape):
    tiles = np.zeros((2, 4, 4, 3), np.uint8)
    assert put_beside_conditions(tiles, np.ones((2, *shape), np.float32)) is tiles
    assert put_beside_conditions(tiles, None) is tiles


def test_pictures_are_wider_with_conditions():
    kind = make_kind(Description((8, 8, 1), 17, kind="image", condition=(4, 4, 1)))
    x = np.random.default_rng(0).integers(0, 17, (4, 8, 8, 1)).astype(np.int32)
    conditions = np.full((4, 4, 4, 1), 0.5, np.float32)
    widths = []
    for samples in (Samples(x, 17), Samples(x, 17, conditions)):
        widths.append(kind.show_samples(samples).images.shape[2])
    assert widths == [8, 2 * 8 + 1]
