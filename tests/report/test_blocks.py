"""Blocks of two parts as HTML."""

import numpy as np

from d3pm_jax import show
from d3pm_jax.kinds.blocks import Beside, Chain, Picture, Strip, Tiles
from d3pm_jax.report.blocks import render_block
from tests.report.reading import Page, pixels

IMAGES = np.random.default_rng(0).integers(0, 256, (10, 4, 4, 3)).astype(np.uint8)


def test_pictures_beside_each_other_have_their_titles():
    block = Beside(Tiles(IMAGES, "ten"), Picture(IMAGES[0], "one"), ("samples", "data"), "both")
    page = Page(render_block(block))
    assert page.inside["figcaption"] == ["samples. ", "data. "]
    left, right = page.having("img", "pixels")
    assert (left["alt"], right["alt"]) == ("ten", "one")
    np.testing.assert_array_equal(pixels(left["src"]), show.grid(IMAGES, 8))
    np.testing.assert_array_equal(pixels(right["src"]), IMAGES[0])


def test_both_processes_stand_below_each_other():
    states = IMAGES[:6].reshape(3, 2, 4, 4, 3)
    page = Page(render_block(Chain(Strip(states, [0, 2, 4]), Strip(states[::-1], [4, 2, 0], "points"))))
    labels = [attributes["aria-label"] for tag, attributes in page.tags if tag == "svg"]
    assert labels == ["chains at t = 0, 2, 4", "points at t = 4, 2, 0"]
