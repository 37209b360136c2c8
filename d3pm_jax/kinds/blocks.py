"""Defines the blocks that a kind turns examples into: pictures, films, texts and tables.

`kinds.files` makes files of them, and `report.blocks` HTML.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, TypeVar

import numpy as np

from d3pm_jax.errors import wrong_return

__all__ = [
    "Associations",
    "Beside",
    "Chain",
    "Film",
    "Histograms",
    "Picture",
    "Strip",
    "Table",
    "TextBlock",
    "TextFilm",
    "Tiles",
]

T = TypeVar("T")


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
    samples: Sequence[np.ndarray]  # of each place its shares float64 [bars]
    data: Sequence[np.ndarray] | None  # of each place its shares float64 [bars]; None: no examples are known
    width: int  # categories of a bar, at most
    labels: Sequence[Sequence[str]] | None = None  # of each place what its bars stand for; None for numbers


class Associations(NamedTuple):
    """Holds how much each place of samples tells of each other one, and the same of the data beside it."""

    names: Sequence[str]  # of the places
    samples: np.ndarray  # float64 [places, places], symmetric, in 0..1
    data: np.ndarray | None  # float64 [places, places]; None where no examples are known
    measure: str  # what says how much


Block = (
    Picture | Tiles | Beside | Strip | Chain | Film | TextBlock | TextFilm | Table | Histograms | Associations
)

# What a method of a kind returns, by its name; others return any block. Each may return None.
RETURNED = {
    "show_target": (Picture,),
    "show_histograms": (Histograms,),
    "show_associations": (Associations,),
    "show_film": (Film, TextFilm),
}


def draw_block(show: Callable[..., T], *args: Any) -> T:
    """Calls a method of a kind that shows something, and checks the block that it returns.

    Raises:
        UserError: it returns no such block, or one whose fields are not what they have to be.
    """
    block = show(*args)
    cure = None
    if block is not None and not isinstance(block, RETURNED.get(show.__name__, Block)):
        names = [cls.__name__ for cls in RETURNED.get(show.__name__, ())]
        cure = f"{' or '.join(names) or 'a block of d3pm_jax.kinds.blocks'}, or None"
    else:
        cure = _find_cure(block)
    if cure is not None:
        raise wrong_return(show, block, cure)
    return block


def _find_cure(block: Any) -> str | None:
    """Says which block has to be in the place of one whose fields are wrong; None where they are right."""
    match block:
        case Picture(pixels, _) if not _are_pixels(pixels, 3):
            return "a Picture whose pixels are a NumPy array uint8 [H, W, 3]"
        case Tiles(images, _, _, _) if not _are_pixels(images, 4):
            return "Tiles whose images are a NumPy array uint8 [N, H, W, 3]"
        case Beside(left, right, _, _):
            if not (isinstance(left, Picture | Tiles) and isinstance(right, Picture | Tiles)):
                return "Beside whose left and right are Picture or Tiles"
            return _find_cure(left) or _find_cure(right)
        case Chain(forward, reverse):
            if not (isinstance(forward, Strip) and isinstance(reverse, Strip)):
                return "a Chain of two Strips"
            return _find_cure(forward) or _find_cure(reverse)
        case Strip(states, times, _) | Film(states, times, _, _):
            name = type(block).__name__
            if not _are_pixels(states, 5):
                return f"a {name} whose states are a NumPy array uint8 [R, N, H, W, 3]"
            if not isinstance(times, Sequence) or len(times) != len(states):
                return f"a {name} with a list of {len(states)} times, one for each state, as states.times"
        case TextBlock(text) if not isinstance(text, str):
            return "a TextBlock of a str"
    return None


def _are_pixels(pixels: Any, axes: int) -> bool:
    """Tells whether this is an array of pictures, uint8 [.., 3], with so many axes."""
    is_array = isinstance(pixels, np.ndarray) and pixels.dtype == np.uint8 and pixels.ndim == axes
    return is_array and pixels.size > 0 and pixels.shape[-1] == 3
