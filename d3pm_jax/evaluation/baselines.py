"""Computes baselines that a model has to beat: histograms that ignore how elements depend on each other."""

import numpy as np


def histogram_nats(
    train: np.ndarray, test: np.ndarray, levels: int | np.ndarray, added: float = 1.0
) -> np.ndarray:
    """Returns -log p of test examples under one histogram per element, smoothed by what each count has added.

    Args:
        train, test: int [N, *S] categories below levels.
        levels: number of categories, of all elements or of each of them, [*S].
        added: to each count.

    Returns:
        Nats per test example, float64 [N].
    """
    return -_log_likelihood(_log_histogram(train, levels, added), test)


def unigram_nats(counts: np.ndarray, test: np.ndarray, weight: np.ndarray | None = None) -> np.ndarray:
    """Returns -log p of test examples under one histogram of all elements, with add-one smoothing.

    Args:
        counts: of each category in the training data, [K].
        test: int [N, *S].
        weight: of each element of test [N, *S]; None where every element counts once.

    Returns:
        Nats per test example, float64 [N].
    """
    nats_by_category = -np.log((counts + 1) / (counts.sum() + len(counts)))  # [K]
    nats = nats_by_category[test]  # [N, *S]
    if weight is not None:
        nats = nats * weight
    return nats.reshape(len(test), -1).sum(1)


def class_mixture_nats(
    train: np.ndarray, labels: np.ndarray, test: np.ndarray, levels: int | np.ndarray
) -> np.ndarray:
    """Returns -log p of examples under a mixture of histograms per element: a component for each class.

    Args:
        train, test: int [N, *S] categories below levels.
        labels: int [N] classes of the training examples.
        levels: number of categories, of all elements or of each of them, [*S].

    Returns:
        Nats per test example, float64 [N].
    """
    # log p(x) = logsumexp_c (log p(c) + log p(x | c))
    log_joint = []
    for label in np.unique(labels):
        of_class = labels == label
        log_p_x = _log_likelihood(_log_histogram(train[of_class], levels), test)  # [N]
        log_joint.append(np.log(np.mean(of_class)) + log_p_x)
    return -np.logaddexp.reduce(log_joint)


def histogram_samples(train: np.ndarray, num: int, seed: int) -> np.ndarray:
    """Draws num samples, taking each element from a training example of its own, drawn at random.

    Args:
        train: [N, *S].
        num: how many to draw.
        seed: of the draws.
    """
    rng = np.random.default_rng(seed)
    flat = train.reshape(len(train), -1)  # [N, D]
    chosen = rng.integers(len(train), size=(num, flat.shape[1]))
    return np.take_along_axis(flat, chosen, axis=0).reshape(num, *train.shape[1:])


def unigram_samples(counts: np.ndarray, shape: tuple[int, ...], seed: int) -> np.ndarray:
    """Draws categories of a shape [N, *S], each independently in proportion to counts [K]."""
    return np.random.default_rng(seed).choice(len(counts), shape, p=counts / counts.sum())


def _log_histogram(x: np.ndarray, levels: int | np.ndarray, added: float = 1.0) -> np.ndarray:
    """Returns log((counts + added) / (N + added levels)) for each element, float64 [D, most levels]."""
    flat = x.reshape(len(x), -1)
    counts = np.stack([np.bincount(column, minlength=np.max(levels)) for column in flat.T])
    return np.log((counts + added) / (len(x) + added * np.reshape(levels, (-1, 1))))


def _log_likelihood(log_p: np.ndarray, x: np.ndarray) -> np.ndarray:
    """Returns sum_i log_p[i, x_i] of every example, float64 [N], for log_p [D, levels]."""
    flat = x.reshape(len(x), -1)
    return np.array([log_p[np.arange(len(log_p)), row].sum() for row in flat])
