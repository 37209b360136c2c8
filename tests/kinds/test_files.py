"""Files of blocks: each has its suffix and its pixels; what is beside samples follows from what there is."""

import numpy as np
import pytest
from PIL import Image

from d3pm_jax import show
from d3pm_jax.data import Description
from d3pm_jax.errors import UserError
from d3pm_jax.kinds import Samples, make_kind
from d3pm_jax.kinds.blocks import (
    Beside,
    Chain,
    Film,
    Histograms,
    Picture,
    Strip,
    Table,
    TextBlock,
    TextFilm,
    Tiles,
)
from d3pm_jax.kinds.files import count_states, show_beside, write_block

IMAGES = np.random.default_rng(0).integers(0, 256, (10, 8, 8, 3)).astype(np.uint8)
STATES = IMAGES[:6].reshape(3, 2, 8, 8, 3)
STRIP = Strip(STATES, [0, 2, 4])
DIGITS = make_kind(Description((8, 8, 1), 17, kind="image"))
X = np.random.default_rng(1).integers(0, 17, (70, 8, 8, 1))


def pixels(path):
    with Image.open(path) as picture:
        return np.asarray(picture.convert("RGB"))


@pytest.mark.parametrize(
    ("block", "columns"),
    [(Tiles(IMAGES, "ten"), 3), (Tiles(IMAGES, "ten", 5), 5), (Picture(IMAGES[0], "one"), 1)],
)
def test_pictures_stand_below_their_caption(block, columns, tmp_path):
    file = write_block(tmp_path / "a_strength0.5", block, "caption")
    assert file == tmp_path / "a_strength0.5.png"
    images = IMAGES[:1] if columns == 1 else IMAGES
    expected = show.grid(images, columns)
    below = pixels(file)[-expected.shape[0] :, : expected.shape[1]]
    np.testing.assert_array_equal(below, expected)
    without_caption = pixels(write_block(tmp_path / "b", block, ""))
    np.testing.assert_array_equal(without_caption, expected)


def test_other_pictures_are_those_of_show(tmp_path):
    backwards = Strip(STATES[::-1], [4, 2, 0])
    blocks = {
        "beside": Beside(Tiles(IMAGES, ""), Picture(IMAGES[0], ""), ("samples", "data"), ""),
        "strip": STRIP,
        "chain": Chain(STRIP, backwards),
        "film": Film(STATES, [4, 2, 0], 2, ""),
    }
    files = {name: write_block(tmp_path / name, block, "caption") for name, block in blocks.items()}
    assert [file.name for file in files.values()] == ["beside.png", "strip.png", "chain.png", "film.gif"]
    show.save_beside(tmp_path / "b.png", IMAGES, IMAGES[:1], "caption")
    show.save_strip(tmp_path / "s.png", STATES, [0, 2, 4], "caption")
    show.save_chain(tmp_path / "c.png", STATES, STATES, [0, 2, 4], "caption")
    show.save_gif(tmp_path / "f.gif", STATES, 2, [4, 2, 0])
    expected = ["b.png", "s.png", "c.png", "f.gif"]
    for file, other in zip(files.values(), expected, strict=True):
        assert file.read_bytes() == (tmp_path / other).read_bytes()


def test_texts_are_lines_and_their_films_pages_and_of_tables_there_is_no_file(tmp_path):
    assert write_block(tmp_path / "a", TextBlock("one\ntwo"), "").read_text() == "one\ntwo\n"
    film = TextFilm([[["a", None], ["a", "b"]]], [1, 0], 1, False)
    page = write_block(tmp_path / "chain", film, "of <steps>")
    assert page.name == "chain.html"
    assert f"Reverse process of {tmp_path.name}" in page.read_text()
    assert "of &lt;steps&gt;" in page.read_text()
    for block in (None, Table(["a"], [["b"]]), Histograms([], np.zeros((0, 2)), None, 1)):
        assert write_block(tmp_path / "none", block, "") is None
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.txt", "chain.html"]


def test_samples_are_beside_what_they_were_made_from_or_else_test_data():
    samples = Samples(X, 17)
    examples = Samples(X[::-1], 17)
    given = Samples(X[:64] // 2, 17)
    assert show_beside(DIGITS, samples).images.shape == (64, 8, 8, 3)
    block = show_beside(DIGITS, samples, None, examples)
    assert (block.titles, block.alt) == (("samples", "data"), "samples beside test data")
    np.testing.assert_array_equal(block.left.images, show.to_rgb(X[:64], 17))
    np.testing.assert_array_equal(block.right.images, show.to_rgb(X[::-1][:64], 17))
    block = show_beside(DIGITS, samples, given, examples)
    assert block.titles == ("samples", "what they were made from")
    assert block.alt == "samples beside what they were made from"
    np.testing.assert_array_equal(block.right.images, show.to_rgb(X[:64] // 2, 17))
    text = make_kind(Description((2,), 2, kind="text", symbols=("a", "b")))
    lines = Samples(np.array([[0, 1]]), 2)
    assert show_beside(text, lines, lines, lines) == TextBlock("ab")


def test_a_gif_is_of_pictures():
    assert (count_states(DIGITS, False), count_states(DIGITS, True)) == (10, 46)
    text = make_kind(Description((2,), 2, kind="text", symbols=("a", "b")))
    assert count_states(text, False) == 46
    array = make_kind(Description((2,), 2))
    assert count_states(array, False) == 10
    for kind in (text, array):
        with pytest.raises(
            UserError, match=f"kind '{kind.name}', which this run has; .* write sample_files = \"pictures\""
        ):
            count_states(kind, True)
