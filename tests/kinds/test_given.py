"""Examples and masks that samples are made from, read through the kind of the data."""

import numpy as np
import pytest
from PIL import Image

from d3pm_jax.data import Description
from d3pm_jax.errors import UserError
from d3pm_jax.kinds import make_kind

IMAGES = make_kind(Description((4, 6, 1), 17, kind="image"))
COLOURS = make_kind(Description((2, 3, 3), 256, kind="image"))
TEXTS = make_kind(Description((5,), 4, kind="text", symbols=("a", "b", "\\", "\n")))
ARRAYS = make_kind(Description((2, 3), 7))


def test_arrays_of_one_example_or_of_several(tmp_path):
    path = tmp_path / "x.npy"
    for shape in ((2, 3), (5, 2, 3)):
        x = np.random.default_rng(0).integers(0, 7, shape)
        np.save(path, x)
        np.testing.assert_array_equal(ARRAYS.read_given(path, (2, 3)), x)
        np.save(path, x > 3)
        np.testing.assert_array_equal(ARRAYS.parse_known(str(path), (2, 3)), x > 3)
        np.save(path, (x > 3).astype(np.uint8))
        known = ARRAYS.parse_known(str(path), (2, 3))
        np.testing.assert_array_equal(known, x > 3)
        assert known.dtype == bool


def test_a_picture_has_a_pixel_for_each_element(tmp_path):
    """Those that `show` draws become what they were drawn from; a palette is read as its colours."""
    x = np.random.default_rng(1).integers(0, 17, (4, 6, 1))
    Image.fromarray((x[..., 0] * (255 / 16)).round().astype(np.uint8)).save(tmp_path / "grey.png")
    np.testing.assert_array_equal(IMAGES.read_given(tmp_path / "grey.png", (4, 6, 1)), x)
    colours = np.random.default_rng(2).integers(0, 256, (2, 3, 3)).astype(np.uint8)
    Image.fromarray(colours).convert("P", palette=Image.Palette.ADAPTIVE).save(tmp_path / "palette.png")
    np.testing.assert_array_equal(COLOURS.read_given(tmp_path / "palette.png", (2, 3, 3)), colours)


def test_a_picture_of_16_bits_is_refused(tmp_path):
    """Pillow would cut greys off at 255, and take the high byte of colours."""
    grey = Image.fromarray(np.full((4, 6), 300, np.uint16))
    grey.save(tmp_path / "grey.png")
    with pytest.raises(UserError, match="its greys or colours have 16 bits, of which 8 would be left out"):
        IMAGES.read_given(tmp_path / "grey.png", (4, 6, 1))


def test_parts_of_an_image_by_their_names():
    marked = {word: IMAGES.parse_known(word, (4, 6, 1))[..., 0] for word in ("left", "top", "center")}
    np.testing.assert_array_equal(marked["left"], np.tile([1, 1, 1, 0, 0, 0], (4, 1)))
    np.testing.assert_array_equal(marked["top"], np.tile([[1], [1], [0], [0]], 6))
    np.testing.assert_array_equal(marked["center"], np.outer([0, 1, 1, 0], [0, 1, 1, 1, 1, 0]))
    for word, other in (("right", "left"), ("bottom", "top"), ("border", "center")):
        np.testing.assert_array_equal(IMAGES.parse_known(word, (4, 6, 1))[..., 0], ~marked[other])


def test_texts_are_lines_with_their_breaks_escaped(tmp_path):
    x = np.array([[0, 1, 2, 3, 0], [3, 2, 2, 0, 1]])
    (tmp_path / "x.txt").write_text("".join(line + "\n" for line in TEXTS.lines(x)))
    np.testing.assert_array_equal(TEXTS.read_given(tmp_path / "x.txt", (5,)), x)


def test_a_prompt_or_a_text_with_gaps_is_a_part_of_a_sample():
    prompt = TEXTS.parse_given("ba")
    assert prompt is not None
    np.testing.assert_array_equal(prompt.x0[:2], [1, 0])
    np.testing.assert_array_equal(prompt.mask, [True, True, False, False, False])
    gap = TEXTS.parse_given(infill="b[MASK:2]a")
    assert gap is not None
    np.testing.assert_array_equal(gap.x0[[0, 3]], [1, 0])
    np.testing.assert_array_equal(gap.mask, [True, False, False, True, False])
    assert TEXTS.parse_given() is None


def test_what_cannot_be_read_gets_one_line(tmp_path):
    def save(name, x):
        np.save(tmp_path / name, x)
        return tmp_path / name

    def write(name, text):
        (tmp_path / name).write_text(text)
        return tmp_path / name

    x = np.zeros((4, 6, 1), int)
    picture = tmp_path / "wide.png"
    Image.fromarray(np.zeros((4, 7), np.uint8)).save(picture)
    calls = {
        r"--prompt 'b\[MASK:2\]a' has a gap: pass it as --infill": lambda: TEXTS.parse_given("b[MASK:2]a"),
        r"x.npy has shape \[4, 6\]: pass \[4, 6, 1\], as a sample has, or \[N, 4, 6, 1\]": lambda: (
            IMAGES.read_given(save("x.npy", x[..., 0]), (4, 6, 1))
        ),
        r"none.npy has shape \[0, 4, 6, 1\]: pass": lambda: IMAGES.read_given(
            save("none.npy", x[None][:0]), (4, 6, 1)
        ),
        "f.npy has type float64: categories are integers": lambda: IMAGES.read_given(
            save("f.npy", x * 0.5), (4, 6, 1)
        ),
        "no file .*gone.npy": lambda: ARRAYS.read_given(tmp_path / "gone.npy", (2, 3)),
        "x.txt: examples of kind 'array' are read from .npy files": lambda: ARRAYS.read_given(
            write("x.txt", "0 1"), (2, 3)
        ),
        "x.txt: examples of kind 'image' are": lambda: IMAGES.read_given(write("x.txt", "0 1"), (4, 6, 1)),
        "wide.png is 7 pixels wide and 4 high: resize it to 6 wide and 4 high": lambda: IMAGES.read_given(
            picture, (4, 6, 1)
        ),
        "bad.png cannot be read as a picture": lambda: IMAGES.read_given(write("bad.png", "x"), (4, 6, 1)),
        "gone.png cannot be read as a picture": lambda: IMAGES.read_given(tmp_path / "gone.png", (4, 6, 1)),
        "t.txt, line 2 has 4 tokens, but a sample has 5: write 5 tokens": lambda: TEXTS.read_given(
            write("t.txt", "ababa\nabab\n"), (5,)
        ),
        "t.txt, line 1: ": lambda: TEXTS.read_given(write("t.txt", "abcba"), (5,)),
        "e.txt, line 1 has 0 tokens": lambda: TEXTS.read_given(write("e.txt", ""), (5,)),
        "gone.txt cannot be read as text": lambda: TEXTS.read_given(tmp_path / "gone.txt", (5,)),
        "--known lef: pass an .npy file of booleans, or one of left, right": lambda: IMAGES.parse_known(
            "lef", (4, 6, 1)
        ),
        r"m.npy has shape \[3, 2\]: pass \[2, 3\], as a sample has": lambda: ARRAYS.parse_known(
            str(save("m.npy", np.ones((3, 2), bool))), (2, 3)
        ),
        "two.npy has type int64, or other values than 0 and 1": lambda: ARRAYS.parse_known(
            str(save("two.npy", np.full((2, 3), 2))), (2, 3)
        ),
    }
    for message, call in calls.items():
        with pytest.raises(UserError, match=message) as raised:
            call()
        assert "\n" not in str(raised.value)
