"""Makes examples of one length from tokens: windows of a stream, or documents with padding."""

from typing import Any

import numpy as np

from d3pm_jax.checks import Size, declared, describe
from d3pm_jax.data.source import DatasetError, FunctionSource


class Windows(FunctionSource):
    """Source of the consecutive windows of `length` tokens; an incomplete last window is left out.

    Args:
        tokens: integers [n].
        length: of a window.
    """

    @declared()
    def __init__(self, tokens: Any, length: Size) -> None:
        _check_integers("tokens", tokens)
        self._tokens = tokens
        self._length = length
        super().__init__(len(tokens) // length, self._read_window)

    def _read_window(self, number: int) -> dict[str, Any]:
        stop = (number + 1) * self._length
        return {"x": np.asarray(self._tokens[stop - self._length : stop])}


class Overlapping(Windows):
    """Source of windows, each with the length - 1 tokens before it for `random_window` to shift it back.

    A random window may so begin at any token of the stream. The one of example i ends no later than window i
    does: tokens after it, such as windows that are held back from training, are not read.
    """

    def _read_window(self, number: int) -> dict[str, Any]:
        stop = (number + 1) * self._length
        start = max(0, stop - 2 * self._length + 1)
        return {"x": np.asarray(self._tokens[start:stop])}


def random_window(example: dict[str, Any], length: int, rng: np.random.Generator) -> dict[str, Any]:
    """Returns the example with `length` tokens from a random place of x."""
    start = rng.integers(len(example["x"]) - length + 1)
    return example | {"x": example["x"][start : start + length]}


class Padded(FunctionSource):
    """Source of documents, cut into pieces of `length` where they are longer; empty ones are left out.

    "weight" is 1 where x is a token. The tokens are followed by padding, where x and "weight" are 0.

    Args:
        tokens: integers [n].
        ends: int64 [documents], the index in tokens at which each document ends.
        length: of an example.
    """

    @declared()
    def __init__(self, tokens: Any, ends: Any, length: Size) -> None:
        _check_integers("tokens", tokens)
        _check_integers("ends", ends)
        if np.any(np.diff(ends, prepend=0) < 0) or (len(ends) and ends[-1] > len(tokens)):
            raise DatasetError(
                f"ends must rise from 0 to the number of tokens, {len(tokens)}, but are {ends.min()}.."
                f"{ends.max()}: make them by cumsum of the lengths of documents"
            )
        self._tokens = tokens
        self._bounds = np.insert(ends.astype(np.int64), 0, 0)  # [documents + 1]
        self._length = length
        # A document of n tokens has ceil(n / length) pieces. These are the cumulative sums: the number of
        # pieces before each document, and at the end that of all.
        self._pieces_before = np.insert(np.cumsum(-(-np.diff(self._bounds) // length)), 0, 0)
        super().__init__(int(self._pieces_before[-1]), self._read_piece)

    def ends_document(self, index: int) -> bool:
        """Says whether an example is the last piece of its document."""
        pieces_up_to_here = range(len(self))[index] + 1
        document = np.searchsorted(self._pieces_before, pieces_up_to_here)
        return bool(self._pieces_before[document] == pieces_up_to_here)

    def _read_piece(self, piece: int) -> dict[str, Any]:
        # Of empty documents, which have no pieces, and the one behind them the last is meant.
        document = int(np.searchsorted(self._pieces_before, piece, side="right")) - 1
        pieces_before_in_document = piece - int(self._pieces_before[document])
        start = int(self._bounds[document]) + pieces_before_in_document * self._length
        stop = min(start + self._length, int(self._bounds[document + 1]))
        tokens = np.asarray(self._tokens[start:stop])

        x = np.zeros(self._length, tokens.dtype)
        x[: len(tokens)] = tokens
        weight = np.zeros(self._length, np.float32)
        weight[: len(tokens)] = 1.0
        return {"x": x, "weight": weight}


def _check_integers(name: str, x: Any) -> None:
    """Raises DatasetError unless x is an array [n] of integers."""
    if not isinstance(x, np.ndarray) or x.ndim != 1 or not np.issubdtype(x.dtype, np.integer):
        raise DatasetError(f"{name} is {describe(x)}, expected an array of integers of one axis: convert it")
