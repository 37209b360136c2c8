"""Finds the nearest neighbours of embeddings, and weighs them by rank or by distance."""

from collections.abc import Callable
from typing import Annotated

import numpy as np
import scipy  # its parts are imported when they are first used

from d3pm_jax.checks import POSITIVE, Called, declared, real_array

# distances [K, k] of the neighbours of each category, nearest first -> their weights [K, k]
Weights = Annotated[
    Callable[[np.ndarray], np.ndarray], Called("distances", "return a weight for each distance")
]


@declared()
def unit_rows(embeddings: np.ndarray) -> np.ndarray:
    """Divides each row by its norm, so that neighbours are nearest in direction, as in the official code.

    Args:
        embeddings: [K, d].

    Returns:
        float64 [K, d].

    Raises:
        ValueError: a row is 0 or not finite, and so has no direction.
    """
    x = _check_embeddings(embeddings)
    # A power of two brings each row near 1, so that its squares neither overflow nor all vanish.
    largest = np.abs(x).max(axis=1, initial=0.0, keepdims=True)  # [K, 1]
    x = np.ldexp(x, -np.frexp(largest)[1])
    norms = np.linalg.norm(x, axis=1, keepdims=True)
    wrong = np.flatnonzero(norms == 0)
    if wrong.size:
        raise ValueError(f"embeddings[{wrong[0]}] has norm 0, so it has no direction: remove or replace it")
    return x / norms


@declared()
def rank_weights(distances: np.ndarray) -> np.ndarray:
    """Weighs by rank: k softmax(-2 r^2 / k) over the ranks r = 0..k - 1, of which 0 is the nearest.

    These are the weights of the official text code (`use_gaussian_transitions`).

    Args:
        distances: [K, k], nearest first; only their order counts.

    Returns:
        float64 [K, k], rows sum to k.
    """
    k = _check_distances(distances).shape[1]
    row = k * scipy.special.softmax(-2.0 * np.arange(k) ** 2 / k)
    return np.tile(row, (len(distances), 1))


@declared(scale=POSITIVE)
def gaussian_weights(distances: np.ndarray, scale: float) -> np.ndarray:
    """Weighs by distance: k softmax(-d^2 / (2 scale^2)) over the k distances d of a category.

    The weights of every category have the same sum, those of an outlier too: the scale says how much more
    the nearest of its neighbours counts than the furthest.

    Args:
        distances: [K, k], nearest first.
        scale: the standard deviation, in units of the embeddings; above 0.

    Returns:
        float64 [K, k], rows sum to k.
    """
    d = _check_distances(distances)
    k = d.shape[1]

    # The softmax needs d^2 only relative to that of the nearest: z = (d^2 - nearest^2) / scale^2. Written as
    # a product it keeps the digits that a difference of squares loses. Where it overflows, z is inf, and its
    # weight is 0.
    nearest = d[:, :1]  # [K, 1]
    with np.errstate(over="ignore", invalid="ignore"):
        z = (d - nearest) / scale * ((d + nearest) / scale)  # [K, k]

    # The nearest has z = 0 by definition, also where its other factor overflows and the product is 0 times
    # inf, a NaN.
    z = np.where(d > nearest, z, 0.0)
    return k * scipy.special.softmax(-z / 2, axis=1)


def adjacency(embeddings: np.ndarray, k: int, weights: Weights | None) -> np.ndarray:
    """Returns G [K, K]: G[i, j] is the weight of j, one of the k nearest to i, itself apart; 0 elsewhere."""
    neighbours, distances = _find_nearest(_check_embeddings(embeddings), k)  # [K, k] each
    weight_of_neighbour: np.ndarray | float = 1.0
    if weights is not None:
        weight_of_neighbour = _check_weights(weights(distances), distances.shape)
    G = np.zeros((len(embeddings), len(embeddings)))
    np.put_along_axis(G, neighbours, weight_of_neighbour, axis=1)
    return G


def _find_nearest(x: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns the k nearest to each row, itself apart, and their distances, [K, k] each."""
    if not 1 <= k < len(x):
        raise ValueError(
            f"k = {k} is outside 1..{len(x) - 1}: each of the K = {len(x)} embeddings has K - 1 others"
        )
    # One power of two for all brings them near 1, so that squares neither overflow nor all vanish.
    largest = np.abs(x).max(initial=0.0)
    exponent = np.frexp(largest)[1]
    x = np.ldexp(x, -exponent)

    # One row at a time takes memory of K d: all differences at once would be K^2 d.
    neighbours = np.empty((len(x), k), int)
    square = np.empty((len(x), k))
    for i in range(len(x)):
        difference = x - x[i]
        all_squares = np.einsum("kd,kd->k", difference, difference)
        all_squares[i] = np.inf
        neighbours[i] = np.argsort(all_squares, kind="stable")[:k]
        square[i] = all_squares[neighbours[i]]
    with np.errstate(over="ignore"):
        distances = np.ldexp(np.sqrt(square), exponent)
    if not np.isfinite(distances).all():
        raise ValueError(
            f"embeddings are up to {largest:g}, and distances between them overflow: divide all by one number"
        )
    return neighbours, distances


def _check_embeddings(x: np.ndarray) -> np.ndarray:
    """Returns embeddings [K, d]. Raises ValueError for another shape, and for a row that is not finite."""
    if x.ndim != 2 or not len(x):
        raise ValueError(f"embeddings have shape {x.shape}, expected [K, d]: one row per category")
    if not np.isfinite(x).all():
        row = np.flatnonzero(~np.isfinite(x).all(1))[0]
        raise ValueError(f"embeddings[{row}] is not finite, so it has no neighbours: remove or replace it")
    return x


def _check_distances(d: np.ndarray) -> np.ndarray:
    """Returns distances [K, k]. Raises ValueError unless they are finite and rise along each row from 0."""
    if d.ndim != 2 or not d.size or not np.isfinite(d).all() or np.any(np.diff(d, prepend=0.0) < 0):
        raise ValueError(
            f"distances must be [K, k] finite numbers from 0 on that rise along each row, got shape {d.shape}"
        )
    return d


def _check_weights(weights: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Returns weights as float64 of this shape. Raises ValueError for one that is negative or not finite."""
    weights = real_array("weights", weights)
    if weights.shape != shape:
        raise ValueError(
            f"weights of distances {list(shape)} have shape {weights.shape}: return one for each"
        )
    wrong = np.argwhere(~((weights >= 0) & (weights < np.inf)))
    if len(wrong):
        i, r = wrong[0]
        raise ValueError(
            f"weights[{i}, {r}] = {weights[i, r]:g}, of the neighbour of category {i} that is number {r} "
            f"from 0: weights are finite and not negative"
        )
    return weights
