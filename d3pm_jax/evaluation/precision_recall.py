"""Computes improved precision and recall in features (Kynkäänniemi et al. 2019, arXiv 1904.06991)."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from d3pm_jax.evaluation import nearest

K = 3  # as in the paper: the radius of a feature reaches to its third neighbour


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
    radius, inside = _radius(by, k), np.zeros(len(points), bool)
    for rows, first, squared in nearest.blocks(points, by):
        inside[rows] |= (squared <= radius[None, first : first + squared.shape[1]]).any(1)
    return float(inside.mean())


def _radius(x: np.ndarray, k: int) -> np.ndarray:
    """Returns the squared distance of each to its k-th neighbour, [N]."""
    least = np.full((len(x), k), np.inf)
    for rows, first, squared in nearest.blocks(x, x):
        i = np.arange(rows.start, rows.start + len(squared))
        own = (i >= first) & (i < first + squared.shape[1])
        squared[own, i[own] - first] = np.inf
        least[rows] = np.partition(np.concatenate([least[rows], squared], axis=1), k - 1, axis=1)[:, :k]
    return least.max(1)
