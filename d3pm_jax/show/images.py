"""Draws images and chains of images: grids and strips as PNG files, and films as GIF files."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from d3pm_jax.checks.arrays import describe
from d3pm_jax.files import replacing
from d3pm_jax.show.curves import escape_text, save_figure

MASK_COLOUR = (70, 110, 200)
CAPTION_HEIGHT = 20  # in pixels
# Lower images of a grid are enlarged by the largest whole factor that keeps them within this height (pixels).
ENLARGED_HEIGHT = 48
FRAME_MS = 100  # milliseconds of a frame of a GIF
FRAME_WIDTH = 320  # in pixels; a narrower grid is enlarged by the largest whole factor that fits
HOLD_MS = 2000  # milliseconds of the first and of the last frame of a GIF
TILE_INCHES = 1.1  # width of an image in a strip
Times = Sequence[int] | np.ndarray


def to_rgb(x: np.ndarray, levels: int) -> np.ndarray:
    """Turns categories [..., H, W, C] into grey or RGB colours uint8 [..., H, W, 3]; a mask is blue."""
    masked = np.any(x >= levels, axis=-1, keepdims=True)  # [..., H, W, 1]
    scaled = np.clip(x, 0, levels - 1) * (255.0 / (levels - 1))
    if x.shape[-1] != 3:
        scaled = scaled[..., :1]
    rgb = np.broadcast_to(scaled, (*x.shape[:-1], 3))
    return np.where(masked, np.array(MASK_COLOUR), rgb).round().astype(np.uint8)


def check_colours(name: str, x: np.ndarray, shape: str) -> None:
    """Raises TypeError or ValueError unless x is uint8, not empty, and of a shape such as "[N, H, W, 3]"."""
    got = f"{name} is {describe(x)}, expected uint8 {shape}"
    if x.dtype != np.uint8:
        raise TypeError(f"{got}: to_rgb makes colours of categories")
    if x.ndim != shape.count(",") + 1 or x.shape[-1] != 3 or 0 in x.shape:
        raise ValueError(f"{got}, none of them 0")


def grid(images: np.ndarray, columns: int) -> np.ndarray:
    """Puts uint8 [N, H, W, 3] into one picture with a thin border around each image.

    Raises:
        TypeError, ValueError: images are not of this dtype and shape, or there are no columns.
    """
    check_colours("images", images, "[N, H, W, 3]")
    if columns < 1:
        raise ValueError(f"columns = {columns}: take at least 1")
    scale = max(1, ENLARGED_HEIGHT // images.shape[1])
    tiles = np.repeat(np.repeat(images, scale, axis=1), scale, axis=2)
    tiles = np.pad(tiles, ((0, 0), (1, 1), (1, 1), (0, 0)), constant_values=90)  # [N, h, w, 3]

    return join_tiles(tiles, columns, 255)


def join_tiles(tiles: np.ndarray, columns: int, blank: int) -> np.ndarray:
    """Joins uint8 [N, H, W, 3] to one picture, row by row; empty places have the grey `blank`."""
    N, h, w, _ = tiles.shape
    rows = -(-N // columns)
    empty = np.full((rows * columns - N, h, w, 3), blank, np.uint8)
    table = np.concatenate([tiles, empty]).reshape(rows, columns, h, w, 3)
    return table.swapaxes(1, 2).reshape(rows * h, columns * w, 3)


def save_grid(path: Path, images: np.ndarray, columns: int, caption: str = "") -> None:
    """Writes the `grid` of images to a PNG file, with a caption above it if there is one."""
    table = Image.fromarray(grid(images, columns))
    picture = table
    if caption:
        font = ImageFont.load_default(12)
        width = max(table.width, int(font.getlength(caption)) + 8)
        picture = Image.new("RGB", (width, table.height + CAPTION_HEIGHT), "white")
        picture.paste(table, (0, CAPTION_HEIGHT))
        ImageDraw.Draw(picture).text((4, 2), caption, "black", font)
    with replacing(path) as partial:
        picture.save(partial, "PNG")


def save_beside(
    path: Path,
    samples: np.ndarray,
    real: np.ndarray,
    caption: str = "",
    titles: tuple[str, str] = ("samples", "data"),
) -> None:
    """Writes a square grid of samples and one of real images side by side, with a caption above them."""
    # Matplotlib is imported here, as its import is slow and most commands draw nothing.
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 5.8), layout="constrained")
    for axis, images, title in zip(figure.subplots(1, 2), (samples, real), titles, strict=True):
        axis.imshow(grid(images, round(len(images) ** 0.5)), interpolation="nearest")
        axis.set_title(title)
        axis.axis("off")
    figure.suptitle(escape_text(caption))
    save_figure(path, figure)


def save_strip(path: Path, states: np.ndarray, times: Times, caption: str = "") -> None:
    """Writes chains of images from left to right, one row for each example, with t below each column.

    Args:
        path: of the PNG file.
        states: uint8 [R, N, H, W, 3], state r at times[r], in the order to draw them: t from 0 up for the
            forward process, from T down for the reverse.
        times: the t of the states.
        caption: a line of text above.

    Raises:
        TypeError, ValueError: states are not of this dtype and shape, or times of another length.
    """
    _save_strips(path, [(states, times, "")], caption)


def save_chain(path: Path, forward: np.ndarray, reverse: np.ndarray, times: Times, caption: str = "") -> None:
    """Writes chains of the forward process, from data to noise, above chains of the reverse process.

    Args:
        path: of the PNG file.
        forward, reverse: uint8 [R, N, H, W, 3], state r at times[r].
        times: increasing t, from 0 to T.
        caption: a line of text above both.

    Raises:
        TypeError, ValueError: as `save_strip`.
    """
    halves = [
        (forward, times, "forward: data to noise"),
        (reverse[::-1], times[::-1], "reverse: noise to sample"),
    ]
    _save_strips(path, halves, caption)


def save_gif(
    path: Path,
    states: np.ndarray,
    columns: int,
    times: Times,
    milliseconds: int = FRAME_MS,
    hold: int = HOLD_MS,
) -> None:
    """Writes chains as a GIF that repeats; each frame is the `grid` of the images at one t, with t above it.

    Colours are exact where all frames together have at most 256 of them, those of the border and the text
    included. This is so for all grey images, and with masks for grey images of up to 255 levels. Otherwise
    each frame gets the 256 colours that suit it best, without dithering.

    Args:
        path: of the GIF file.
        states: uint8 [R, N, H, W, 3], a frame for each, in the order to show them.
        columns: of the grid.
        times: the t of the states.
        milliseconds: of a frame, a multiple of 10.
        hold: milliseconds of the first and of the last frame, likewise.

    Raises:
        TypeError, ValueError: states are not of this dtype and shape, times of another length, or frames are
            shorter than 20 ms, which programs show more slowly.
    """
    _check_chain(states, times)
    if min(milliseconds, hold) < 20 or milliseconds % 10 or hold % 10:
        raise ValueError(f"frames of {milliseconds} and {hold} ms: take multiples of 10, 20 or more")
    frames = _apply_palette(_draw_frames(states, columns, times))
    durations = [hold, *[milliseconds] * (len(frames) - 2), hold][: len(frames)]
    with replacing(path) as partial:
        frames[0].save(
            partial,
            "GIF",
            save_all=True,
            append_images=frames[1:],
            duration=durations,
            loop=0,
            # Where it is left out Pillow 13.0 optimises, which damages chains of 256 greys.
            optimize=False,
        )


def _check_chain(states: np.ndarray, times: Times) -> None:
    """Raises TypeError or ValueError unless the states are colours [R, N, H, W, 3] with R times."""
    check_colours("states", states, "[R, N, H, W, 3]")
    if len(times) != len(states):
        raise ValueError(f"{len(times)} times of {len(states)} states: give the t of each state")


def _save_strips(path: Path, strips: list[tuple[np.ndarray, Times, str]], caption: str) -> None:
    """Writes strips, each of which is (states, times, title), one above the other."""
    from matplotlib.figure import Figure

    for states, times, _ in strips:
        _check_chain(states, times)

    inches = []
    for states, _, title in strips:
        _, N, H, W, _ = states.shape
        # The t below the states take 0.3 inches, and a title takes 0.3 more.
        text_inches = 0.3
        if title:
            text_inches = 0.6
        inches.append(N * TILE_INCHES * H / W + text_inches)
    width = max(4, TILE_INCHES * max(len(times) for _, times, _ in strips))
    figure = Figure(figsize=(width, sum(inches) + 0.3), layout="constrained")
    axes = figure.subplots(len(strips), 1, squeeze=False)[:, 0]

    for axis, (states, times, title) in zip(axes, strips, strict=True):
        rows = states.swapaxes(0, 1)  # [N, R, H, W, 3], a row for each example
        picture = grid(rows.reshape(-1, *rows.shape[2:]), len(times))
        axis.imshow(picture, interpolation="nearest")
        column_width = picture.shape[1] / len(times)
        axis.set_xticks([column_width * (i + 0.5) for i in range(len(times))], [f"t = {t}" for t in times])
        axis.set_yticks([])
        axis.set_title(title)
    figure.suptitle(escape_text(caption))
    save_figure(path, figure)


def _draw_frames(states: np.ndarray, columns: int, times: Times) -> list[np.ndarray]:
    """Draws frames uint8 [H, W, 3] of one size, with black text on white above each grid."""
    font = ImageFont.load_default(12)
    texts = [f"t = {t}" for t in times]
    tables = [grid(images, columns) for images in states]  # R of [h, w, 3]

    scale = max(1, FRAME_WIDTH // tables[0].shape[1])
    height = scale * tables[0].shape[0]
    text_widths = [int(font.getlength(text)) + 8 for text in texts]
    width = max(scale * tables[0].shape[1], *text_widths)

    frames = []
    for table, text in zip(tables, texts, strict=True):
        picture = Image.new("RGB", (width, height + CAPTION_HEIGHT), "white")
        picture.paste(Image.fromarray(table.repeat(scale, 0).repeat(scale, 1)), (0, CAPTION_HEIGHT))
        canvas = ImageDraw.Draw(picture)
        # Smooth text has shades of grey, which would use up colours of the palette.
        canvas.fontmode = "1"
        canvas.text((4, 2), text, "black", font)
        frames.append(np.asarray(picture))
    return frames


def _apply_palette(frames: list[np.ndarray]) -> list[Image.Image]:
    """Turns frames uint8 [H, W, 3] into images with one exact palette, or with a palette each."""
    colours = np.zeros(0, np.uint32)
    for frame in frames:
        colours = np.union1d(colours, _pack_colours(frame))
        if len(colours) > 256:
            return [Image.fromarray(frame).quantize(256, dither=Image.Dither.NONE) for frame in frames]

    palette = np.stack([colours >> 16, colours >> 8 & 255, colours & 255], 1).astype(np.uint8)  # [n, 3]
    images = []
    for frame in frames:
        # Colours are sorted, so that the place of a colour among them is its index in the palette.
        indices = np.searchsorted(colours, _pack_colours(frame)).astype(np.uint8)  # [H, W]
        image = Image.fromarray(indices)
        image.putpalette(palette.tobytes())
        images.append(image)
    return images


def _pack_colours(frame: np.ndarray) -> np.ndarray:
    """Packs colours uint8 [H, W, 3] into numbers uint32 [H, W]."""
    red, green, blue = np.moveaxis(frame.astype(np.uint32), -1, 0)
    return red << 16 | green << 8 | blue
