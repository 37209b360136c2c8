"""Defines the kind of data of which nothing is known: arrays of integers, written and shown as numbers."""

import itertools

import numpy as np

from d3pm_jax.kinds.base import Kind, Samples, States
from d3pm_jax.kinds.blocks import Block, Histograms, Table

ROWS = 16  # samples in a table
PLACES = 32  # elements of a sample in a table, and histograms, at most: the first ones
BARS = 64  # of a histogram, at most: where there are more categories, a bar is of several
MASK = "mask"  # in place of the number of a category that the data does not have


class ArrayKind(Kind):
    """Says that examples are arrays of integers of any shape."""

    name = "array"
    lines_shown = shown_in_file = ROWS

    def show_samples(self, samples: Samples) -> Block | None:
        rows = [[str(i), *_format_elements(x, samples.levels)] for i, x in enumerate(samples.x)]
        return Table(["number", *_head_of_elements(samples.x.shape[1:])], rows)

    def show_histograms(self, samples: Samples, examples: Samples | None) -> Histograms | None:
        width = -(-samples.levels // BARS)
        shares_of_data = None
        if examples is not None:
            shares_of_data = _count_shares(examples, width)
        names = _name_places(samples.x.shape[1:])
        return Histograms(names, _count_shares(samples, width), shares_of_data, width)

    def show_chain(self, states: States) -> Block | None:
        first_chain = states.x[:, 0]  # [R, *S]
        chain = zip(states.times, first_chain, strict=True)
        rows = [[f"t = {t}", *_format_elements(x, states.levels)] for t, x in chain]
        return Table(["state", *_head_of_elements(first_chain.shape[1:])], rows)


def _name_places(shape: tuple[int, ...]) -> list[str]:
    """Names the first places of a shape: "3", or "0, 3" where there are two axes."""
    indices = itertools.islice(np.ndindex(shape), PLACES)
    return [", ".join(map(str, index)) for index in indices]


def _head_of_elements(shape: tuple[int, ...]) -> list[str]:
    """Returns the titles of the columns of elements, the last of which counts those that are left out."""
    names = _name_places(shape)
    num_hidden = int(np.prod(shape)) - len(names)
    if num_hidden:
        names.append(f"and {num_hidden:,} more")
    return names


def _format_elements(x: np.ndarray, levels: int) -> list[str]:
    """Returns the first elements of x [*S] as the cells of a row; those of padding, -1, are empty."""
    cells = []
    for category in x.ravel()[:PLACES].tolist():
        if category < 0:
            cells.append("")
        elif category >= levels:
            cells.append(MASK)
        else:
            cells.append(str(category))
    return cells


def _count_shares(samples: Samples, width: int) -> np.ndarray:
    """Counts how often each of the first places has the categories of each bar.

    Args:
        samples: whose padding and masks are left out.
        width: categories of a bar.

    Returns:
        The shares of each place, float64 [places, bars], which sum to 1, or are 0 where it is all padding.
    """
    elements = samples.x.reshape(len(samples.x), -1)[:, :PLACES]  # [N, places]
    num_bars = -(-samples.levels // width)
    shares = np.zeros((elements.shape[1], num_bars))
    for place, categories in enumerate(elements.T):
        shown = categories[(categories >= 0) & (categories < samples.levels)]
        counts = np.bincount(shown // width, minlength=num_bars)
        shares[place] = counts / max(1, len(shown))
    return shares
