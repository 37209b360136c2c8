"""Makes processes for ordinal data, which move to near values."""

from collections.abc import Callable

import numpy as np

from d3pm_jax import schedules
from d3pm_jax.checks import NUM_CATEGORIES, declared
from d3pm_jax.processes.dense import Dense, LazyMatrices, dense


@declared(K=NUM_CATEGORIES)
def gaussian(beta: np.ndarray, K: int, bands: int | None = None) -> Dense:
    """Makes the discretised Gaussian (D3PM appendix A.2.3, eq. 8): near values are likelier targets.

    Q[i, j] = w_{i-j} / sum_{n=-bands}^{bands} w_n for 0 < |i - j| <= bands, with
    w_n = exp(-4 n^2 / ((K - 1)^2 beta)). Beyond the bands it is 0, and the diagonal makes rows sum to 1.
    Doubly stochastic, so the prior is uniform. At K = 256 this is the official code, whose
    `transition_bands` cut the sum below the fraction too. For every other K it keeps the spacing of the
    paper; the official code keeps that of K = 256, which for small K makes the chain the identity.

    Args:
        beta: [T], each in (0, 1]: the variance in units of the squared half-range.
        K: number of categories, at least 2.
        bands: the furthest that one step can move, 1..K - 1; by default K - 1, as in the paper.

    Returns:
        The process, with tables in JAX's default float type.

    Raises:
        ValueError: beta outside (0, 1], bands outside 1..K - 1, or beta so small that nothing moves.
    """
    n = np.arange(_check_bands(bands, K) + 1)  # distances 0..bands

    def weights(b: float) -> np.ndarray:
        w = np.exp(-4.0 * n**2 / ((K - 1) ** 2 * b))
        # The sum over -bands..bands has every w_n twice but w_0.
        return w / (2 * w.sum() - 1)

    return _make_by_distance(weights, beta, K)


@declared(K=NUM_CATEGORIES)
def banded(beta: np.ndarray, K: int, bands: int) -> Dense:
    """Q[i, j] = beta / K for 0 < |i - j| <= bands: the uniform process, of which only near values are left.

    The official code for images calls it uniform with `transition_bands`. The diagonal makes rows sum to
    1. Doubly stochastic, so the prior is uniform; it takes about (K / bands)^3 / beta steps to reach it.

    Args:
        beta: [T], each in (0, 1].
        K: number of categories, at least 2.
        bands: the furthest that one step can move, 1..K - 1; K - 1 gives `uniform`.

    Returns:
        The process, with tables in JAX's default float type.

    Raises:
        ValueError: beta outside (0, 1], or bands outside 1..K - 1.
    """
    ones = np.ones(_check_bands(bands, K) + 1)
    return _make_by_distance(lambda b: b / K * ones, beta, K)


def _make_by_distance(probabilities: Callable[[float], np.ndarray], beta: np.ndarray, K: int) -> Dense:
    """Makes the process with Q[i, j] = probabilities(beta)[|i - j|] off the diagonal, 0 beyond their end."""
    distance = np.abs(np.subtract.outer(np.arange(K), np.arange(K)))

    def one_step(b: float) -> np.ndarray:
        by_distance = probabilities(b)  # [bands + 1]
        q = np.pad(by_distance, (0, K - len(by_distance)))[distance]  # [K, K]
        np.fill_diagonal(q, 0.0)
        np.fill_diagonal(q, 1.0 - q.sum(1))
        return q

    return dense(LazyMatrices(one_step, schedules.check_betas(beta)), prior=np.full(K, 1.0 / K))


def _check_bands(bands: int | None, K: int) -> int:
    """Returns bands, by default K - 1. Raises ValueError unless they lie in 1..K - 1."""
    if bands is None:
        bands = K - 1
    if not 1 <= bands < K:
        raise ValueError(
            f"bands = {bands} is outside 1..{K - 1}: with K = {K}, {K - 1} bands reach every value"
        )
    return bands
