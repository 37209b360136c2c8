"""Decides what samples say about their law: never that it is the right one.

An event, a set of samples, is chosen on one half of the samples. On the other half, which had no say in the
choice, its frequency bounds its probability under the law of the sampler; where that is above its probability
under the true law, the difference is a lower bound of the total variation. A sampler whose law is the true
one is said to have another with a probability of at most the level.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from typing import NamedTuple

import numpy as np
from scipy import stats

from d3pm_jax.judge.figures import Counts, add, tv
from d3pm_jax.judge.targets import Target, list_states, number_states

THRESHOLDS = 99  # of a score that are tried
INDEPENDENT = 1e-3  # how seldom calls of independent samples are taken for others
Score = Callable[[np.ndarray], np.ndarray]  # samples [n, L] -> [n]


class Samples(NamedTuple):
    """Holds samples, each with how often it was drawn; of exact ones also their probabilities."""

    x: np.ndarray  # [N, L]
    times: np.ndarray  # [N]

    def share(self, holds: np.ndarray) -> float:
        """Returns the share of the samples for which something holds, [N]."""
        return float(self.times[holds].sum() / self.times.sum())


class Event(NamedTuple):
    """Holds the samples whose score is above a threshold."""

    name: str
    score: Score
    threshold: float

    def holds(self, x: np.ndarray) -> np.ndarray:
        """Tells for which samples it is true."""
        return self.score(x) > self.threshold


def gather_samples(x: np.ndarray, target: Target) -> Samples:
    """Gathers samples [n, L], equal ones together where the states can be enumerated."""
    if target.law is None:
        return Samples(x, np.ones(len(x), np.int64))
    times = np.bincount(number_states(x, target.K), minlength=len(target.law))
    return Samples(list_states(target.K, target.length), times)


# ---- From below ----


def choose_events(samples: Samples, exact: Samples, target: Target) -> list[Event]:
    """Chooses sets of samples that are more probable under the law of a sampler than under the true one.

    Args:
        samples: half of them.
        exact: exact samples, or all states and their probabilities.
        target: has the true law.
    """
    events = []
    if target.law is not None:
        excess = samples.times / samples.times.sum() - target.law
        events.append(Event("states", lambda x: excess[number_states(x, target.K)], 0.0))
    table = compare_transitions(samples, target)
    scores: dict[str, Score] = {
        "transitions": lambda x: table[x[:, :-1], x[:, 1:]].sum(axis=1),
        "-log p above": lambda x: -target.log_prob(x),
        "-log p below": target.log_prob,
    }
    chosen = {name: choose_threshold(score, samples, exact) for name, score in scores.items()}
    # Of the two sides of -log p the one that shows more.
    side = max(("-log p above", "-log p below"), key=lambda name: chosen[name][1])
    return events + [Event(name, scores[name], chosen[name][0]) for name in ("transitions", side)]


def compare_transitions(samples: Samples, target: Target) -> np.ndarray:
    """Returns log(sampled / true) of the probabilities of steps, [K, K]; those of samples are smoothed."""
    K = target.K
    steps = samples.x[:, :-1] * K + samples.x[:, 1:]  # [N, L - 1]
    times = np.broadcast_to(samples.times[:, None], steps.shape)
    counts = np.bincount(steps.ravel(), times.ravel(), minlength=K * K).reshape(K, K)
    rows = target.pairs[0].sum(axis=1, keepdims=True)
    true = np.divide(target.pairs[0], rows, out=np.full((K, K), 1 / K), where=rows > 0)
    sampled = (counts + true) / (counts.sum(axis=1, keepdims=True) + 1)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(sampled > 0, np.log(sampled) - np.log(true), 0.0)


def choose_threshold(score: Score, samples: Samples, exact: Samples) -> tuple[float, float]:
    """Returns the threshold that most more of the samples are above than of exact ones, and by how much."""
    exact_scores = score(exact.x)
    possible = exact_scores[np.isfinite(exact_scores) & (exact.times > 0)]
    if not len(possible):
        return 0.0, 0.0
    thresholds = np.unique(np.quantile(possible, np.linspace(0, 1, THRESHOLDS + 2)))
    sample_scores = score(samples.x)
    excess = [samples.share(sample_scores > c) - exact.share(exact_scores > c) for c in thresholds]
    best = int(np.argmax(excess))
    return float(thresholds[best]), excess[best]


def bound_below(
    halves: tuple[Samples, Sequence[Samples]],
    target: Target,
    exact: Samples,
    draw_exact: Callable[[], Iterator[np.ndarray]],
    level: float,
) -> tuple[float, str]:
    """Returns a lower bound of the total variation from the true law, or 0, and the event that it is of.

    Args:
        halves: of the samples: events are chosen on the first, and counted on the second, call by call.
        target: has the true law.
        exact: exact samples, for thresholds, or all states and their probabilities.
        draw_exact: draws other ones in parts, where the law cannot be enumerated.
        level: the probability, at most, that it is above the total variation.
    """
    chosen, tested = halves
    events = choose_events(chosen, exact, target)
    level_of_each = level / len(events)
    if target.law is not None:
        true = [exact.share(event.holds(exact.x)) for event in events]
    else:
        # Half of the level is for the samples, half for these.
        level_of_each /= 2
        num = 0
        held = np.zeros(len(events), np.int64)
        for x in draw_exact():
            num += len(x)
            held += [int(event.holds(x).sum()) for event in events]
        true = [bound_probability(int(times), num, level_of_each)[1] for times in held]
    bound = 0.0
    name = ""
    nums = np.array([call.times.sum() for call in tested])
    for event, probability in zip(events, true, strict=True):
        held_in_calls = np.array([call.times[event.holds(call.x)].sum() for call in tested])
        sampled = bound_over_calls(held_in_calls, nums, level_of_each)
        if sampled - probability > bound:
            bound = sampled - probability
            name = event.name
    return bound, name


def bound_probability(held: int, num: int, level: float) -> tuple[float, float]:
    """Returns the bounds of Clopper and Pearson for what held so often, each of them at this level."""
    low = float(stats.beta.ppf(level, held, num - held + 1)) if held else 0.0
    high = float(stats.beta.isf(level, held + 1, num - held)) if held < num else 1.0
    return low, high


def bound_over_calls(held: np.ndarray, nums: np.ndarray, level: float) -> float:
    """Returns a lower bound of the probability of what held so often in calls of as many samples each.

    It is that of Clopper and Pearson, unless calls differ by more than those of independent samples would:
    then one of Student for their mean, if that is lower.
    """
    bound, _ = bound_probability(int(held.sum()), int(nums.sum()), level)
    p = held.sum() / nums.sum()
    degrees = len(held) - 1
    if degrees < 1 or not 0 < p < 1:
        return bound
    spread = np.sum((held - nums * p) ** 2 / (nums * p * (1 - p)))
    if stats.chi2.sf(spread, degrees) > INDEPENDENT:
        return bound
    shares = held / nums
    error = shares.std(ddof=1) / math.sqrt(len(shares))
    return min(bound, float(shares.mean() - stats.t.isf(level, degrees) * error))


# ---- From above ----


def bound_above(calls: Sequence[Counts], target: Target, level: float) -> tuple[float, str]:
    """Returns an upper bound of a total variation from the true law, and of what it is one.

    TV(q, p) <= TV(p_hat, p) + TV(p_hat, q), whose last term is sum sd / 2 in the mean, and with n samples
    above that by sqrt(log(1 / level) / (2 n)) with a probability of at most the level (McDiarmid).

    Args:
        calls: the counts of each call.
        target: has the true law. Of one that cannot be enumerated the laws of pairs of places are compared,
            whose standard deviations are estimated from the spread over calls.
        level: the probability, at most, that it is below.
    """
    total = add(calls)
    num = int(total.num)
    if target.law is not None:
        noise = 0.5 * np.sqrt((len(target.law) - 1) / num) + np.sqrt(np.log(1 / level) / (2 * num))
        return min(1.0, tv(total.states / num, target.law) + float(noise)), "the law"
    bounds = []
    for i, true in enumerate(target.pairs):
        shares = np.stack([each.pairs[i] / each.pairs[i].sum() for each in calls])  # [calls, K, K]
        deviations = shares.std(axis=0, ddof=1) / np.sqrt(len(calls))
        noise = 0.5 * deviations.sum() + np.sqrt(np.log(len(target.pairs) / level) / (2 * num))
        bounds.append(tv(shares.mean(axis=0), true) + noise)
    return min(1.0, float(max(bounds))), f"pairs of places 1 to {len(bounds)} apart"


# ---- In words ----


def describe_bounds(at_least: float, at_most: float, of: str, num: int) -> str:
    """Says what is known of one number of calls."""
    if at_least > 0:
        return f"another law: TV at least {_write_bound(at_least, math.floor)}"
    return f"not told apart at n = {num}: TV of {of} at most {_write_bound(at_most, math.ceil)}"


def _write_bound(bound: float, rounding: Callable[[float], int]) -> str:
    """Writes a bound with two digits, rounded so that it stays one."""
    digits = 1 - math.floor(math.log10(bound))
    return f"{rounding(bound * 10**digits) / 10**digits:.2g}"


def describe_course(at_least: Sequence[float]) -> str:
    """Says what is known over increasing numbers of calls, of the lower bounds of each.

    It is nearer with more calls where each bound, of two at least, is less than half of that before.
    """
    is_told = [bound > 0 for bound in at_least]
    falls = all(later <= earlier for earlier, later in pairwise(at_least))
    if is_told[0] and falls and not is_told[-1]:
        return "approaches it with calls"
    if all(is_told):
        halves = all(later < earlier / 2 for earlier, later in pairwise(at_least))
        return "another law, nearer with more calls" if halves and len(at_least) > 1 else "another law"
    if any(is_told):
        return "another law with some numbers of calls"
    return "not told apart"
