"""Lays out parameters of networks where each place of an example has its own number of categories.

What belongs to one place stands together, place after place in C order: the rows of a table of embeddings,
and the columns of a last layer. So there are as many as there are categories in all, and none for padding.
"""

import itertools
import math
from collections.abc import Sequence
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.lax import split
from jaxtyping import Array, Float, Int

from d3pm_jax.checks import is_known, shorten_value

# Of places with more categories rows of the table are looked up. Those with fewer are one product with their
# one-hots, which takes less time than to write a row for each place, and to add to rows for the gradient.
MOST_ONE_HOTS = 64


class Places(NamedTuple):
    """Says how many categories each place of an example has."""

    shape: tuple[int, ...]
    """*S"""
    K: int
    """categories of the logits"""
    sizes: tuple[int, ...]
    """categories of each place, in C order"""
    has_mask: bool
    """category K - 1 is a mask that places hold beside their own categories; it is never predicted"""

    @property
    def num_logits(self) -> int:
        """The number of logits of an example, without padding."""
        return sum(self.sizes)

    @property
    def row_counts(self) -> tuple[int, ...]:
        """How many categories each place may hold, its own and the mask: each has a row of the table."""
        return tuple(size + self.has_mask for size in self.sizes)

    def check_shape(self, x: Array) -> None:
        """Raises ValueError unless x [B, *S] holds examples of these places."""
        if x.shape[1:] != self.shape:
            raise ValueError(
                f"xt has shape {list(x.shape)}, but the network was made for examples of shape "
                f"{list(self.shape)}"
            )

    def find_rows(self, x: Int[Array, " B *S"]) -> Int[Array, "B D"]:
        """Returns which row of the table each category has; one behind the last, whose values are NaN, where
        the place does not have the category, and the values of x are known only when the program runs.

        Raises:
            ValueError: examples have another shape, or a place does not have a category that is known.
        """
        self.check_shape(x)
        sizes = np.asarray(self.sizes).reshape(1, *self.shape)
        if is_known(x):
            values = np.asarray(x)
            is_wrong = (values >= sizes) & ~((values == self.K - 1) & self.has_mask)
            for index in np.argwhere(is_wrong)[:1]:
                place = tuple(index[1:].tolist())
                raise ValueError(
                    f"xt contains {values[tuple(index)]} at place {place}, which has {sizes[0][place]} "
                    f"categories: give it more or fix the data"
                )
        x = x.reshape(len(x), -1)
        sizes = sizes.reshape(1, -1)
        is_own = x < sizes
        is_mask = (x == self.K - 1) & self.has_mask
        counts = np.asarray(self.row_counts)[None]
        first_rows = np.cumsum(counts) - counts
        return jnp.where(is_own, first_rows + x, jnp.where(is_mask, first_rows + sizes, counts.sum()))

    def sum_rows(self, table: Float[Array, "R n"], rows: Int[Array, "B D"]) -> Float[Array, "B n"]:
        """Returns the sum of table[rows] over places: one linear map of the one-hots of all places."""
        counts = np.asarray(self.row_counts)
        total = jnp.where(jnp.any(rows == len(table), axis=1, keepdims=True), jnp.nan, 0.0)
        total = total.astype(table.dtype)
        start = 0
        for has_many, length in find_runs((counts > MOST_ONE_HOTS).tolist()):
            places = slice(start, start + length)
            start += length
            if has_many:
                total = total + look_up(table, rows[:, places]).sum(1)
                continue
            first, last = counts[: places.start].sum(), counts[: places.stop].sum()
            place_of_row = np.repeat(np.arange(length), counts[places])
            one_hots = rows[:, places][:, place_of_row] == np.arange(first, last)[None]  # [B, last - first]
            total = total + one_hots.astype(table.dtype) @ table[first:last]
        return total

    def split_logits(self, flat: Float[Array, "B num_logits"]) -> Float[Array, "B *S K"]:
        """Returns the logits of all places, one after the other, as [B, *S, K], -inf where there are none."""
        runs = find_runs(self.sizes)
        # There is no gather, so that XLA can move slices of the result through the concatenation and the
        # padding: a loss that takes each place by itself never makes the padded array.
        padded = []
        parts = split(flat, [size * length for size, length in runs], 1)
        for (size, length), part in zip(runs, parts, strict=True):
            own = part.reshape(-1, length, size)
            widths = ((0, 0), (0, 0), (0, self.K - size))
            padded.append(jnp.pad(own, widths, constant_values=-jnp.inf))
        return jnp.concatenate(padded, axis=1).reshape(-1, *self.shape, self.K)

    def apply_heads(self, head: nnx.Linear, h: Float[Array, "B D n"]) -> Float[Array, "B *S K"]:
        """Returns logits of vectors, one of each place, by the columns of a last layer that are its own."""
        assert head.bias is not None
        runs = find_runs(self.sizes)
        kernels = split(head.kernel[...], [size * length for size, length in runs], 1)
        vectors = split(h, [length for _, length in runs], 1)
        flat = []
        for (size, length), kernel, h_of_run in zip(runs, kernels, vectors, strict=True):
            maps = kernel.reshape(-1, length, size)
            flat.append(jnp.einsum("bdn,ndk->bdk", h_of_run, maps).reshape(len(h), -1))
        return self.split_logits(jnp.concatenate(flat, axis=1) + head.bias[...][None])


def find_runs(values: Sequence[int]) -> list[tuple[int, int]]:
    """Returns each value with the length of its run of equal values."""
    return [(value, len(list(equal_values))) for value, equal_values in itertools.groupby(values)]


def look_up(table: Float[Array, "R n"], rows: Int[Array, "B D"]) -> Float[Array, "B D n"]:
    """Returns table[rows], and NaN for a row behind the last."""
    return jnp.take(table, rows, axis=0, mode="fill", fill_value=jnp.nan)


def make_places(shape: tuple[int, ...], K: int, sizes: tuple | None) -> Places:
    """Makes the places of examples.

    Args:
        shape: *S.
        K: categories of x_t and of the logits.
        sizes: categories of each place, nested tuples with the shape *S. None: each has K.

    Raises:
        ValueError: sizes has another shape or a number below 1, or K is neither the largest nor one more.
    """
    if sizes is None:
        return Places(shape, K, (K,) * math.prod(shape), has_mask=False)
    try:
        array = np.asarray(sizes)
    except ValueError:
        # Of tuples of different lengths there is no array.
        array = np.zeros(0)
    if array.shape != shape or array.dtype.kind not in "iu" or array.min() < 1:
        raise ValueError(
            f"sizes = {shorten_value(sizes)}: pass the number of categories of each place of an example, "
            f"tuples of the shape {list(shape)}"
        )
    largest = int(array.max())
    if K - largest not in (0, 1):
        raise ValueError(
            f"K = {K}, but sizes go up to {largest}: K is the largest size, or with an extra mask one more"
        )
    return Places(shape, K, tuple(map(int, array.ravel())), has_mask=largest < K)
