"""Draws pictures of images, as PNG files."""

from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from d3pm_jax.checks.arrays import describe
from d3pm_jax.files import replacing
from d3pm_jax.show.curves import plain, save_figure

MASK_COLOUR = (70, 110, 200)
LINE = 20  # height of a caption, in pixels
SIDE = 48  # smallest side of an image in a picture, in pixels


def to_rgb(x: np.ndarray, levels: int) -> np.ndarray:
    """Turns categories [..., H, W, C] into uint8 [..., H, W, 3]: grey or RGB; blue where not a level."""
    masked = np.any(x >= levels, axis=-1, keepdims=True)
    grey = np.clip(x, 0, levels - 1) * (255.0 / (levels - 1))
    rgb = np.broadcast_to(grey if x.shape[-1] == 3 else grey[..., :1], (*x.shape[:-1], 3))
    return np.where(masked, np.array(MASK_COLOUR), rgb).round().astype(np.uint8)


def check_colours(name: str, x: np.ndarray, shape: str) -> None:
    """Raises TypeError or ValueError unless x is uint8 of a shape "[..., H, W, 3]", and not empty."""
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
    scale = max(1, SIDE // images.shape[1])
    tiles = np.repeat(np.repeat(images, scale, axis=1), scale, axis=2)
    tiles = np.pad(tiles, ((0, 0), (1, 1), (1, 1), (0, 0)), constant_values=90)
    rows = -(-len(tiles) // columns)
    blank = np.full((rows * columns - len(tiles), *tiles.shape[1:]), 255, np.uint8)
    h, w = tiles.shape[1:3]
    table = np.concatenate([tiles, blank]).reshape(rows, columns, h, w, 3)
    return table.swapaxes(1, 2).reshape(rows * h, columns * w, 3)


def save_grid(path: Path, images: np.ndarray, columns: int, caption: str = "") -> None:
    """Writes `grid` to a PNG file, below a line of text if there is one."""
    picture = Image.fromarray(grid(images, columns))
    if caption:
        font = ImageFont.load_default(12)
        width = max(picture.width, int(font.getlength(caption)) + 8)
        table, picture = picture, Image.new("RGB", (width, picture.height + LINE), "white")
        picture.paste(table, (0, LINE))
        ImageDraw.Draw(picture).text((4, 2), caption, "black", font)
    with replacing(path) as partial:
        picture.save(partial, "PNG")


def save_beside(path: Path, samples: np.ndarray, real: np.ndarray, caption: str = "") -> None:
    """Writes two square grids of images side by side, each with its title, below the caption of both."""
    from matplotlib.figure import Figure  # takes long

    figure = Figure(figsize=(10, 5.8), layout="constrained")
    for axis, images, title in zip(figure.subplots(1, 2), (samples, real), ("samples", "data"), strict=True):
        axis.imshow(grid(images, round(len(images) ** 0.5)), interpolation="nearest")
        axis.set_title(title)
        axis.axis("off")
    figure.suptitle(plain(caption))
    save_figure(path, figure)
