"""Finds nearest examples, and improved precision and recall (Kynkäänniemi et al. 2019, arXiv 1904.06991).

Both compare by squared L2 distance, in float64 and in parts, so that little memory is used.
"""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int, Shaped

CHUNK = 2048  # examples at a time, of either kind
K = 3  # as in the paper: the radius of a feature reaches to its third neighbour


def find_nearest(
    queries: Shaped[np.ndarray, "N ..."], examples: Shaped[np.ndarray, "M ..."]
) -> tuple[Int[np.ndarray, " N"], Float[np.ndarray, " N"]]:
    """Returns the index of the nearest example of each query, the first of several, and its squared distance.

    Exact for integers such as levels of grey, whose sums of squares float64 holds.

    Args:
        queries: [N, *S].
        examples: [M, *S].
    """
    index, least = np.zeros(len(queries), np.int64), np.full(len(queries), np.inf)
    for rows, first, squared in distance_blocks(queries, examples):
        here = squared.argmin(1)
        found = squared[np.arange(len(here)), here]
        closer = found < least[rows]
        index[rows] = np.where(closer, first + here, index[rows])
        least[rows] = np.where(closer, found, least[rows])
    return index, least


def distance_blocks(a: np.ndarray, b: np.ndarray) -> Iterator[tuple[slice, int, np.ndarray]]:
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


class PrecisionRecall(NamedTuple):
    """Says how much of the samples the data covers, and how much of the data the samples do."""

    precision: float  # samples within the radius of any example
    recall: float  # examples within the radius of any sample


def precision_recall(
    real: Float[np.ndarray, "N d"], samples: Float[np.ndarray, "M d"], k: int = K
) -> PrecisionRecall:
    """Computes both shares; the radius of a feature is the distance to its k-th neighbour of its own kind.

    Args:
        real: features of examples of the data; the paper takes as many as samples.
        samples: features of samples.
        k: which neighbour, not counting the feature itself.

    Raises:
        ValueError: there are not more than k of either.
    """
    for name, x in (("examples", real), ("samples", samples)):
        if len(x) <= k:
            raise ValueError(f"{len(x)} {name}: none has a neighbour number {k}; take {k + 1} or more")
    return PrecisionRecall(_covered(samples, real, k), _covered(real, samples, k))


def _covered(points: np.ndarray, by: np.ndarray, k: int) -> float:
    """Returns the share of points that lie within the radius of any of the others."""
    least = np.full((len(by), k), np.inf)  # the smallest squared distances of each of them to its own kind
    for rows, first, squared in distance_blocks(by, by):
        i = np.arange(rows.start, rows.start + len(squared))
        own = (i >= first) & (i < first + squared.shape[1])
        squared[own, i[own] - first] = np.inf
        least[rows] = np.partition(np.concatenate([least[rows], squared], axis=1), k - 1, axis=1)[:, :k]
    radius = least.max(1)
    inside = np.zeros(len(points), bool)
    for rows, first, squared in distance_blocks(points, by):
        inside[rows] |= (squared <= radius[None, first : first + squared.shape[1]]).any(1)
    return float(inside.mean())
