"""Pictures, strips and GIFs: what is read back is what was drawn, and what cannot be drawn is one line."""

import errno

import numpy as np
import pytest
from PIL import Image, ImageSequence

from d3pm_jax import show
from d3pm_jax.show.images import CAPTION_HEIGHT

TIMES = [100, 40, 7, 0]


def read_gif(path):
    """Its frames uint8 [R, H, W, 3], their milliseconds, and how often it is shown."""
    with Image.open(path) as gif:
        frames = [(np.asarray(f.convert("RGB")), f.info["duration"]) for f in ImageSequence.Iterator(gif)]
        return np.stack([frame for frame, _ in frames]), [time for _, time in frames], gif.info["loop"]


def enlarged(images, columns, times=2):
    """The grid of a frame, as it is when it is narrow."""
    return show.grid(images, columns).repeat(times, 0).repeat(times, 1)


def chain(colours, R=4, H=8, W=8, N=5):
    """A chain uint8 [R, N, H, W, 3] with all of these colours, at random."""
    index = np.random.default_rng(0).integers(0, len(colours), (R, N, H, W))
    index.flat[: len(colours)] = np.arange(len(colours))
    return np.asarray(colours, np.uint8)[index]


@pytest.mark.parametrize(("levels", "mask"), [(2, 1), (17, 1), (100, 1), (254, 1), (255, 1), (256, 0)])
def test_a_gif_keeps_every_grey(levels, mask, tmp_path):
    states = chain(show.to_rgb(np.arange(levels + mask).reshape(-1, 1, 1, 1), levels)[:, 0, 0])
    show.save_gif(tmp_path / "x.gif", states, 3, TIMES)
    frames, milliseconds, loop = read_gif(tmp_path / "x.gif")
    np.testing.assert_array_equal(frames[:, CAPTION_HEIGHT:], [enlarged(images, 3) for images in states])
    assert milliseconds == [2000, 100, 100, 2000]
    assert loop == 0  # for ever


def test_the_frames_of_a_gif_tell_their_t(tmp_path):
    states = np.zeros((4, 1, 8, 8, 3), np.uint8)  # so that the texts alone differ
    show.save_gif(tmp_path / "x.gif", states, 1, [1000, 88, 88, 1], milliseconds=40, hold=500)
    frames, milliseconds, _ = read_gif(tmp_path / "x.gif")
    assert milliseconds == [500, 80, 500]  # equal frames are one that is shown longer
    ink = (frames[:, :CAPTION_HEIGHT] == 0).all(-1)
    widths = [np.flatnonzero(text.any(0)).max() for text in ink]
    assert frames.shape[2] > widths[0] > widths[1] > widths[2]  # of 1000, 88 and 1; the longest fits
    show.save_gif(tmp_path / "one.gif", states[:1], 1, [1000])
    with Image.open(tmp_path / "one.gif") as still:
        np.testing.assert_array_equal(np.asarray(still.convert("RGB")), frames[0])


def test_a_gif_of_many_colours_has_near_ones(tmp_path):
    """A gradient in red and green: 4,096 colours, in two frames that are shifted."""
    red, green = np.meshgrid(np.arange(0, 256, 4), np.arange(0, 256, 4))
    image = np.stack([red, green, np.full_like(red, 128)], -1).astype(np.uint8)
    states = np.stack([image, np.roll(image, 5, 1)])[:, None]
    show.save_gif(tmp_path / "x.gif", states, 1, [1, 0])
    frames, _, _ = read_gif(tmp_path / "x.gif")
    drawn = np.stack([enlarged(images, 1, 4) for images in states]).astype(int)
    assert np.abs(frames[:, CAPTION_HEIGHT:] - drawn).mean() < 6


def test_a_strip_has_a_row_for_each_example(tmp_path):
    """Of grey levels that no caption has, found in the order of the rows and columns."""
    R = 3
    N = 2
    levels = 60 + 20 * np.arange(R * N).reshape(R, N)
    states = np.broadcast_to(levels[:, :, None, None, None], (R, N, 8, 6, 3)).astype(np.uint8)
    show.save_strip(tmp_path / "strip.png", states, np.array([0, 5, 10]), "uniform")
    pixels = np.asarray(Image.open(tmp_path / "strip.png").convert("RGB"))
    places = {}
    for r, n in np.ndindex(R, N):
        y, x = np.nonzero((pixels == levels[r, n]).all(-1))
        assert len(y) > 1000
        places[r, n] = (np.median(y), np.median(x))
    for r, n in np.ndindex(R, N):
        assert places[r, n][0] == pytest.approx(places[0, n][0], abs=1)
        assert places[r, n][1] == pytest.approx(places[r, 0][1], abs=1)
    assert places[0, 0][0] < places[0, 1][0]
    assert places[0, 0][1] < places[1, 0][1] < places[2, 0][1]


WRONG = [
    (np.zeros((4, 2, 8, 8, 3)), TIMES, "states is of dtype float64, shape .*: to_rgb makes colours"),
    (np.zeros((4, 8, 8, 3), np.uint8), TIMES, r"expected uint8 \[R, N, H, W, 3\]"),
    (np.zeros((4, 2, 8, 8, 1), np.uint8), TIMES, r"expected uint8 \[R, N, H, W, 3\]"),
    (np.zeros((0, 2, 8, 8, 3), np.uint8), [], "none of them 0"),
    (np.zeros((3, 2, 8, 8, 3), np.uint8), TIMES, "4 times of 3 states: give the t of each"),
]


@pytest.mark.parametrize(("states", "times", "message"), WRONG)
def test_what_is_no_chain_is_one_line(states, times, message, tmp_path):
    draws = (
        lambda path: show.save_gif(path, states, 1, times),
        lambda path: show.save_strip(path, states, times),
        lambda path: show.save_chain(path, states, states, times),
    )
    for draw in draws:
        with pytest.raises((TypeError, ValueError), match=message) as refused:
            draw(tmp_path / "x")
        assert "\n" not in str(refused.value)
    assert not list(tmp_path.iterdir())


def test_numbers_of_a_gif_are_checked(tmp_path):
    states = np.zeros((2, 1, 8, 8, 3), np.uint8)
    with pytest.raises(ValueError, match="columns = 0: take at least 1"):
        show.save_gif(tmp_path / "x.gif", states, 0, [1, 0])
    with pytest.raises(ValueError, match="frames of 15 and 2000 ms: take multiples of 10, 20 or more"):
        show.save_gif(tmp_path / "x.gif", states, 1, [1, 0], milliseconds=15)
    with pytest.raises(ValueError, match=r"images is of dtype uint8, shape \(1, 8, 8, 1\), expected"):
        show.grid(states[0, ..., :1], 1)


def test_a_gif_is_whole_or_not_there(tmp_path, monkeypatch):
    states = chain([[0, 0, 0], [255, 255, 255]])
    path = tmp_path / "x.gif"
    path.write_bytes(b"the old one")

    def fail(self, file, *args, **options):
        file.write_bytes(b"GIF8")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Image.Image, "save", fail)
    with pytest.raises(OSError, match="No space left"):
        show.save_gif(path, states, 3, TIMES)
    assert path.read_bytes() == b"the old one"
    assert list(tmp_path.iterdir()) == [path]


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
