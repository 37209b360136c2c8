"""Defines the kind of data of which nothing is known: arrays of integers, written and shown as numbers."""

import itertools
from collections.abc import Sequence
from typing import ClassVar

import numpy as np

from d3pm_jax.kinds.base import Kind, Samples, States
from d3pm_jax.kinds.blocks import Block, Histograms, Table

ROWS = 16  # samples in a table
PLACES = 32  # elements of a sample in a table, and histograms, at most: the first ones
MASK = "mask"  # in place of the number of a category that the data does not have


class ArrayKind(Kind):
    """Says that examples are arrays of integers of any shape."""

    name = "array"
    lines_shown = shown_in_file = ROWS
    bars: ClassVar[int] = 64
    """bars of a histogram, at most: where there are more categories, a bar is of several"""

    def name_places(self, shape: tuple[int, ...]) -> list[str]:
        """Names the first places of an example: "3", or "0, 3" where there are two axes."""
        indices = itertools.islice(np.ndindex(shape), PLACES)
        return [", ".join(map(str, index)) for index in indices]

    def name_category(self, place: int, category: int) -> str:
        """Returns a category as a cell of a table shows it, of the place with this number."""
        return str(category)

    def list_sizes(self, levels: int, num_places: int) -> list[int]:
        """Lists how many categories each of the first places may have."""
        sizes = self.description.sizes
        if sizes is None:
            return [levels] * num_places
        return np.ravel(sizes)[:num_places].tolist()

    def show_samples(self, samples: Samples) -> Block | None:
        rows = [[str(i), *self._format_elements(x, samples.levels)] for i, x in enumerate(samples.x)]
        return Table(["number", *self._head_of_elements(samples.x.shape[1:])], rows)

    def show_histograms(self, samples: Samples, examples: Samples | None) -> Histograms:
        names = self.name_places(samples.x.shape[1:])
        sizes = self.list_sizes(samples.levels, len(names))
        widths = [-(-size // self.bars) for size in sizes]
        shares_of_data = None
        if examples is not None:
            shares_of_data = _count_shares(examples.x, sizes, widths)
        shares = _count_shares(samples.x, sizes, widths)
        return Histograms(names, shares, shares_of_data, max(widths))

    def show_chain(self, states: States) -> Block | None:
        first_chain = states.x[:, 0]  # [R, *S]
        chain = zip(states.times, first_chain, strict=True)
        rows = [[f"t = {t}", *self._format_elements(x, states.levels)] for t, x in chain]
        return Table(["state", *self._head_of_elements(first_chain.shape[1:])], rows)

    def _head_of_elements(self, shape: tuple[int, ...]) -> list[str]:
        """Returns the titles of the columns of elements, the last of which counts those that are left out."""
        names = self.name_places(shape)
        num_hidden = int(np.prod(shape)) - len(names)
        if num_hidden:
            names.append(f"and {num_hidden:,} more")
        return names

    def _format_elements(self, x: np.ndarray, levels: int) -> list[str]:
        """Returns the first elements of x [*S] as the cells of a row; those of padding, -1, are empty."""
        categories = x.ravel()[:PLACES].tolist()
        cells = []
        for place, size in enumerate(self.list_sizes(levels, len(categories))):
            category = categories[place]
            if category < 0:
                cells.append("")
            elif category >= size:
                cells.append(MASK)
            else:
                cells.append(self.name_category(place, category))
        return cells


def _count_shares(x: np.ndarray, sizes: Sequence[int], widths: Sequence[int]) -> list[np.ndarray]:
    """Counts how often each of the first places has the categories of each bar.

    Args:
        x: int [N, *S], whose padding and masks are left out.
        sizes: categories of each place.
        widths: categories of a bar of each place.

    Returns:
        The shares of each place, float64 [bars], which sum to 1, or are 0 where it is all padding.
    """
    elements = x.reshape(len(x), -1)  # [N, places and others]
    shares = []
    for place, (size, width) in enumerate(zip(sizes, widths, strict=True)):
        categories = elements[:, place]
        shown = categories[(categories >= 0) & (categories < size)]
        counts = np.bincount(shown // width, minlength=-(-size // width))
        shares.append(counts / max(1, len(shown)))
    return shares
