"""Defines the blocks that a kind turns examples into: pictures, films, texts and tables.

`kinds.files` makes files of them, and `report.blocks` HTML.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np


class Picture(NamedTuple):
    """Holds a picture of any size."""

    pixels: np.ndarray  # uint8 [H, W, 3]
    alt: str  # what is on it, for a reader who does not see it


class Tiles(NamedTuple):
    """Holds images of one size, which stand in a grid."""

    images: np.ndarray  # uint8 [N, H, W, 3]
    alt: str
    columns: int | None = None  # of the grid; without, it is a square in a file, and 8 wide on a page
    row_names: Sequence[str] = ()  # which a page has left of the rows


class Beside(NamedTuple):
    """Holds two pictures side by side, each below its title."""

    left: Picture | Tiles
    right: Picture | Tiles
    titles: tuple[str, str]
    alt: str  # of both, as "samples beside test data"


class Strip(NamedTuple):
    """Holds the states of chains of images side by side, a row for each chain."""

    states: np.ndarray  # uint8 [R, N, H, W, 3]
    times: Sequence[int]  # [R]
    what: str = "chains"  # what the states are of


class Chain(NamedTuple):
    """Holds chains of both processes: the forward one, from data to noise, above the reverse one."""

    forward: Strip  # t from 0 up
    reverse: Strip  # t from T down


class Film(NamedTuple):
    """Holds the states of chains of images, which play one after the other."""

    states: np.ndarray  # uint8 [R, N, H, W, 3]
    times: Sequence[int]  # [R]
    columns: int  # of each state's grid
    alt: str


class TextBlock(NamedTuple):
    """Holds a text that is shown as it is, line breaks and all."""

    text: str


class TextFilm(NamedTuple):
    """Holds the states of chains of texts, which play one after the other."""

    chains: Sequence[Sequence[Sequence[str | None]]]  # by chain, state and token; None is a mask
    times: Sequence[int]  # of the states
    steps: int  # of the process
    is_cut: bool  # whether a sample has more tokens than are shown


class Table(NamedTuple):
    """Holds a table, whose first column names the rows."""

    head: Sequence[object]
    rows: Sequence[Sequence[object]]


class Histograms(NamedTuple):
    """Holds a histogram of the categories of samples for each place, and one of the data beside it."""

    names: Sequence[str]  # of the places
    samples: np.ndarray  # shares float64 [places, bars]
    data: np.ndarray | None  # shares float64 [places, bars]; None where no examples are known
    width: int  # categories of a bar


Block = Picture | Tiles | Beside | Strip | Chain | Film | TextBlock | TextFilm | Table | Histograms
