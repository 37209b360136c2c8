"""Draws pictures of images and of chains, as PNG files."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from d3pm_jax.files import replacing

MASK_COLOUR = (70, 110, 200)
LINE = 20  # height of a caption, in pixels
SIDE = 48  # smallest side of an image in a picture, in pixels


def to_rgb(x: np.ndarray, levels: int) -> np.ndarray:
    """Turns categories [..., H, W, C] into uint8 [..., H, W, 3]: grey or RGB; blue where not a level."""
    masked = np.any(x >= levels, axis=-1, keepdims=True)
    grey = np.clip(x, 0, levels - 1) * (255.0 / (levels - 1))
    rgb = np.broadcast_to(grey if x.shape[-1] == 3 else grey[..., :1], (*x.shape[:-1], 3))
    return np.where(masked, np.array(MASK_COLOUR), rgb).round().astype(np.uint8)


def grid(images: np.ndarray, columns: int) -> np.ndarray:
    """Puts uint8 [N, H, W, 3] into one picture with a thin border around each image."""
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
    figure.suptitle(caption)
    _save(path, figure)


def save_chain(
    path: Path, forward: np.ndarray, reverse: np.ndarray, times: Sequence[int], caption: str = ""
) -> None:
    """Writes chains of the forward process (left to right: noised) above those of the reverse (to samples).

    Args:
        path: of the PNG file.
        forward, reverse: uint8 [R, N, H, W, 3], state r at times[r].
        times: increasing t, from 0 to T.
        caption: a line of text above both.
    """
    from matplotlib.figure import Figure  # takes long

    figure = Figure(
        figsize=(1.1 * len(times), 1.2 * (len(forward[0]) + len(reverse[0])) + 1), layout="constrained"
    )
    halves = (
        (forward, times, "forward: data to noise"),
        (reverse[::-1], times[::-1], "reverse: noise to sample"),
    )
    for axis, (states, shown, title) in zip(figure.subplots(2, 1), halves, strict=True):
        rows = states.swapaxes(0, 1)
        picture = grid(rows.reshape(-1, *rows.shape[2:]), len(times))
        axis.imshow(picture, interpolation="nearest")
        width = picture.shape[1] / len(times)
        axis.set_xticks([width * (i + 0.5) for i in range(len(times))], [f"t = {t}" for t in shown])
        axis.set_yticks([])
        axis.set_title(title)
    figure.suptitle(caption)
    _save(path, figure)


def _save(path: Path, figure: Any) -> None:
    """Writes a figure of Matplotlib as a PNG file."""
    with replacing(path) as partial:
        figure.savefig(partial, dpi=120, format="png")
