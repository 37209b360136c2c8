"""Finds nearest examples by squared L2 distance, in float64 and in parts, so that little memory is used."""

from collections.abc import Iterator

import numpy as np
from jaxtyping import Float, Int, Shaped

CHUNK = 2048  # examples at a time, of either kind


def find(
    queries: Shaped[np.ndarray, "N ..."], examples: Shaped[np.ndarray, "M ..."]
) -> tuple[Int[np.ndarray, " N"], Float[np.ndarray, " N"]]:
    """Returns the index of the nearest example of each query, the first of several, and its squared distance.

    Exact for integers such as levels of grey, whose sums of squares float64 holds.

    Args:
        queries: [N, *S].
        examples: [M, *S].
    """
    index, least = np.zeros(len(queries), np.int64), np.full(len(queries), np.inf)
    for rows, first, squared in blocks(queries, examples):
        here = squared.argmin(1)
        found = squared[np.arange(len(here)), here]
        closer = found < least[rows]
        index[rows] = np.where(closer, first + here, index[rows])
        least[rows] = np.where(closer, found, least[rows])
    return index, least


def blocks(a: np.ndarray, b: np.ndarray) -> Iterator[tuple[slice, int, np.ndarray]]:
    """Gives squared distances between parts of a and b: rows of a, the first row of b, and [n, m]."""
    for j in range(0, len(b), CHUNK):
        right = _flat(b[j : j + CHUNK])
        for i in range(0, len(a), CHUNK):
            left = _flat(a[i : i + CHUNK])
            inner = left @ right.T
            squared = np.square(left).sum(1)[:, None] + np.square(right).sum(1)[None] - 2 * inner
            yield slice(i, i + CHUNK), j, np.maximum(squared, 0.0)  # below 0 by rounding alone


def _flat(x: np.ndarray) -> np.ndarray:
    return np.asarray(x, np.float64).reshape(len(x), -1)
