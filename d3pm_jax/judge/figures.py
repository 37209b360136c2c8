"""Counts samples of each call, and computes figures of the counts, with their errors over calls."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from d3pm_jax.judge.targets import Target, number_states

SMOOTHING = 1e-4  # of both rows of a KL rate
BINS = 100  # of the law of -log p


class Counts(NamedTuple):
    """Holds what is counted of samples; counts of several calls add up."""

    num: np.ndarray  # []
    pairs: np.ndarray  # [D, K, K], of two places d apart
    states: np.ndarray  # [K^L], none where there are too many
    nats: np.ndarray  # [], the sum of -log p of those that are possible
    bins: np.ndarray  # [BINS + 1], by -log p
    impossible: np.ndarray  # [], of log p = -inf
    repeated: np.ndarray  # [], that are equal to an earlier one of the same call

    def __add__(self, other: "Counts") -> "Counts":  # pyright: ignore[reportIncompatibleMethodOverride]
        return Counts(*(a + b for a, b in zip(self, other, strict=True)))

    def __sub__(self, other: "Counts") -> "Counts":
        return Counts(*(a - b for a, b in zip(self, other, strict=True)))


class Figure(NamedTuple):
    """Holds a figure and its standard error over calls, of samples and of as many exact ones."""

    value: float
    error: float
    floor: float
    floor_error: float


def count(x: np.ndarray, target: Target, edges: np.ndarray) -> Counts:
    """Counts samples of one call.

    Args:
        x: int32 [n, L].
        target: that they are held against.
        edges: of the bins of -log p, increasing.
    """
    K = target.K
    pairs = [
        np.bincount((x[:, :-d] * K + x[:, d:]).ravel(), minlength=K * K).reshape(K, K)
        for d in range(1, len(target.pairs) + 1)
    ]
    if target.law is None:
        states = np.zeros(0, np.int64)
        distinct = len(np.unique(x, axis=0))
    else:
        states = np.bincount(number_states(x, K), minlength=K**target.length)
        distinct = np.count_nonzero(states)
    nats = -target.log_prob(x)
    possible = np.isfinite(nats)
    bins = np.bincount(np.searchsorted(edges, nats), minlength=len(edges) + 1)
    return Counts(
        num=np.asarray(len(x)),
        pairs=np.stack(pairs),
        states=states,
        nats=nats[possible].sum(),
        bins=bins,
        impossible=np.sum(~possible),
        repeated=np.asarray(len(x) - distinct),
    )


def compute_figures(counts: Counts, target: Target, bins: np.ndarray) -> dict[str, float]:
    """Returns the figures of counts by name.

    Args:
        counts: of all samples.
        target: that they are held against.
        bins: the shares [BINS + 1] of exact samples in the bins of -log p.
    """
    rows = counts.pairs[0].sum(axis=1)  # of the first place of a transition
    weights = rows / rows.sum()
    seen = rows > 0
    sampled = counts.pairs[0][seen] / rows[seen, None]
    true_rows = target.pairs[0][seen].sum(axis=1, keepdims=True)
    # A row that the law never comes to has no steps of its own: what is drawn there is all wrong.
    true = np.divide(target.pairs[0][seen], true_rows, out=np.zeros_like(sampled), where=true_rows > 0)
    figures = {}
    if target.law is not None:
        figures["tv"] = tv(counts.states / counts.num, target.law)
    figures["transitions_tv"] = float(weights[seen] @ (0.5 * np.abs(sampled - true).sum(axis=1)))
    figures["transitions_kl"] = float(weights[seen] @ smoothed_kl(sampled, true))
    for d in range(2, len(target.pairs) + 1):
        figures[f"pairs_{d}_tv"] = tv(counts.pairs[d - 1] / counts.pairs[d - 1].sum(), target.pairs[d - 1])
    possible = counts.num - counts.impossible
    figures["nats"] = float(counts.nats / possible) if possible else float("nan")
    cumulative = np.cumsum(counts.bins / counts.num - bins)
    figures["nats_ks"] = float(np.abs(cumulative).max())
    figures["impossible"] = float(counts.impossible / counts.num)
    log_sampled = np.log(sampled, out=np.zeros_like(sampled), where=sampled > 0)
    figures["entropy_rate"] = float(-weights[seen] @ np.sum(sampled * log_sampled, axis=1))
    figures["repeated"] = float(counts.repeated / counts.num)
    return figures


def tv(p: np.ndarray, q: np.ndarray) -> float:
    """sum |p - q| / 2."""
    return 0.5 * float(np.abs(p - q).sum())


def smoothed_kl(p: np.ndarray, q: np.ndarray) -> np.ndarray:
    """KL(p || q) of rows [N, K], nats, each with 1e-4 added to its probabilities and normalised again."""
    p = (p + SMOOTHING) / (1 + SMOOTHING * p.shape[1])
    q = (q + SMOOTHING) / (q.sum(axis=1, keepdims=True) + SMOOTHING * q.shape[1])
    return np.sum(p * (np.log(p) - np.log(q)), axis=1)


def with_errors(
    calls: Sequence[Counts], figures_of: Callable[[Counts], dict[str, float]]
) -> tuple[dict[str, float], dict[str, float]]:
    """Returns figures of all calls together, and their standard errors by leaving out one call at a time."""
    total = add(calls)
    values = figures_of(total)
    left_out = [figures_of(total - each) for each in calls]
    errors = {}
    for name in values:
        others = np.array([figures[name] for figures in left_out])
        errors[name] = float(np.sqrt((len(calls) - 1) * np.mean((others - others.mean()) ** 2)))
    return values, errors


def add(calls: Sequence[Counts]) -> Counts:
    """Adds up the counts of calls."""
    total = calls[0]
    for each in calls[1:]:
        total = total + each
    return total
