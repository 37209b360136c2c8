"""Makes examples of one length from tokens: windows of a stream, or documents with padding."""

from typing import Any

import numpy as np


class Wrapped:
    """Gives the windows of `length` tokens one after the other; what is left at the end is left out.

    Args:
        tokens: [n].
        length: of a window.
    """

    def __init__(self, tokens: np.ndarray, length: int) -> None:
        self._tokens, self._length = tokens, length

    def __len__(self) -> int:
        return len(self._tokens) // self._length

    def __getitem__(self, index: int) -> dict[str, Any]:
        stop = (range(len(self))[index] + 1) * self._length
        return {"x": np.asarray(self._tokens[stop - self._length : stop])}


class Overlapping(Wrapped):
    """Gives each window with the length - 1 tokens before it, for `random_window` to cut one out.

    So every window of the stream up to the end of the last one is drawn, and what comes later, such as
    windows that are held back, is not seen.
    """

    def __getitem__(self, index: int) -> dict[str, Any]:
        stop = (range(len(self))[index] + 1) * self._length
        return {"x": np.asarray(self._tokens[max(0, stop - 2 * self._length + 1) : stop])}


def random_window(example: dict[str, Any], length: int, rng: np.random.Generator) -> dict[str, Any]:
    """Returns the example with `length` tokens from a random place of x."""
    start = rng.integers(len(example["x"]) - length + 1)
    return example | {"x": example["x"][start : start + length]}


class Padded:
    """Gives documents, cut into pieces of `length` where they are longer; empty ones are left out.

    Where x is a token "weight" is 1, on the padding behind it both are 0.

    Args:
        tokens: [n].
        ends: int64 [documents], where each ends in the tokens.
        length: of an example.
    """

    def __init__(self, tokens: np.ndarray, ends: np.ndarray, length: int) -> None:
        self._tokens, self._ends, self._length = tokens, ends, length
        self._pieces = np.cumsum(-(-np.diff(ends, prepend=0) // length))  # of all documents up to each

    def __len__(self) -> int:
        return int(self._pieces[-1]) if len(self._pieces) else 0

    def ends_document(self, index: int) -> bool:
        """Says whether an example is the last piece of its document."""
        number = range(len(self))[index] + 1
        return bool(self._pieces[np.searchsorted(self._pieces, number)] == number)

    def __getitem__(self, index: int) -> dict[str, Any]:
        number = range(len(self))[index]
        document = int(np.searchsorted(self._pieces, number, side="right"))
        left = int(self._pieces[document]) - number  # pieces of the document from this one on
        first = int(self._ends[document - 1]) if document else 0
        end = int(self._ends[document])
        pieces = -(-(end - first) // self._length)
        start = first + (pieces - left) * self._length
        found = np.asarray(self._tokens[start : min(start + self._length, end)])
        x, weight = np.zeros(self._length, found.dtype), np.zeros(self._length, np.float32)
        x[: len(found)], weight[: len(found)] = found, 1.0
        return {"x": x, "weight": weight}
