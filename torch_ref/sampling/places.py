"""Chooses which masked places are revealed in a row: an order of places, and how many of it.

An order gives every place a score, the largest first and of equal ones the smaller index; a count looks at
the scores in that order.
"""

import abc
import dataclasses
import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from torch_ref.schedules.continuous import Schedule


def rank(score: Tensor, candidates: Tensor) -> Tensor:
    """Returns how many candidates come before each place; places that are none come last."""
    ranks = torch.zeros(score.shape, dtype=torch.int64)
    for b in range(len(score)):
        order = sorted(range(score.shape[1]), key=lambda i: (not candidates[b, i], -float(score[b, i]), i))
        for position, place in enumerate(order):
            ranks[b, place] = position
    return ranks


def take_first(score: Tensor, candidates: Tensor, count: Tensor) -> Tensor:
    """Tells which places are among the first `count` candidates by `rank`."""
    return candidates & (rank(score, candidates) < count[:, None])


def cosine_counts(n: int, rows: int) -> Tensor:
    """floor(m cos(pi i / (2 rows)) + 1e-9): how many of m masks stay after row i, 0 after the last.

    [n + 1, rows + 1], by m and i.
    """
    table = torch.zeros(n + 1, rows + 1, dtype=torch.int64)
    for m in range(n + 1):
        for i in range(rows):
            table[m, i] = math.floor(m * math.cos(math.pi * i / (2 * rows)) + 1e-9)
    return table


def count_above(probability: Tensor, threshold: float) -> Tensor:
    """Counts the probabilities, largest first, that reach a threshold; at least 1."""
    return (probability >= threshold).sum(dim=-1).clamp(min=1)


def count_by_factor(probability: Tensor, factor: float) -> Tensor:
    """Returns the largest n with (n + 1) (1 - p_n) < factor, p_n the n-th probability; at least 1."""
    counts = torch.ones(len(probability), dtype=torch.int64)
    for b in range(len(probability)):
        for n in range(1, probability.shape[1] + 1):
            if (n + 1) * (1 - probability[b, n - 1]) < factor:
                counts[b] = n
    return counts


def count_by_entropy(entropy: Tensor, bound: float) -> Tensor:
    """Returns the longest prefix whose sum of entropies less the largest is at most a bound; at least 1."""
    counts = torch.ones(len(entropy), dtype=torch.int64)
    for b in range(len(entropy)):
        for n in range(1, entropy.shape[1] + 1):
            # In rising order the largest is the last.
            if entropy[b, : n - 1].sum() <= bound:
                counts[b] = n
    return counts


# ---- Slots ----


class Candidates(NamedTuple):
    """Holds what an order and a count may look at in a row: places in one line, and a category for each."""

    log_p: Tensor  # [B, L, K]  the denoiser, normalised
    drawn: Tensor  # [B, L]  the category that each place takes if it is revealed
    masked: Tensor  # [B, L]  the places that may be revealed
    places: Tensor  # [B]  how many there were before the first row
    uniforms: Callable[[], Tensor]  # noise for the order, [B, L]
    i: int  # the number of the row, from 1 on
    rows: int  # how many rows there are


class Order(abc.ABC):
    """Says which masked places come first."""

    @abc.abstractmethod
    def score(self, candidates: Candidates) -> Tensor:
        """Returns the score of each place, [B, L]; the largest come first."""


class Count(abc.ABC):
    """Says how many masked places are revealed."""

    @abc.abstractmethod
    def count(self, candidates: Candidates, score: Tensor) -> Tensor:
        """Returns the number of places, [B], those with the largest scores."""

    def num_rows(self, places: int) -> int:
        """Returns how many rows it takes to reveal so many places."""
        return places


@dataclasses.dataclass(frozen=True)
class RandomOrder(Order):
    """Reveals places in a random order."""

    def score(self, candidates: Candidates) -> Tensor:
        return candidates.uniforms()


@dataclasses.dataclass(frozen=True)
class DrawnProbability(Order):
    """Reveals first where the category that was drawn is likely: log p(drawn) + noise."""

    temperature: float = 0.0

    def score(self, candidates: Candidates) -> Tensor:
        drawn = candidates.drawn.clamp(min=0)[..., None]  # -1 where nothing could be drawn
        log_p = candidates.log_p.gather(-1, drawn)[..., 0]
        cooled = self.temperature * (1 - candidates.i / candidates.rows)
        if cooled == 0:
            return log_p
        gumbel = -torch.log(-torch.log(candidates.uniforms()))
        return log_p + cooled * gumbel


@dataclasses.dataclass(frozen=True)
class LargestProbability(Order):
    """Reveals first where the likeliest category is likeliest, whatever was drawn."""

    def score(self, candidates: Candidates) -> Tensor:
        return candidates.log_p.amax(dim=-1)


@dataclasses.dataclass(frozen=True)
class LeastEntropy(Order):
    """Reveals first where the entropy of the belief is least."""

    def score(self, candidates: Candidates) -> Tensor:
        return -torch.special.entr(candidates.log_p.exp()).sum(dim=-1)


@dataclasses.dataclass(frozen=True)
class One(Count):
    """Reveals one place a row."""

    def count(self, candidates: Candidates, score: Tensor) -> Tensor:
        return torch.ones_like(candidates.places)


@dataclasses.dataclass(frozen=True)
class Cosine(Count):
    """Leaves floor(n cos(pi i / 2N)) of n masks after row i of N, see `cosine_counts`."""

    rows: int = 12

    def num_rows(self, places: int) -> int:
        return self.rows

    def count(self, candidates: Candidates, score: Tensor) -> Tensor:
        table = cosine_counts(candidates.masked.shape[1], self.rows)
        stay = table[candidates.places, candidates.i]
        return (candidates.masked.sum(dim=-1) - stay).clamp(min=0)


def _falling(candidates: Candidates, score: Tensor) -> Tensor:
    """Returns the probabilities whose logs are the scores in falling order, 0 behind the candidates."""
    return torch.where(candidates.masked, score.exp(), 0.0).sort(dim=-1, descending=True).values


@dataclasses.dataclass(frozen=True)
class Threshold(Count):
    """Reveals where the probability reaches a threshold, and at least one place."""

    threshold: float = 0.9

    def count(self, candidates: Candidates, score: Tensor) -> Tensor:
        return count_above(_falling(candidates, score), self.threshold)


@dataclasses.dataclass(frozen=True)
class Factor(Count):
    """Reveals the largest n places with (n + 1) (1 - p_n) < factor, and at least one."""

    factor: float = 1.0

    def count(self, candidates: Candidates, score: Tensor) -> Tensor:
        return count_by_factor(_falling(candidates, score), self.factor)


@dataclasses.dataclass(frozen=True)
class EntropyBound(Count):
    """Reveals the longest prefix whose entropies, without the largest, sum to at most a bound."""

    bound: float = 0.1

    def count(self, candidates: Candidates, score: Tensor) -> Tensor:
        rising = torch.where(candidates.masked, -score, torch.inf).sort(dim=-1).values
        return count_by_entropy(rising, self.bound)


class Places(abc.ABC):
    """Says which masked places take x_0 in a row; the others stay masked."""

    @abc.abstractmethod
    def num_rows(self, places: int) -> int:
        """Returns how many rows it takes to reveal so many places."""

    @abc.abstractmethod
    def choose(self, candidates: Candidates) -> Tensor:
        """Tells which places are revealed."""


@dataclasses.dataclass(frozen=True)
class Reveal(Places):
    """Reveals the masked places that are first in an order, so many as a count says."""

    order: Order = RandomOrder()
    count: Count = One()

    def num_rows(self, places: int) -> int:
        return self.count.num_rows(places)

    def choose(self, candidates: Candidates) -> Tensor:
        score = self.order.score(candidates)
        return take_first(score, candidates.masked, self.count.count(candidates, score))


@dataclasses.dataclass(frozen=True)
class FirstHitting(Places):
    """Reveals a random place a row, at a time drawn for it: 1 - alpha falls to (1 - alpha) u^(1/n)."""

    schedule: Schedule | None = None

    def num_rows(self, places: int) -> int:
        return places

    def choose(self, candidates: Candidates) -> Tensor:
        return Reveal(RandomOrder(), One()).choose(candidates)


def next_hitting(masked_share: Tensor, left: Tensor, u: Tensor) -> Tensor:
    """Returns 1 - alpha at the next time that one of `left` masks is revealed: (1 - alpha) u^(1 / left)."""
    return masked_share * u ** (1 / left.clamp(min=1))


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
