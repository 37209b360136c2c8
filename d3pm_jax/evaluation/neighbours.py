"""Finds nearest examples, and computes improved precision and recall.

These are those of Kynkäänniemi et al. 2019 (arXiv 1904.06991).

Both compare by squared L2 distance, in float64, in blocks of CHUNK x CHUNK pairs to need little memory.
"""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int, Shaped

__all__ = ["PrecisionRecall", "precision_recall"]

CHUNK = 2048  # examples at a time, of either kind
K = 3  # as in the paper: the radius of a feature reaches to its third neighbour


def find_nearest(
    queries: Shaped[np.ndarray, "N ..."], examples: Shaped[np.ndarray, "M ..."]
) -> tuple[Int[np.ndarray, " N"], Float[np.ndarray, " N"]]:
    """Returns the index of the nearest example of each query, and its squared distance.

    Of several nearest examples it is the first. Exact for integers such as levels of grey, whose sums of
    squares float64 holds.

    Args:
        queries: [N, *S].
        examples: [M, *S].
    """
    index = np.zeros(len(queries), np.int64)
    least = np.full(len(queries), np.inf)  # squared distances
    for rows, first, squared in distance_blocks(queries, examples):
        column = squared.argmin(1)
        distance = squared[np.arange(len(column)), column]
        closer = distance < least[rows]
        index[rows] = np.where(closer, first + column, index[rows])
        least[rows] = np.where(closer, distance, least[rows])
    return index, least


def distance_blocks(a: np.ndarray, b: np.ndarray) -> Iterator[tuple[slice, int, np.ndarray]]:
    """Yields the squared distances between rows of a and of b in blocks.

    Yields:
        The rows of a, the first row of b, and the distances [n, m] between the n rows of a and m rows of b.
        All blocks of the first rows of b come first.
    """
    for j in range(0, len(b), CHUNK):
        right = _flat(b[j : j + CHUNK])
        for i in range(0, len(a), CHUNK):
            left = _flat(a[i : i + CHUNK])

            # |a - b|^2 = |a|^2 + |b|^2 - 2 a.b, a product of matrices in place of n m d differences. What is
            # below 0 is so by rounding alone.
            inner = left @ right.T
            squared = np.square(left).sum(1)[:, None] + np.square(right).sum(1)[None] - 2 * inner
            yield slice(i, i + CHUNK), j, np.maximum(squared, 0.0)


def _flat(x: np.ndarray) -> np.ndarray:
    """Returns examples [N, *S] as float64 [N, D]."""
    return np.asarray(x, np.float64).reshape(len(x), -1)


class PrecisionRecall(NamedTuple):
    """Holds the share of the samples that the data covers, and that of the data that the samples cover."""

    precision: float  # samples within the radius of any example
    recall: float  # examples within the radius of any sample


def precision_recall(
    real: Float[np.ndarray, "N d"], samples: Float[np.ndarray, "M d"], k: int = K
) -> PrecisionRecall:
    """Computes precision and recall of samples.

    The radius of a feature is the distance to its k-th neighbour in its own set.

    Args:
        real: features of examples of the data; the paper takes as many as samples.
        samples: features of samples.
        k: which neighbour, not counting the feature itself.

    Raises:
        ValueError: there are not more than k of either.
    """
    for name, x in (("examples", real), ("samples", samples)):
        if len(x) <= k:
            raise ValueError(
                f"{len(x)} {name} are too few to have a neighbour number {k}: take {k + 1} or more"
            )
    return PrecisionRecall(_covered(samples, real, k), _covered(real, samples, k))


def _covered(points: np.ndarray, centres: np.ndarray, k: int) -> float:
    """Returns the share of points [N, d] within the radius of any of the centres [M, d]."""
    # The radius of each centre: the k smallest squared distances to other centres, kept up to date over
    # blocks.
    least = np.full((len(centres), k), np.inf)
    for rows, first, squared in distance_blocks(centres, centres):
        # A centre is no neighbour of itself: where row i meets column i the distance does not count.
        i = np.arange(rows.start, rows.start + len(squared))
        meets_itself = (i >= first) & (i < first + squared.shape[1])
        squared[meets_itself, i[meets_itself] - first] = np.inf
        candidates = np.concatenate([least[rows], squared], axis=1)
        least[rows] = np.partition(candidates, k - 1, axis=1)[:, :k]
    radius = least.max(1)  # squared, [M]

    inside = np.zeros(len(points), bool)
    for rows, first, squared in distance_blocks(points, centres):
        inside[rows] |= (squared <= radius[None, first : first + squared.shape[1]]).any(1)
    return float(inside.mean())
