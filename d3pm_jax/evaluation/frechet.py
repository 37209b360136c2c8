"""Computes the Fréchet distance of two sets of features, as of normal distributions (Heusel et al. 2017)."""

from typing import NamedTuple

import numpy as np
import scipy.linalg
from jaxtyping import Float


class Statistics(NamedTuple):
    """Holds what a Fréchet distance knows of n features [n, d], in float64."""

    mean: np.ndarray  # [d]
    covariance: np.ndarray  # [d, d], unbiased: divided by n - 1
    n: int


def check_enough(n: int, d: int, what: str = "features") -> None:
    """Raises ValueError where n features of d numbers have a covariance without full rank: n <= d."""
    if n <= d:
        raise ValueError(
            f"{n} {what} of {d} numbers: their covariance has no full rank, and a Fréchet distance would say "
            f"more of their number than of them; take {d + 1} or more"
        )


def compute_statistics(features: Float[np.ndarray, "n d"]) -> Statistics:
    """Returns mean and covariance of features.

    Raises:
        ValueError: there are too few of them, or one is not finite.
    """
    n, d = features.shape
    check_enough(n, d)
    if not np.isfinite(features).all():
        raise ValueError("features are not finite: look at the weights that they were computed with")
    wide = np.asarray(features, np.float64)
    return Statistics(wide.mean(0), np.cov(wide, rowvar=False).reshape(d, d), n)


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
    for one in (a, b):
        check_enough(one.n, one.mean.size)
    shared = np.linalg.norm(_factor(a.covariance).T @ _factor(b.covariance), ord="nuc")
    apart = np.square(a.mean - b.mean).sum()
    return float(apart + np.trace(a.covariance) + np.trace(b.covariance) - 2 * shared)


def _factor(covariance: np.ndarray) -> np.ndarray:
    """Returns A with A A^T = covariance."""
    values, vectors = scipy.linalg.eigh(covariance)
    if values[0] < -1e-9 * values[-1]:
        raise ValueError(f"a covariance has the eigenvalue {values[0]:.3g}: pass one of `statistics`")
    return vectors * np.sqrt(np.maximum(values, 0.0))  # those below 0 are 0, but for rounding
