"""Computes the Fréchet distance of two sets of features, as of normal distributions (Heusel et al. 2017)."""

from typing import NamedTuple

import numpy as np
import scipy.linalg
from jaxtyping import Float

__all__ = ["Statistics", "compute_distance", "compute_statistics"]


class Statistics(NamedTuple):
    """Holds the mean and the covariance of n features [n, d], in float64."""

    mean: np.ndarray  # [d]
    covariance: np.ndarray  # [d, d], unbiased: divided by n - 1
    n: int


def check_enough(n: int, d: int, noun: str = "features") -> None:
    """Raises ValueError where n features of d numbers have a covariance without full rank: n <= d."""
    if n <= d:
        raise ValueError(
            f"{n} {noun} of {d} numbers are too few: their covariance does not have full rank, and a "
            f"Fréchet distance would depend mostly on n; take {d + 1} or more"
        )


def compute_statistics(features: Float[np.ndarray, "n d"]) -> Statistics:
    """Computes the mean and the covariance of features.

    Raises:
        ValueError: there are too few of them, or one is not finite.
    """
    n, d = features.shape
    check_enough(n, d)
    if not np.isfinite(features).all():
        raise ValueError("features are not finite: look at the weights that they were computed with")
    features = np.asarray(features, np.float64)
    covariance = np.cov(features, rowvar=False).reshape(d, d)  # a scalar for d = 1
    return Statistics(features.mean(0), covariance, n)


def compute_distance(a: Statistics, b: Statistics) -> float:
    """|mu_a - mu_b|^2 + tr(S_a) + tr(S_b) - 2 tr((S_a S_b)^(1/2)).

    With S_a = A A^T and S_b = B B^T the eigenvalues of S_a S_b are the squares of the singular values of
    A^T B, so that the last trace is their sum, the nuclear norm of A^T B: no root of a matrix is needed.

    Args:
        a, b: of features of the same kind.

    Raises:
        ValueError: they are of different dimensions, of too few features, or hold no covariance.
    """
    if a.mean.shape != b.mean.shape:
        raise ValueError(f"features of {a.mean.size} and of {b.mean.size} numbers: compare those of one kind")
    for statistics in (a, b):
        check_enough(statistics.n, statistics.mean.size)
    trace_of_root = np.linalg.norm(_factor(a.covariance).T @ _factor(b.covariance), ord="nuc")
    squared_distance = np.square(a.mean - b.mean).sum()  # of the means
    return float(squared_distance + np.trace(a.covariance) + np.trace(b.covariance) - 2 * trace_of_root)


def _factor(covariance: np.ndarray) -> np.ndarray:
    """Returns A [d, d] with A A^T = covariance."""
    values, vectors = scipy.linalg.eigh(covariance)
    if values[0] < -1e-9 * values[-1]:
        raise ValueError(f"a covariance has the eigenvalue {values[0]:.3g}: pass one of `compute_statistics`")
    # The eigenvalues that are below 0 are so by rounding alone.
    return vectors * np.sqrt(np.maximum(values, 0.0))
