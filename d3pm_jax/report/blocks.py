"""Renders blocks (pictures, films, texts and tables) as HTML for a page."""

from collections.abc import Sequence

import numpy as np

from d3pm_jax.kinds.blocks import (
    Associations,
    Beside,
    Block,
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
from d3pm_jax.show import grid, text_film
from d3pm_jax.show.images import join_tiles
from d3pm_jax.show.markup import Html, build_figure, build_player, build_table, encode_png, join_html, tag

COLUMNS = 8  # of a grid
# Sizes in units of the svg: the width of a column of a strip, the height of the text above it, and the width
# of the names beside rows.
COLUMN_WIDTH = 56
LABEL_HEIGHT = 18
NAME_WIDTH = 24
# The size of a histogram.
BARS_WIDTH = 160.0
BARS_HEIGHT = 60.0
# The side of a pair in a table of associations, and the width of a letter of the names on its diagonal.
PAIR = 16.0
LETTER = 7.0
# Frames in a row of the picture that holds all frames of a film.
SHEET_COLUMNS = 8


def render_block(block: Block) -> Html:
    """Renders a block as HTML."""
    match block:
        case Picture(pixels, alt):
            return tag("img", src=encode_png(pixels), alt=alt, class_="pixels")
        case Tiles(images, alt, columns, ()):
            return render_block(Picture(grid(images, columns or COLUMNS), alt))
        case Tiles(images, alt, columns, names):
            return draw_rows(grid(images, columns or COLUMNS), names, alt)
        case Beside(left, right, titles, _):
            figures = [
                build_figure(render_block(left), titles[0]),
                build_figure(render_block(right), titles[1]),
            ]
            return tag("div", *figures, class_="beside")
        case Strip(states, times, what):
            return draw_strip(states, times, f"{what} at t = {', '.join(map(str, times))}")
        case Chain(forward, reverse):
            return tag("div", render_block(forward), render_block(reverse))
        case Film(states, times, columns, alt):
            return draw_film(states, times, columns, alt)
        case TextBlock(text):
            return tag("pre", text, tabindex="0")
        case TextFilm(chains, times, _, _):
            return text_film.build_film(chains, times)
        case Table(head, lines):
            return build_table(head, lines, 1)
        case Histograms():
            return draw_histograms(block)
        case Associations():
            return draw_associations(block)


def draw_rows(pixels: np.ndarray, names: Sequence[str], alt: str) -> Html:
    """Draws a grid uint8 [H, W, 3] with the name of each of its rows to the left of it."""
    side = 400.0
    height = side * pixels.shape[0] / pixels.shape[1]
    image = _image(pixels, NAME_WIDTH, 0, side, height)
    step = height / len(names)
    text_tags = [
        tag("text", name, x=NAME_WIDTH - 6, y=step * (i + 0.5) + 4, text_anchor="end")
        for i, name in enumerate(names)
    ]
    box = f"0 0 {NAME_WIDTH + side:g} {height:g}"
    return tag("svg", image, *text_tags, class_="labelled", viewBox=box, role="img", aria_label=alt)


def draw_strip(states: np.ndarray, times: Sequence[int], alt: str) -> Html:
    """Draws N chains of R states, uint8 [R, N, H, W, 3]: one row for each chain, with the times above."""
    chains = states.swapaxes(0, 1)  # [N, R, H, W, 3]
    pixels = grid(chains.reshape(-1, *chains.shape[2:]), len(times))  # [h, w, 3]
    width = COLUMN_WIDTH * len(times)
    height = width * pixels.shape[0] / pixels.shape[1]
    labels = [f"t = {times[0]}", *times[1:]]
    text_tags = [
        tag("text", label, x=COLUMN_WIDTH * (i + 0.5), y=12, text_anchor="middle")
        for i, label in enumerate(labels)
    ]
    image = _image(pixels, 0, LABEL_HEIGHT, width, height)
    box = f"0 0 {width} {LABEL_HEIGHT + height:g}"
    svg = tag("svg", *text_tags, image, class_="labelled", viewBox=box, role="img", aria_label=alt)
    return tag("div", svg, class_="strip", tabindex="0")


def draw_film(states: np.ndarray, times: Sequence[int], columns: int, alt: str) -> Html:
    """Draws chains uint8 [R, N, H, W, 3] as a film that plays from the first of the R times to the last.

    Each frame is the `show.grid` of the images at one time. One picture, the sheet, holds all frames in rows
    of `SHEET_COLUMNS`, and an svg shows one of them at a time. Without a script it shows the last one.
    """
    frames = np.stack([grid(images, columns) for images in states])  # [R, h, w, 3]
    h, w = frames.shape[1:3]
    pixels = join_tiles(frames, SHEET_COLUMNS, 0)
    last = len(times) - 1
    box = f"{last % SHEET_COLUMNS * w} {last // SHEET_COLUMNS * h} {w} {h}"
    image = _image(pixels, 0, 0, pixels.shape[1], pixels.shape[0])
    svg = tag("svg", image, viewBox=box, role="img", aria_label=alt)
    return build_player(svg, times, data_sheet=f"{SHEET_COLUMNS} {w} {h}")


def draw_histograms(block: Histograms) -> Html:
    """Draws the histogram of each place: for each bar the share in the data, and right of it in samples."""
    legend = [tag("li", "samples", class_="run-0")]
    if block.data is not None:
        legend.insert(0, tag("li", "data", class_="run-1"))

    panels = []
    for place, name in enumerate(block.names):
        shares = {"run-0": block.samples[place]}  # [bars], by the class of their colour
        if block.data is not None:
            shares = {"run-1": block.data[place], **shares}
        highest = max(share.max() for share in shares.values())
        bar_width = BARS_WIDTH / len(block.samples[place]) / len(shares)
        paths = []
        for i, (colour, share) in enumerate(shares.items()):
            path_by_bar = {}
            for bar in np.flatnonzero(share):
                x = (bar * len(shares) + i) * bar_width
                height = BARS_HEIGHT * share[bar] / highest
                path_by_bar[bar] = f"M{x:.1f} {BARS_HEIGHT:g}v-{height:.1f}h{bar_width:.1f}v{height:.1f}z"
            if block.labels is None:
                paths.append(tag("path", d="".join(path_by_bar.values()), class_=f"bar {colour}"))
                continue
            # A bar says what it is where the mouse rests on it.
            for bar, path in path_by_bar.items():
                title = tag("title", f"{block.labels[place][bar]}: {share[bar]:.1%}")
                paths.append(tag("path", title, d=path, class_=f"bar {colour}"))
        picture = tag(
            "svg",
            *paths,
            tag("path", d=f"M0 {BARS_HEIGHT:g}H{BARS_WIDTH:g}", class_="grid"),
            class_="bars",
            viewBox=f"0 0 {BARS_WIDTH:g} {BARS_HEIGHT + 1:g}",
            role="img",
            aria_label=f"histogram of place {name}",
        )
        words = f" up to {highest:.0%}"
        if block.labels is not None:
            words += f", {block.labels[place][0]} to {block.labels[place][-1]}"
        caption = tag("figcaption", name, tag("small", words))
        panels.append(tag("figure", picture, caption))
    return join_html(tag("ul", *legend, class_="legend"), tag("div", *panels, class_="places"))


def draw_associations(block: Associations) -> Html:
    """Draws what each place tells of each other one: of the data, of samples, and their difference."""
    figures = [_draw_pairs(block.names, block.samples, 1.0, "samples")]
    if block.data is not None:
        figures.insert(0, _draw_pairs(block.names, block.data, 1.0, "data"))
        difference = block.samples - block.data
        largest = float(np.abs(difference).max())
        figures.append(_draw_pairs(block.names, difference, largest, "samples - data"))
    return tag("div", *figures, class_="beside")


def _draw_pairs(names: Sequence[str], values: np.ndarray, largest: float, title: str) -> Html:
    """Draws values of pairs [places, places] below the diagonal, on which the names of places stand.

    Args:
        names: of the places.
        values: symmetric; those below 0 have a colour of their own.
        largest: the absolute value that has the full colour.
        title: what the values are of.
    """
    cells = []
    widths = []
    for i, name in enumerate(names):
        for j in range(i):
            value = values[i, j]
            attributes = {"x": PAIR * j, "y": PAIR * i, "width": PAIR - 1, "height": PAIR - 1}
            colour = "run-0" if value >= 0 else "run-1"
            opacity = abs(float(value)) / (largest or 1)
            words = tag("title", f"{names[j]}, {name}: {value:.2f}")
            cells.append(tag("rect", words, **attributes, class_=f"bar {colour}", fill_opacity=opacity))
        cells.append(tag("text", name, x=PAIR * i + 3, y=PAIR * (i + 0.75)))
        widths.append(PAIR * i + LETTER * (len(name) + 1))
    box = f"0 0 {max(widths):g} {PAIR * len(names):g}"
    picture = tag("svg", *cells, class_="labelled bars", viewBox=box, role="img", aria_label=title)
    return build_figure(picture, title.capitalize(), f"The full colour is {largest:.2f}.")


def _image(pixels: np.ndarray, x: int, y: int, width: float | int, height: float | int) -> Html:
    return tag("image", href=encode_png(pixels), class_="pixels", x=x, y=y, width=width, height=height)
