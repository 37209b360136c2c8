"""Reads rows of logits in slices and blocks, for row functions whose additions have an order of their own.

A *slice* has the first, or the second, .. category of every block of a row, so that blocks are added up from
left to right by adding slices. A *block* is read again where something in it is searched.
"""

import abc
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Int

# Rows of a block. A row longer than CHUNK is read in chunks of so many.
MOST_ROWS = 64
CHUNK = 4096

_elements_per_warp: dict[Callable[..., Any], int] = {}


def reads_slices(per_warp: int) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Marks a row function that takes a `SlicedRow`, of any length, and its tables from there.

    Args:
        per_warp: how many elements a warp holds. The more, the fewer threads compute what a row has one of;
            more than its registers can hold go to memory.
    """

    def mark(f: Callable[..., Any]) -> Callable[..., Any]:
        _elements_per_warp[f] = per_warp
        return f

    return mark


def takes_slices(f: Any) -> bool:
    """Says whether a row function is marked by `reads_slices`."""
    return f in _elements_per_warp


def choose_block(f: Callable[..., Any], K: int) -> tuple[int, int, int]:
    """Returns how many categories, rows and warps a block of a kernel has."""
    per_warp = _elements_per_warp[f]
    P = min(_next_power_of_2(K), CHUNK)
    R = max(1, min(MOST_ROWS, per_warp // P))
    return P, R, max(1, R * P // per_warp)


class RowPart(NamedTuple):
    """Holds some categories of each row."""

    logits: Array  # [R, n]; -inf beyond K
    categories: Array  # [R or 1, n], int32
    tables: Sequence[Array]  # at the categories, [R or 1, n]


class SlicedRow(abc.ABC):
    """Reads a block of R rows. Where XLA takes all rows at once, R stands for *S."""

    K: int
    shape: tuple[int, ...]  # [R]
    dtype: Any  # of the logits
    num_chunks: int

    @abc.abstractmethod
    def slices(self, size: int, chunk: int | Array = 0) -> list[RowPart]:
        """Cuts a chunk into blocks, and returns their first categories, their second ones, and so on.

        Args:
            size: of a block.
            chunk: which one is cut, for all rows or for each, [R].
        """

    @abc.abstractmethod
    def block(self, index: Array, size: int) -> RowPart:
        """Returns the block of so many categories with the number index [R], and what may be behind it."""

    @abc.abstractmethod
    def split(self, x: Array, size: int) -> list[Array]:
        """Returns the first entries [R, m] of blocks of x [R, m size], the second ones, and so on.

        Where x is shorter than a block, it is cut into its entries.
        """

    @abc.abstractmethod
    def gather(self, x: Array, index: Array, size: int) -> list[Array]:
        """Returns the entries [R] of the block of x [R, m size] with the number index [R]."""

    @abc.abstractmethod
    def hold(self, x: Any) -> Any:
        """Returns x, which is computed once, and not anew in all that reads it."""

    def over_chunks(self, f: Callable[[Any, Any], Any], start: Any) -> Any:
        """Returns f(n - 1, .. f(1, f(0, start))) of n chunks."""
        if self.num_chunks == 1:
            return f(0, start)
        return lax.fori_loop(0, self.num_chunks, f, start)


class SlicesOfArray(SlicedRow):
    """Has all rows in an array."""

    num_chunks = 1

    def __init__(self, logits: Array, tables: Sequence[Array]):
        self.K = logits.shape[-1]
        self.shape = logits.shape[:-1]
        self.dtype = logits.dtype
        self._logits = logits
        self._tables = tables

    def slices(self, size: int, chunk: int | Array = 0) -> list[RowPart]:
        logits = self.split(pad(self._logits, size, -jnp.inf), size)
        tables = [self.split(pad(table, size, 0.0), size) for table in self._tables]
        first = _as_row(jnp.arange(0, self.K, size, dtype=jnp.int32), self._logits.ndim - 1)
        return [RowPart(logits[i], first + i, [table[i] for table in tables]) for i in range(size)]

    def block(self, index: Array, size: int) -> RowPart:
        within = _as_row(jnp.arange(size, dtype=jnp.int32), index.ndim)
        categories = index[..., None] * size + within
        tables = [table.reshape(-1).at[categories].get(mode="clip") for table in self._tables]
        return RowPart(gather_block(pad(self._logits, size, -jnp.inf), index, size), categories, tables)

    def split(self, x: Array, size: int) -> list[Array]:
        size = min(size, x.shape[-1])
        x = pad(x, size, 0.0)
        blocks = jnp.reshape(x, (*x.shape[:-1], x.shape[-1] // size, size))  # [*S, m, size]
        return [blocks[..., i] for i in range(size)]

    def gather(self, x: Array, index: Array, size: int) -> list[Array]:
        size = min(size, x.shape[-1])
        block = gather_block(pad(x, size, 0.0), index, size)  # [*S, size]
        return [block[..., i] for i in range(size)]

    def hold(self, x: Any) -> Any:
        return lax.optimization_barrier(x)


def _as_row(x: Array, ndim: int) -> Array:
    """Puts so many axes of size 1 before that of x [n]."""
    return x.reshape((1,) * ndim + x.shape)


def pad(x: Float[Array, "*S n"], size: int, value: float) -> Float[Array, "*S m"]:
    """Appends entries of this value, so that blocks of this size divide the last axis."""
    missing = -x.shape[-1] % size
    return jnp.pad(x, [(0, 0)] * (x.ndim - 1) + [(0, missing)], constant_values=value)


def gather_block(x: Float[Array, "*S n"], index: Int[Array, "*S"], size: int) -> Float[Array, "*S size"]:
    """Gathers of each row the block that the index counts."""
    if x.shape[-1] == size:
        return x
    blocks = jnp.reshape(x, (*x.shape[:-1], x.shape[-1] // size, size))  # [*S, m, size]
    return jnp.take_along_axis(blocks, index[..., None, None], axis=-2, mode="promise_in_bounds")[..., 0, :]


class SlicesInMemory(SlicedRow):
    """Loads a block of rows, what is read of them and no more."""

    def __init__(
        self, logits_ref: Any, table_refs: Sequence[Any], rows: Array, is_row: Array, K: int, P: int
    ):
        self.K = K
        self.shape = rows.shape
        self.dtype = jnp.float32
        self.num_chunks = -(-K // P)
        self._logits_ref = logits_ref
        self._table_refs = table_refs
        self._rows = rows
        self._is_row = is_row
        self._P = P
        self._slices: dict[int, list[RowPart]] = {}

        from jax.experimental.pallas import triton

        self._triton = triton

    def _load_part(self, categories: Array) -> RowPart:
        tables = [self._load_table(ref, categories) for ref in self._table_refs]
        return RowPart(self._load(categories), categories, tables)

    def _load(self, categories: Array) -> Array:
        place = self._logits_ref.at[self._rows[:, None] * self.K + categories]
        is_entry = self._is_row[:, None] & (categories < self.K)
        return self._triton.load(place, mask=is_entry, other=-jnp.inf).astype(jnp.float32)

    def _load_table(self, ref: Any, categories: Array) -> Array:
        return self._triton.load(ref.at[categories], mask=categories < self.K, other=0)

    def slices(self, size: int, chunk: int | Array = 0) -> list[RowPart]:
        blocks = _next_power_of_2(-(-min(self.K, self._P) // size))
        first = jnp.arange(blocks, dtype=jnp.int32)[None, :] * size
        if self.num_chunks > 1:
            first += jnp.broadcast_to(chunk, self._rows.shape)[:, None] * self._P
            return [self._load_part(first + i) for i in range(size)]

        # A row of one chunk is loaded once.
        if size not in self._slices:
            self._slices[size] = [self._load_part(first + i) for i in range(size)]
        return self._slices[size]

    def block(self, index: Array, size: int) -> RowPart:
        within = jnp.arange(_next_power_of_2(size), dtype=jnp.int32)
        return self._load_part(index[:, None] * size + within[None, :])

    # An entry in registers is picked by a sum of it and zeros, which is exact.

    def split(self, x: Array, size: int) -> list[Array]:
        R, n = x.shape
        size = min(size, n)
        blocks = x.reshape(R, n // size, size)
        within = jnp.arange(size, dtype=jnp.int32)[None, None, :]
        return [jnp.sum(jnp.where(within == i, blocks, 0), axis=-1) for i in range(size)]

    def gather(self, x: Array, index: Array, size: int) -> list[Array]:
        n = x.shape[-1]
        if n <= size:
            return [jnp.squeeze(entry, -1) for entry in self.split(x, size)]
        places = jnp.arange(n, dtype=jnp.int32)[None, :]
        first = index[:, None] * size
        return [jnp.sum(jnp.where(places == first + i, x, 0), axis=-1) for i in range(size)]

    def hold(self, x: Any) -> Any:
        return x


def _next_power_of_2(n: int) -> int:
    return 1 << (n - 1).bit_length()
