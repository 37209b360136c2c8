"""Pictures: a caption is above the grid, and changes none of it."""

import numpy as np
from PIL import Image

from d3pm_jax import show


def test_a_caption_is_above_the_grid(tmp_path):
    tiles = np.random.default_rng(0).integers(0, 256, (2, 8, 8, 3)).astype(np.uint8)
    show.save_grid(tmp_path / "plain.png", tiles, 1)
    show.save_grid(tmp_path / "named.png", tiles, 1, "Uniform, K = 17, T = 100")
    plain = np.asarray(Image.open(tmp_path / "plain.png"))
    captioned = np.asarray(Image.open(tmp_path / "named.png"))
    np.testing.assert_array_equal(plain, show.grid(tiles, 1))
    height, width = plain.shape[:2]
    np.testing.assert_array_equal(captioned[-height:, :width], plain)
    strip = captioned[:-height]
    assert (strip.min(), strip.max()) == (0, 255)
    assert (strip[:, -4:] == 255).all()  # the text ends before the picture does
