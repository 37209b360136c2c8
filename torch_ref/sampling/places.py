"""Chooses which masked places are revealed in a row: those of the largest scores, and how many of them."""

import math

import torch
from torch import Tensor

from torch_ref.checks import declared
from torch_ref.schedules.continuous import Schedule


@declared(score="B L not_nan")
def rank(score: Tensor, candidates: Tensor) -> Tensor:
    """Returns how many candidates come before each place; places that are none come last."""
    ranks = torch.zeros(score.shape, dtype=torch.int64)
    for b in range(len(score)):
        order = sorted(range(score.shape[1]), key=lambda i: (not candidates[b, i], -float(score[b, i]), i))
        for position, place in enumerate(order):
            ranks[b, place] = position
    return ranks


@declared(score="B L not_nan", count="B index")
def take_first(score: Tensor, candidates: Tensor, count: Tensor) -> Tensor:
    """Tells which places are among the first `count` candidates by `rank`."""
    return candidates & (rank(score, candidates) < count[:, None])


@declared(n="index", rows="count")
def cosine_counts(n: int, rows: int) -> Tensor:
    """floor(m cos(pi i / (2 rows)) + 1e-9): how many of m masks stay after row i, 0 after the last.

    [n + 1, rows + 1], by m and i.
    """
    table = torch.zeros(n + 1, rows + 1, dtype=torch.int64)
    for m in range(n + 1):
        for i in range(rows):
            table[m, i] = math.floor(m * math.cos(math.pi * i / (2 * rows)) + 1e-9)
    return table


@declared(probability="B L rounded_share", threshold="positive")
def count_above(probability: Tensor, threshold: float) -> Tensor:
    """Counts the probabilities, largest first, that reach a threshold; at least 1."""
    return (probability >= threshold).sum(dim=-1).clamp(min=1)


@declared(probability="B L rounded_share", factor="positive")
def count_by_factor(probability: Tensor, factor: float) -> Tensor:
    """Returns the largest n with (n + 1) (1 - p_n) < factor, p_n the n-th probability; at least 1."""
    counts = torch.ones(len(probability), dtype=torch.int64)
    for b in range(len(probability)):
        for n in range(1, probability.shape[1] + 1):
            if (n + 1) * (1 - probability[b, n - 1]) < factor:
                counts[b] = n
    return counts


@declared(entropy="B L from_0", bound="from_0")
def count_by_entropy(entropy: Tensor, bound: float) -> Tensor:
    """Returns the longest prefix whose sum of entropies less the largest is at most a bound; at least 1."""
    counts = torch.ones(len(entropy), dtype=torch.int64)
    for b in range(len(entropy)):
        for n in range(1, entropy.shape[1] + 1):
            # In rising order the largest is the last.
            if entropy[b, : n - 1].sum() <= bound:
                counts[b] = n
    return counts


@declared(masked_share="B share", left="B index", u="B noise")
def next_hitting(masked_share: Tensor, left: Tensor, u: Tensor) -> Tensor:
    """Returns 1 - alpha at the next time that one of `left` masks is revealed: (1 - alpha) u^(1 / left)."""
    return masked_share * u ** (1 / left.clamp(min=1))


@declared(masked_share="B share")
def time_of(schedule: Schedule, masked_share: Tensor) -> Tensor:
    """Returns the time at which 1 - alpha is this share, by bisection: alpha falls with time."""
    low = torch.zeros_like(masked_share)
    high = torch.ones_like(masked_share)
    for _ in range(60):
        middle = (low + high) / 2
        is_before = schedule(middle).beta < masked_share
        low = torch.where(is_before, middle, low)
        high = torch.where(is_before, high, middle)
    return high
