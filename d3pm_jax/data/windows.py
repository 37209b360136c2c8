"""Makes examples of one length from tokens: windows of a stream, or documents with padding."""

from typing import Any

import numpy as np


class Wrapped:
    """Source of windows of `length` tokens, one after the other; what is left at the end is left out.

    Args:
        tokens: [n].
        length: of a window.
    """

    def __init__(self, tokens: np.ndarray, length: int) -> None:
        self._tokens = tokens
        self._length = length

    def __len__(self) -> int:
        return len(self._tokens) // self._length

    def __getitem__(self, index: int) -> dict[str, Any]:
        stop = (range(len(self))[index] + 1) * self._length
        return {"x": np.asarray(self._tokens[stop - self._length : stop])}


class Overlapping(Wrapped):
    """Source of windows with the length - 1 tokens before each, for `random_window` to cut one out.

    So a window of the stream may begin at any token, and none reaches beyond the window of its number: what
    comes later, such as windows that are held back from training, is not seen.
    """

    def __getitem__(self, index: int) -> dict[str, Any]:
        stop = (range(len(self))[index] + 1) * self._length
        start = max(0, stop - 2 * self._length + 1)
        return {"x": np.asarray(self._tokens[start:stop])}


def random_window(example: dict[str, Any], length: int, rng: np.random.Generator) -> dict[str, Any]:
    """Returns the example with `length` tokens from a random place of x."""
    start = rng.integers(len(example["x"]) - length + 1)
    return example | {"x": example["x"][start : start + length]}


class Padded:
    """Source of documents, in pieces of `length` where they are longer; empty ones are left out.

    "weight" is 1 where x is a token. On the padding behind the tokens x and "weight" are 0.

    Args:
        tokens: [n].
        ends: int64 [documents], where each ends in the tokens.
        length: of an example.
    """

    def __init__(self, tokens: np.ndarray, ends: np.ndarray, length: int) -> None:
        self._tokens = tokens
        self._ends = ends
        self._length = length
        # Each document has ceil(tokens / length) pieces. These are the pieces of all documents up to each.
        self._pieces = np.cumsum(-(-np.diff(ends, prepend=0) // length))  # [documents]

    def __len__(self) -> int:
        if not len(self._pieces):
            return 0
        return int(self._pieces[-1])

    def ends_document(self, index: int) -> bool:
        """Says whether an example is the last piece of its document."""
        number = range(len(self))[index] + 1
        return bool(self._pieces[np.searchsorted(self._pieces, number)] == number)

    def __getitem__(self, index: int) -> dict[str, Any]:
        number = range(len(self))[index]
        document = int(np.searchsorted(self._pieces, number, side="right"))
        document_start = int(self._ends[document - 1]) if document else 0
        document_end = int(self._ends[document])

        # Counted from the end of the document, where `_pieces` says how many there are up to it.
        pieces_in_document = -(-(document_end - document_start) // self._length)
        pieces_from_here = int(self._pieces[document]) - number
        start = document_start + (pieces_in_document - pieces_from_here) * self._length
        tokens = np.asarray(self._tokens[start : min(start + self._length, document_end)])

        x = np.zeros(self._length, tokens.dtype)
        x[: len(tokens)] = tokens
        weight = np.zeros(self._length, np.float32)
        weight[: len(tokens)] = 1.0
        return {"x": x, "weight": weight}
