"""Renders the blocks that a kind of data gives, pictures, films, texts and tables, as parts of a page."""

from collections.abc import Sequence

import numpy as np

from d3pm_jax import show
from d3pm_jax.kinds.blocks import Block, Film, Picture, Rows, Strip, Table, TextBlock, TextFilm
from d3pm_jax.show import text_film
from d3pm_jax.show.markup import Html, build_player, build_table, encode_png, tag

UNIT = 56  # of a column of a strip, in units of its svg
ABOVE = 18  # height of the line of text above it
BESIDE = 24  # width of the names of rows
SHEET = 8  # frames of a chain in a row of the picture that has all of them


def render_block(block: Block) -> Html:
    """Renders a block as HTML."""
    match block:
        case Picture(pixels, alt):
            return tag("img", src=encode_png(pixels), alt=alt, class_="pixels")
        case Rows(images, names, alt):
            return draw_rows(images, names, alt)
        case Strip(states, times, alt):
            return draw_strip(states, times, alt)
        case Film(states, times, columns, alt):
            return draw_film(states, times, columns, alt)
        case TextBlock(text):
            return tag("pre", text, tabindex="0")
        case TextFilm(chains, times, _, _):
            return text_film.build_film(chains, times)
        case Table(head, lines):
            return build_table(head, lines)


def draw_rows(images: np.ndarray, names: Sequence[str], alt: str) -> Html:
    """Draws a picture of uint8 [R, N, H, W, 3], the name of each row before it."""
    pixels = show.grid(images.reshape(-1, *images.shape[2:]), images.shape[1])  # [h, w, 3]
    side = 400.0
    height = side * pixels.shape[0] / pixels.shape[1]
    image = _image(pixels, BESIDE, 0, side, height)
    step = height / len(names)
    words = [
        tag("text", name, x=BESIDE - 6, y=step * (i + 0.5) + 4, text_anchor="end")
        for i, name in enumerate(names)
    ]
    box = f"0 0 {BESIDE + side:g} {height:g}"
    return tag("svg", image, *words, class_="labelled", viewBox=box, role="img", aria_label=alt)


def draw_strip(states: np.ndarray, times: Sequence[int], alt: str) -> Html:
    """Draws a picture of chains uint8 [R, N, H, W, 3], a row for each of N, with the R times above."""
    chains = states.swapaxes(0, 1)  # [N, R, H, W, 3]
    pixels = show.grid(chains.reshape(-1, *chains.shape[2:]), len(times))  # [h, w, 3]
    width = UNIT * len(times)
    height = width * pixels.shape[0] / pixels.shape[1]
    labels = [f"t = {times[0]}", *times[1:]]
    words = []
    for i, label in enumerate(labels):
        words.append(tag("text", label, x=UNIT * (i + 0.5), y=12, text_anchor="middle"))
    image = _image(pixels, 0, ABOVE, width, height)
    box = f"0 0 {width} {ABOVE + height:g}"
    svg = tag("svg", *words, image, class_="labelled", viewBox=box, role="img", aria_label=alt)
    return tag("div", svg, class_="strip", tabindex="0")


def draw_film(states: np.ndarray, times: Sequence[int], columns: int, alt: str) -> Html:
    """Draws chains uint8 [R, N, H, W, 3] as a picture that plays, from the first of the times to the last.

    Its frames are `show.grid`, in rows of `SHEET` on one sheet, of which an svg shows one at a time: the last
    one, without a script.
    """
    frames = np.stack([show.grid(images, columns) for images in states])  # [R, h, w, 3]
    h, w = frames.shape[1:3]
    pixels = join_frames(frames)
    last = len(times) - 1
    box = f"{last % SHEET * w} {last // SHEET * h} {w} {h}"
    image = _image(pixels, 0, 0, pixels.shape[1], pixels.shape[0])
    svg = tag("svg", image, viewBox=box, role="img", aria_label=alt)
    return build_player(svg, times, data_sheet=f"{SHEET} {w} {h}")


def join_frames(frames: np.ndarray) -> np.ndarray:
    """Joins frames uint8 [R, H, W, 3] to one picture, in rows of `SHEET`; what is left over is black."""
    R, h, w, _ = frames.shape
    rows = -(-R // SHEET)
    black = np.zeros((rows * SHEET - R, h, w, 3), np.uint8)
    table = np.concatenate([frames, black]).reshape(rows, SHEET, h, w, 3)
    return table.swapaxes(1, 2).reshape(rows * h, SHEET * w, 3)


def _image(pixels: np.ndarray, x: int, y: int, width: float | int, height: float | int) -> Html:
    return tag("image", href=encode_png(pixels), class_="pixels", x=x, y=y, width=width, height=height)
