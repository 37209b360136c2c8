"""Makes processes along a graph of categories: nearest neighbours of embeddings, walks, any rate matrix."""

import math

import numpy as np

from d3pm_jax import schedules
from d3pm_jax.checks import at_least, declared, real_array
from d3pm_jax.processes.dense import Dense, LazyMatrices, dense
from d3pm_jax.processes.neighbours import Weights, adjacency

ROW_SUM_ERROR = 1e-14  # of a graph made doubly stochastic
SINKHORN_LIMIT = 10_000  # iterations
MOST_LEVELS = 14  # of a tree: K = 16,384, and a matrix [K, K] of 2 GiB


@declared(k=at_least(1))
def knn_graph(embeddings: np.ndarray, k: int, weights: Weights | None = None) -> np.ndarray:
    """W = D (G + G^T + 2 I) D, doubly stochastic: the graph of the k nearest neighbours, for `random_walk`.

    G[i, j] is the weight of j among the k categories nearest to i, 1 by default, and 0 elsewhere. The
    positive diagonal D is found by Sinkhorn iteration.

    For G + G^T alone D need not exist: where several categories have only a hub as their neighbour, each of
    them asks for the hub's whole row sum of 1. So each category is its own neighbour too, with weight 1. Then
    D always exists (Sinkhorn and Knopp 1967), because every positive entry lies on a permutation of positive
    entries: the one that exchanges i and j and keeps all others in their place. With weights that sum to k
    the rows of G + G^T + 2 I sum to 2 k + 2 on average, and the diagonal is 2 of that: a walk stays with a
    probability of about 1 / (k + 1).

    Args:
        embeddings: [K, d], compared by Euclidean distance; among equally near ones the lower index is first.
            Where only directions count, pass `processes.unit_rows` of them.
        k: number of neighbours besides itself, 1..K - 1. A graph that falls apart into pieces never mixes
            them, and no beta does: choose a larger k when the process warns.
        weights: from the distances [K, k], nearest first, to the weights [K, k] of the neighbours:
            `processes.rank_weights`, `partial(processes.gaussian_weights, scale=...)`, or one of your own.

    Returns:
        float64 [K, K], symmetric, non-negative, rows sum to 1 within 1e-14; K^2 d time, K^2 + K d memory.

    Raises:
        ValueError: an embedding is not finite, k is outside 1..K - 1, a weight is negative or not finite,
            distances or sums of weights overflow, or the weights are too uneven for the iteration.
    """
    G = adjacency(embeddings, k, weights)  # [K, K]
    return _make_doubly_stochastic(_add_transposed(G + np.eye(len(embeddings))))


@declared(k=at_least(1))
def knn_rate(embeddings: np.ndarray, k: int, weights: Weights | None = None) -> np.ndarray:
    """R = A - diag(A 1), A = (G + G^T) / (2 k): the rate matrix of D3PM appendix A.2.4, eq. 9.

    G[i, j] is the weight of j among the k categories nearest to i, 1 by default, and 0 elsewhere. R is
    symmetric, so the process that `from_rate` makes of it is doubly stochastic, without any scaling of rows:
    a category that is near to many is left more often. With weights that sum to k, as all here do, the mean
    rate of leaving is 1.

    To walk along any W instead, with one jump per unit of time, give `from_rate` the rate matrix W - I.

    Args:
        embeddings: [K, d], compared by Euclidean distance; among equally near ones the lower index is first.
        k: number of neighbours besides itself, 1..K - 1.
        weights: from the distances [K, k] to the weights [K, k] of the neighbours; equal ones without.

    Returns:
        float64 [K, K], rows sum to 0.

    Raises:
        ValueError: an embedding is not finite, k is outside 1..K - 1, a weight is negative or not finite, or
            distances or sums of weights overflow.
    """
    A = _add_transposed(adjacency(embeddings, k, weights)) / (2 * k)
    leave = A.sum(1)  # the rate at which each category is left
    return A - np.diag(leave)


@declared()
def hierarchical_rate(level_rates: np.ndarray) -> np.ndarray:
    """R[i, j] = level_rates[l] / 2^(N - 1 - l), where l is the first of N bits in which i and j differ.

    The K = 2^N categories, written as N bits, are the leaves of a binary tree in their order. At rate
    level_rates[l] the bit l flips and all bits after it are drawn anew: a jump from one half of the group of
    2^(N - l) leaves that share the bits before l into the other half, evenly. So level_rates[0] is that of
    the coarsest level, between the two halves of all categories, and level_rates[-1] that of the finest,
    between 2 n and 2 n + 1. `hierarchical_matrix_exponential` of the official text code has this rate.

    Args:
        level_rates: [N], not negative, N up to 14. A 0 keeps the halves of every group of its level apart,
            unless a coarser level joins them.

    Returns:
        float64 [K, K], symmetric, rows sum to 0, for `from_rate`. Where category i is leaf leaf[i], take
        R[np.ix_(leaf, leaf)].

    Raises:
        ValueError: level_rates is not 1 to 14 finite numbers of at least 0.
    """
    N = level_rates.size
    is_rate = (level_rates >= 0) & (level_rates < np.inf)
    if level_rates.ndim != 1 or N == 0 or not is_rate.all():
        raise ValueError(
            f"level_rates must be [N] finite numbers of at least 0, one for each level of a tree of 2^N "
            f"categories, got shape {level_rates.shape}, values {level_rates.ravel()[:8]}"
        )
    if N > MOST_LEVELS:
        raise ValueError(
            f"level_rates has N = {N} levels, so K = 2^N = {2**N} categories, too many for a matrix [K, K]: "
            f"N is at most {MOST_LEVELS}"
        )
    # The other half of a group of level l has 2^(N - 1 - l) leaves, each reached at the same rate.
    rate_of_leaf = level_rates / 2.0 ** np.arange(N)[::-1]  # [N]

    # The highest bit of i xor j is the first in which they differ. frexp counts bits, so that it gives N - l,
    # and 0 for i = j.
    i = np.arange(2**N)
    bits_left = np.frexp(np.bitwise_xor.outer(i, i))[1]  # [K, K]
    R = np.append(0.0, rate_of_leaf[::-1])[bits_left]
    np.fill_diagonal(R, -level_rates.sum())
    return R


@declared()
def random_walk(beta: np.ndarray, W: np.ndarray, prior: np.ndarray | None = None) -> Dense:
    """Q_t = (1 - beta_t) I + beta_t W: with probability beta_t one step along W.

    Args:
        beta: [T], each in (0, 1].
        W: [K, K], rows sum to 1; for example a `knn_graph`.
        prior: [K], where the reverse chain starts; by default the mean row of Qbar[T], which is uniform when
            W is doubly stochastic. The stationary distribution of W is another choice.

    Returns:
        The process, with tables in JAX's default float type.

    Raises:
        ValueError: beta outside (0, 1], W is not row-stochastic, or the prior is not a distribution.
    """
    W = _check_square("W", W)
    wrong = np.flatnonzero(~((W >= 0).all(1) & (np.abs(W.sum(1) - 1) < 1e-9)))
    if wrong.size:
        i = wrong[0]
        raise ValueError(
            f"row {i} of W sums to {W[i].sum():.12g}, its smallest entry is {W[i].min():g}: expected "
            f"probabilities that sum to 1; divide the rows of an adjacency matrix by their sums"
        )
    I = np.eye(len(W))
    return dense(LazyMatrices(lambda b: (1 - b) * I + b * W, schedules.check_betas(beta)), prior)


@declared()
def from_rate(R: np.ndarray, durations: np.ndarray) -> Dense:
    """Q_t = exp(s_t R): a Markov process in continuous time, observed at s_1, s_1 + s_2, .. (D3PM A.2.4).

    Every entry is computed by sums and products of non-negative numbers: none is ever negative, and the
    small ones have as many correct digits as the large ones.

    Args:
        R: [K, K], the rate of each move, for example a `knn_rate` or a `hierarchical_rate`: rows sum to 0,
            and no entry off the diagonal is negative.
        durations: [T], how long each step lasts, in units of 1 / R; each positive.

    Returns:
        The process, with tables in JAX's default float type. Its prior is the mean row of Qbar[T]:
        uniform when R is symmetric.

    Raises:
        ValueError: R is not a rate matrix, or a duration is not a positive number.
    """
    P, rate = _uniformise(R)
    if durations.ndim != 1 or not durations.size or not np.all((durations > 0) & (durations < np.inf)):
        raise ValueError(
            f"durations must be [T] positive numbers, at least one, got shape {durations.shape}, smallest "
            f"{durations.min(initial=np.inf):g}: they are the s_t of exp(s_t R), not cumulative from 0"
        )

    # R = rate (P - I), so exp(s R) = exp(rate s (P - I)): all steps are sums of the same powers of P.
    powers = _powers(P)
    return dense([_exponential(powers, rate * s) for s in durations])


def _add_transposed(G: np.ndarray) -> np.ndarray:
    """G + G^T. Raises ValueError where its sums overflow."""
    with np.errstate(over="ignore"):
        A = G + G.T
        finite = np.isfinite(A.sum(1)).all()
    if not finite:
        raise ValueError(f"weights are up to {G.max():g}, and their sums overflow: divide all by one number")
    return A


def _make_doubly_stochastic(A: np.ndarray) -> np.ndarray:
    """Finds D A D with rows that sum to 1, for a symmetric A, where D is a positive diagonal."""
    # d is the diagonal of D, and d * (A @ d) are the row sums of D A D. Sinkhorn's iteration would be
    # d = 1 / (A @ d). For one d on both sides that swings to and fro, so each step goes to the geometric mean
    # of d and 1 / (A @ d), which is d / sqrt(row sums). The error falls by a factor of (1 - smallest
    # eigenvalue of D A D) / 2 each time, however slowly a walk mixes.
    d = 1 / np.sqrt(A.sum(1))
    for _ in range(SINKHORN_LIMIT):
        row_sums = d * (A @ d)
        d /= np.sqrt(row_sums)
        # These are the row sums of the d before; the new d is closer still.
        if np.abs(row_sums - 1).max() < ROW_SUM_ERROR:
            return A * np.outer(d, d)
    raise ValueError(
        f"row sums are still off by {np.abs(d * (A @ d) - 1).max():.2g} after {SINKHORN_LIMIT} Sinkhorn "
        f"iterations: give every category an edge to itself, and neighbours of more even weights"
    )


def _uniformise(R: np.ndarray) -> tuple[np.ndarray, float]:
    """Finds P, rate with R = rate (P - I), P row-stochastic: jumps at one rate, some to the same place."""
    # exp(s R) = sum_n Poisson(n; s rate) P^n then has no negative term, where the series of exp(s R) itself
    # alternates and loses the digits of small entries.
    R = _check_square("R", R)
    moves = np.where(np.eye(len(R), dtype=bool), 0.0, R)
    wrong = np.argwhere(~((moves >= 0) & (moves < np.inf)))
    if len(wrong):
        i, j = wrong[0]
        raise ValueError(f"R[{i}, {j}] = {R[i, j]:g}: rates off the diagonal are finite and not negative")
    leave = moves.sum(1)
    rate = leave.max() or 1.0  # nothing moves at rate 0: any rate will do
    wrong = np.flatnonzero(~(np.abs(np.diag(R) + leave) <= 1e-9 * rate))
    if wrong.size:
        raise ValueError(
            f"row {wrong[0]} of R sums to {R[wrong[0]].sum():g}, not 0: the diagonal is minus the sum of the "
            f"other rates of its row; rows are 'from', columns are 'to'"
        )
    return moves / rate + np.diag(1 - leave / rate), float(rate)


def _powers(P: np.ndarray) -> np.ndarray:
    """P^0 .. P^N, [N + 1, K, K]: what is left out of exp(P) changes none of its entries above 2^-640."""
    # total = sum_{n <= N} P^n / n!. Entries are at most 1, so the terms that follow add less than 2 weight to
    # an entry. They may be left out once that is below half a last place of the smallest entry, and no entry
    # can become positive any more: every category is reached, or there were as many jumps as there are
    # categories. At 2^-700 the terms are below all that a process keeps.
    powers = [np.eye(len(P))]
    total = np.eye(len(P))
    weight = 1.0
    complete = False
    while not (complete and weight < 2.0**-54 * total[total > 0].min()) and weight > 2.0**-700:
        powers.append(powers[-1] @ P)
        weight /= len(powers) - 1
        total += weight * powers[-1]
        complete = len(powers) >= len(P) or bool((total > 0).all())
    return np.stack(powers)


def _exponential(powers: np.ndarray, mean: float) -> np.ndarray:
    """exp(mean (P - I)) by the Poisson sum of up to one jump on average, and squaring of that.

    Rows are divided by their sums, which are e^mean and then 1, so errors of the sums do not add up.
    """
    # frexp gives the number of halvings after which the mean is below 1: `powers` holds the sum of up to one
    # jump on average, and exp(2 A) = exp(A)^2.
    doublings = max(0, math.frexp(mean)[1])
    n = np.arange(1, len(powers))
    weights = np.cumprod(np.append(1.0, math.ldexp(mean, -doublings) / n))
    q = np.tensordot(weights, powers, axes=1)
    q /= q.sum(1, keepdims=True)
    for _ in range(doublings):
        q = q @ q
        q /= q.sum(1, keepdims=True)
    return q


def _check_square(name: str, matrix: np.ndarray) -> np.ndarray:
    """Returns the matrix as float64 [K, K]. Raises ValueError unless it is square and K is at least 2."""
    matrix = real_array(name, matrix)
    if matrix.ndim != 2 or matrix.shape[0] != matrix.shape[1] or len(matrix) < 2:
        raise ValueError(f"{name} has shape {matrix.shape}, expected [K, K] with K >= 2")
    return matrix
