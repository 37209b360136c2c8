"""Computes baselines and figures of tables: rows [N, D] of codes, in which column i has sizes[i] of them.

Counts of pairs of columns hold what occurs and no more, so that a column may have thousands of codes.
"""

import itertools
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int, Integer
from scipy.sparse import csgraph

__all__ = [
    "ConditionalTable",
    "Tree",
    "associate_columns",
    "contingency_similarity",
    "correlation_similarity",
    "find_distances",
    "fit_tree",
    "ks_complement",
    "summarize_fidelity",
    "tree_nats",
    "tv_complement",
]

# The rows that a column counts as in front of those of a parent are one of these many.
WEIGHTS = 4.0 ** np.arange(-3, 10)
BINS = 10  # of a number beside a category, in the contingency similarity
BLOCK = 1 << 25  # pairs of rows that are compared at a time

Rows = Integer[np.ndarray, "N D"]
TrainingRows = Integer[np.ndarray, "M D"]


class ConditionalTable(NamedTuple):
    """Holds p(child | parent) = (n(parent, child) + w q(child)) / (n(parent) + w), from training rows.

    q is the law of the child alone, so that a parent of few rows says little, and one of none nothing.
    """

    parent: int
    """the number of the column"""
    pairs: Int[np.ndarray, " n"]
    """which pairs occur, increasing: parent * sizes[child] + child"""
    counts: Int[np.ndarray, " n"]
    """rows of each of the pairs"""
    weight: float
    """w, in rows"""


class Tree(NamedTuple):
    """Holds a law of rows in which each column depends on one other, its parent, or as the root on none."""

    counts: Sequence[Int[np.ndarray, " K"]]
    """training rows of each code, for each column"""
    tables: Sequence[ConditionalTable | None]
    """of each column; None for the root, and where a parent tells nothing"""


def fit_tree(train: TrainingRows, sizes: Sequence[int]) -> Tree:
    """Learns the tree of Chow and Liu (1968) under these gains, in which each column has at most one parent.

    The length of an edge is what the parent tells of the child: the mean of log p(child | parent) - log
    q(child) over training rows, each under counts without itself. With many rows that is the mutual
    information, of which counts alone give too much where pairs are many and rows few. The weight w of a
    table is the one of `WEIGHTS` by which that is most. The tree has the largest sum over both directions of
    its edges, and the root from which the directions it has are most. A parent that tells less than nothing
    counts as 0, and is left out.

    Args:
        train: int [N, D], at least one row.
        sizes: K of each column.
    """
    D = len(sizes)
    counts = _count_columns(train, sizes)
    gains = np.zeros((D, D))  # nats of all rows, [child, parent]
    weights = np.zeros((D, D))
    for a, b in itertools.combinations(range(D), 2):
        of_a, of_b, n = _count_pairs(train[:, a], train[:, b], sizes[b])
        gains[a, b], weights[a, b] = _choose_weight(n, of_a, of_b, counts[a], counts[b])
        gains[b, a], weights[b, a] = _choose_weight(n, of_b, of_a, counts[b], counts[a])

    tables: list[ConditionalTable | None] = []
    for child, parent in enumerate(_find_parents(np.maximum(gains, 0))):
        if parent is None or gains[child, parent] <= 0:
            tables.append(None)
            continue
        of_parent, of_child, n = _count_pairs(train[:, parent], train[:, child], sizes[child])
        pairs = of_parent * sizes[child] + of_child
        tables.append(ConditionalTable(parent, pairs, n, float(weights[child, parent])))
    return Tree(counts, tables)


def _choose_weight(
    n: np.ndarray, child: np.ndarray, parent: np.ndarray, child_counts: np.ndarray, parent_counts: np.ndarray
) -> tuple[float, float]:
    """Chooses the weight of a conditional table by training rows, each under the counts of all others.

    Args:
        n, child, parent: rows of each pair that occurs, and its codes, [n].
        child_counts, parent_counts: rows of each code.

    Returns:
        What the parent tells of the child in nats of all rows, by the best weight, and that weight.
    """
    # q(child) = (count + 1/2) / (N + K/2), without the row.
    q = (child_counts[child] - 1 + 0.5) / (child_counts.sum() - 1 + len(child_counts) / 2)
    gains = []
    for weight in WEIGHTS:
        p = (n - 1 + weight * q) / (parent_counts[parent] - 1 + weight)
        gains.append(float(np.sum(n * np.log(p / q))))
    best = int(np.argmax(gains))
    return gains[best], float(WEIGHTS[best])


def _find_parents(gains: np.ndarray) -> list[int | None]:
    """Finds the parent of each column in the tree of the largest gains [child, parent]; None for the root."""
    both_directions = gains + gains.T
    # A length of 0 is no edge to SciPy, and the smallest sum of these lengths is the largest one of gains.
    lengths = 1 + both_directions.max() - both_directions
    np.fill_diagonal(lengths, 0)
    edges = csgraph.minimum_spanning_tree(lengths)

    parents_by_gain = {}
    for root in range(len(gains)):
        _, parents = csgraph.breadth_first_order(edges, root, directed=False)
        children = np.flatnonzero(parents >= 0)
        gain = float(gains[children, parents[children]].sum())
        parents_by_gain.setdefault(gain, parents)
    parents = parents_by_gain[max(parents_by_gain)]
    return [int(parent) if parent >= 0 else None for parent in parents]


def tree_nats(tree: Tree, test: Rows) -> Float[np.ndarray, " N"]:
    """Returns -log p of test rows [N, D] under a tree."""
    nats = np.zeros(len(test))
    for child, (counts, table) in enumerate(zip(tree.counts, tree.tables, strict=True)):
        codes = test[:, child]
        p = _smooth_counts(counts)[codes]  # [N], of the child alone
        if table is not None:
            parent_codes = test[:, table.parent]
            pairs = parent_codes.astype(np.int64) * len(counts) + codes
            place = np.minimum(np.searchsorted(table.pairs, pairs), len(table.pairs) - 1)
            occurs = table.pairs[place] == pairs
            n = np.where(occurs, table.counts[place], 0)
            p = (n + table.weight * p) / (tree.counts[table.parent][parent_codes] + table.weight)
        nats -= np.log(p)
    return nats


def associate_columns(x: Rows, sizes: Sequence[int]) -> Float[np.ndarray, "D D"]:
    """Returns Cramér's V of each pair of columns: 0 where they are independent, 1 where one tells the other.

    V without correction grows with the number of codes and falls with that of rows; here chi^2 / N and the
    numbers of codes that occur are corrected by Bergsma (2013), by which V of independent columns is near 0.
    """
    N, D = x.shape
    degrees = max(1, N - 1)
    counts = _count_columns(x, sizes)
    association = np.eye(D)
    for a, b in itertools.combinations(range(D), 2):
        of_a, of_b, n = _count_pairs(x[:, a], x[:, b], sizes[b])
        squared = np.sum(n / counts[a][of_a] * (n / counts[b][of_b])) - 1  # chi^2 / N
        rows = np.count_nonzero(counts[a])
        columns = np.count_nonzero(counts[b])
        squared = max(0.0, squared - (rows - 1) * (columns - 1) / degrees)
        rows -= (rows - 1) ** 2 / degrees
        columns -= (columns - 1) ** 2 / degrees
        largest = min(rows, columns) - 1
        if largest > 0:
            association[a, b] = min(1.0, np.sqrt(squared / largest))
            association[b, a] = association[a, b]
    return association


def find_distances(x: Rows, train: TrainingRows) -> Float[np.ndarray, " N"]:
    """Returns in which share of its columns each row differs from the training row nearest to it."""
    N, D = x.shape
    columns = np.ascontiguousarray(train.T)  # [D, M]
    distances = np.zeros(N)
    size = max(1, BLOCK // len(train))
    for start in range(0, N, size):
        rows = x[start : start + size]
        differing = np.zeros((len(rows), len(train)), np.min_scalar_type(D))
        for i in range(D):
            differing += rows[:, i, None] != columns[i]
        distances[start : start + size] = differing.min(1) / D
    return distances


def ks_complement(real: Float[np.ndarray, " N"], synthetic: Float[np.ndarray, " M"]) -> float:
    """Returns 1 - the Kolmogorov-Smirnov statistic of numbers; NaN, a missing one, is left out.

    That is the largest difference between the shares of both that are at most some number. NaN where there
    are no real numbers; 0 where there are, but no synthetic ones.
    """
    real = np.sort(real[~np.isnan(real)])
    synthetic = np.sort(synthetic[~np.isnan(synthetic)])
    if not (len(real) and len(synthetic)):
        return 0.0 if len(real) else np.nan
    numbers = np.concatenate([real, synthetic])
    share_of_real = np.searchsorted(real, numbers, "right") / len(real)
    share_of_synthetic = np.searchsorted(synthetic, numbers, "right") / len(synthetic)
    return 1 - float(np.abs(share_of_real - share_of_synthetic).max())


def tv_complement(real: Integer[np.ndarray, " N"], synthetic: Integer[np.ndarray, " M"]) -> float:
    """Returns 1 - the total variation distance between the shares of categories."""
    values, index = np.unique(np.concatenate([real, synthetic]), return_inverse=True)
    shares = np.bincount(index[: len(real)], minlength=len(values)) / len(real)
    shares = shares - np.bincount(index[len(real) :], minlength=len(values)) / len(synthetic)
    return 1 - float(np.abs(shares).sum() / 2)


def correlation_similarity(real: Float[np.ndarray, "N 2"], synthetic: Float[np.ndarray, "M 2"]) -> float:
    """Returns 1 - half of the difference between the correlations of two columns of numbers.

    Rows with NaN, a missing number, are left out. NaN where a real column has no two different numbers; 0
    where both have, but a synthetic one has not.
    """
    correlations = []
    for columns, value_if_constant in ((real, np.nan), (synthetic, 0.0)):
        complete = columns[~np.isnan(columns).any(1)]
        if len(complete) == 0 or np.any(np.ptp(complete, axis=0) == 0):
            return value_if_constant
        correlations.append(np.corrcoef(complete.T)[0, 1])
    return 1 - float(abs(correlations[0] - correlations[1]) / 2)


def contingency_similarity(real: Integer[np.ndarray, "N 2"], synthetic: Integer[np.ndarray, "M 2"]) -> float:
    """Returns 1 - the total variation distance between the shares of pairs of categories, 0 or more."""
    size = max(int(real[:, 1].max()), int(synthetic[:, 1].max())) + 1
    pairs, synthetic_pairs = (x[:, 0].astype(np.int64) * size + x[:, 1] for x in (real, synthetic))
    return tv_complement(pairs, synthetic_pairs)


def summarize_fidelity(
    real: Sequence[np.ndarray], synthetic: Sequence[np.ndarray]
) -> dict[str, float | None]:
    """Returns how like the columns of synthetic rows are to those of real ones: 1 where they are the same.

    The figures are those of SDMetrics, but that the category of missing values counts in "tv" as any other
    does. A number beside a category is taken by the bin that it lies in, of `BINS` of equal width from the
    smallest real number to the largest, the first and last of which have what lies beyond; missing ones have
    a bin of their own.

    Args:
        real: columns [N]: float, numbers with NaN where one is missing, or integer, categories from 0.
        synthetic: the same columns [M].

    Returns:
        The means of "ks" over numbers, of "tv" over categories, of "correlation" over pairs of numbers, of
        "contingency" over other pairs; "shapes" over all columns, and "trends" over all pairs. None where
        there are none.
    """
    is_number = [np.issubdtype(column.dtype, np.floating) for column in real]
    scores: dict[str, list[float]] = {"ks": [], "tv": [], "correlation": [], "contingency": []}
    for number, a, b in zip(is_number, real, synthetic, strict=True):
        if number:
            scores["ks"].append(ks_complement(a, b))
        else:
            scores["tv"].append(tv_complement(a, b))

    binned = [_bin_numbers(a, b) for a, b in zip(real, synthetic, strict=True)]
    for i, j in itertools.combinations(range(len(real)), 2):
        if is_number[i] and is_number[j]:
            pairs = (np.stack([x[i], x[j]], axis=1) for x in (real, synthetic))
            scores["correlation"].append(correlation_similarity(*pairs))
        else:
            pairs = (np.stack([binned[i][k], binned[j][k]], axis=1) for k in range(2))
            scores["contingency"].append(contingency_similarity(*pairs))
    scores["shapes"] = scores["ks"] + scores["tv"]
    scores["trends"] = scores["correlation"] + scores["contingency"]
    return {name: _average_defined(np.array(values)) for name, values in scores.items()}


def _bin_numbers(real: np.ndarray, synthetic: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns the bins of numbers, for a column of real and one of synthetic rows; categories as they are."""
    if not np.issubdtype(real.dtype, np.floating):
        return real, synthetic
    edges = np.histogram_bin_edges(real[~np.isnan(real)], BINS)
    edges[[0, -1]] = -np.inf, np.inf
    # NaN is above all edges, and so has a number of its own.
    return np.digitize(real, edges), np.digitize(synthetic, edges)


def _average_defined(values: np.ndarray) -> float | None:
    """Returns the mean of the values that are not NaN; None where there are none."""
    defined = values[~np.isnan(values)]
    return float(defined.mean()) if len(defined) else None


def _count_columns(x: np.ndarray, sizes: Sequence[int]) -> list[np.ndarray]:
    """Counts the rows of each code, for each column."""
    return [np.bincount(column, minlength=size) for column, size in zip(x.T, sizes, strict=True)]


def _smooth_counts(counts: np.ndarray) -> np.ndarray:
    """Returns (counts + 1/2) / (N + K/2), the law of a column alone."""
    return (counts + 0.5) / (counts.sum() + len(counts) / 2)


def _count_pairs(a: np.ndarray, b: np.ndarray, size: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Counts the pairs of codes of two columns that occur, in increasing order; b has `size` codes.

    Returns:
        The code of a, the code of b, and how many rows have both, each int64 [n].
    """
    pairs, n = np.unique(a.astype(np.int64) * size + b, return_counts=True)
    return pairs // size, pairs % size, n
