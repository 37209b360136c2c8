"""Blocks of two parts as HTML."""

import numpy as np

from d3pm_jax import show
from d3pm_jax.kinds.blocks import Associations, Beside, Chain, Histograms, Picture, Strip, Tiles
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


def test_bars_of_columns_say_what_they_are():
    shares = [np.array([0.25, 0.75]), np.array([0, 0.5, 0.5])]
    labels = [["no", "yes <3"], ["1", "2", "3..9"]]
    page = Page(render_block(Histograms(["a", "b"], shares, None, 1, labels)))
    assert page.inside["title"] == ["no: 25.0%", "yes <3: 75.0%", "2: 50.0%", "3..9: 50.0%"]
    assert page.inside["small"] == [" up to 75%, no to yes <3", " up to 50%, 1 to 3..9"]
    # Each place has its own number of bars, over the same width.
    assert [attrs["d"].split("v")[0] for attrs in page.having("path", "bar")] == [
        *("M0.0 60", "M80.0 60"),
        *("M53.3 60", "M106.7 60"),
    ]


def test_associations_stand_below_the_diagonal_with_their_difference():
    samples = np.array([[1, 0.5, 0.25], [0.5, 1, 0], [0.25, 0, 1]])
    data = np.array([[1, 0.25, 0.75], [0.25, 1, 0], [0.75, 0, 1]])
    page = Page(render_block(Associations(["a", "b", "c"], samples, data, "V")))
    assert page.inside["figcaption"] == [
        "Data. The full colour is 1.00.",
        "Samples. The full colour is 1.00.",
        "Samples - data. The full colour is 0.50.",
    ]
    pairs = ["a, b", "a, c", "b, c"]
    values = [0.25, 0.75, 0, 0.5, 0.25, 0, 0.25, -0.5, 0]
    assert page.inside["title"] == [f"{pair}: {v:.2f}" for pair, v in zip(pairs * 3, values, strict=True)]
    rects = page.having("rect", "bar")
    opacities = [float(attrs["fill-opacity"]) for attrs in rects]
    np.testing.assert_allclose(opacities, [0.25, 0.75, 0, 0.5, 0.25, 0, 0.5, 1, 0])
    assert [attrs["class"] for attrs in rects] == ["bar run-0"] * 7 + ["bar run-1"] + ["bar run-0"]
    assert page.inside["text"] == ["a", "b", "c"] * 3

    alone = Page(render_block(Associations(["a", "b", "c"], samples, None, "V")))
    assert alone.inside["figcaption"] == ["Samples. The full colour is 1.00."]
    same = Page(render_block(Associations(["a", "b", "c"], samples, samples, "V")))
    assert {attrs["fill-opacity"] for attrs in same.having("rect", "bar")[6:]} == {"0"}
