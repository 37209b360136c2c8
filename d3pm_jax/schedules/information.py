"""Makes schedules that remove information at an even pace (D3PM appendix A.7), in float64 on the host.

What x_t still says of x_0 falls from the entropy H(x_0) to nothing as the exponent s of the process
grows: alpha_bar = exp(-s) where values are resampled, Qbar = expm(s R) for a rate matrix R. Here s_t is
chosen so that I(x_t; x_0) / H(x_0) = 1 - t / T. So does the official text code where it overrides its last
step with a mask; where it does not, its targets are 1 - t / (T + 1), the first T of those for T + 1 steps.
"""

import itertools
from collections.abc import Callable, Iterator

import numpy as np
import scipy  # its parts are imported when they are first used

from d3pm_jax.checks import NUM_STEPS, declared
from d3pm_jax.schedules.discrete import check_betas

LEFT = 1e-6  # part of the information that x_T keeps where a chain cannot end
PER_DOUBLING = 8  # exponents at which the information is computed

# s -> the part of the information that is left at exponents s, 2 s, 4 s, ...
Doubling = Callable[[float], Iterator[float]]


@declared(T=NUM_STEPS)
def mutual_information(T: int, p0: np.ndarray, pi: np.ndarray) -> np.ndarray:
    """beta_t with I(x_t; x_0) = (1 - t / T) H(x_0) for Q = (1 - beta) I + beta 1 pi^T (D3PM appendix A.7).

    With all of pi on a mask that the data never contains this is 1 / (T - t + 1), whatever p0.

    Args:
        T: number of steps, at least 1.
        p0: [K], the histogram of the data.
        pi: [K], what is resampled from: see `processes.marginal`.

    Returns:
        float64 [T], the last entry exactly 1. The information is within 1e-6 of its target.

    Raises:
        ValueError: p0 or pi is not a distribution over the same K, or p0 is next to certain.
    """
    p0, H = _check_data(p0)
    if pi.shape != p0.shape or not np.all(pi >= 0) or abs(pi.sum() - 1) > 1e-9:
        raise ValueError(f"pi must be {p0.size} probabilities that sum to 1, as p0, got shape {pi.shape}")

    def left(s: float) -> float:
        keep, mix = np.exp(-s), -np.expm1(-s)
        m = keep * p0 + mix * pi
        moved = scipy.special.kl_div(mix * pi, m)  # of the categories other than x_0
        stayed = scipy.special.kl_div(keep + mix * pi, m)
        seen = p0 > 0
        return float(moved.sum() + p0[seen] @ (stayed - moved)[seen]) / H

    targets = 1 - np.arange(1, T) / T
    s = _exponents(lambda s: (left(s * 2.0**k) for k in itertools.count()), targets)
    return check_betas(-np.expm1(-np.diff(s, prepend=0.0, append=np.inf)))


@declared(T=NUM_STEPS)
def mutual_information_steps(T: int, p0: np.ndarray, rate: np.ndarray) -> np.ndarray:
    """step_t with I(x_t; x_0) = (1 - t / T) H(x_0) for Q_t = expm(step_t rate) (D3PM appendix A.7).

    No finite exponent removes everything: x_T keeps 1e-6 of the information.

    Args:
        T: number of steps, at least 1.
        p0: [K], the histogram of the data.
        rate: [K, K], a generator: non-negative off the diagonal, rows sum to 0; rows are "from". For
            example the adjacency matrix of a graph less its degrees.

    Returns:
        float64 [T], the increments of the exponent. The information is within 1e-6 of its target.

    Raises:
        ValueError: p0 is not a distribution or is next to certain, rate is not a generator, or it cannot
            remove the information because some categories never meet.
    """
    p0, H = _check_data(p0)
    rate, fastest = _check_rate(rate, p0.size)
    targets = np.append(1 - np.arange(1, T) / T, LEFT)
    seen = p0 > 0

    def doubling(s: float) -> Iterator[float]:
        Qbar = _small_exponential(s, rate / fastest)
        while True:
            yield float(p0[seen] @ scipy.special.kl_div(Qbar[seen], p0 @ Qbar).sum(1)) / H
            Qbar = Qbar @ Qbar
            Qbar /= Qbar.sum(1, keepdims=True)

    return np.diff(_exponents(doubling, targets), prepend=0.0) / fastest


def _exponents(left_from: Doubling, targets: np.ndarray) -> np.ndarray:
    """Finds the s at which these falling parts of the information are left, in (0, 1).

    A monotone cubic (PCHIP) through log s as a function of log(-log left): for a mask, left = exp(-s) makes
    it a straight line, and any chain forgets exponentially in the end.
    """
    if targets.size == 0:
        return targets
    start = 1.0
    while next(left_from(start)) <= targets[0]:
        start /= 2
    found = [
        (first * 2.0**k, left)
        for first in start * 2.0 ** (np.arange(PER_DOUBLING) / PER_DOUBLING)
        for k, left in enumerate(_until(left_from(first), targets[-1]))
    ]
    s, left = np.array(sorted(found)).T
    x = np.maximum.accumulate(np.log(-np.log(left)))
    rises = np.diff(x, prepend=-np.inf) > 0  # rounding may make neighbours equal
    curve = scipy.interpolate.PchipInterpolator(x[rises], np.log(s[rises]))
    return np.exp(curve(np.log(-np.log(targets))))


def _until(lefts: Iterator[float], smallest: float) -> Iterator[float]:
    """Yields the parts down to the first that is below smallest."""
    left = 1.0
    for left in itertools.islice(lefts, 100):
        yield left
        if left < smallest:
            return
    raise ValueError(
        f"the process keeps {left:.3g} of the information however long it runs: some categories never meet; "
        f"connect them, with a small rate between all for example"
    )


def _small_exponential(s: float, rate: np.ndarray) -> np.ndarray:
    """expm(s rate) for s <= 2 and a generator with rates up to 1, by uniformisation: no negative term."""
    I = np.eye(len(rate))
    jump, total = I + rate, I
    for n in range(30, 0, -1):
        total = I + (s / n) * (jump @ total)
    return total / total.sum(1, keepdims=True)


def _check_data(p0: np.ndarray) -> tuple[np.ndarray, float]:
    """Returns p0 as float64 [K] and its entropy in nats."""
    if p0.ndim != 1 or not np.all(p0 >= 0) or abs(p0.sum() - 1) > 1e-9:
        raise ValueError(
            f"p0 must be probabilities that sum to 1, got shape {p0.shape}, sum {p0.sum():.12g}: "
            f"divide counts by their total"
        )
    H = float(scipy.special.entr(p0).sum())
    if H < 0.01:
        raise ValueError(f"p0 has an entropy of {H:.3g} nats: below 0.01 there is no information to remove")
    return p0, H


def _check_rate(rate: np.ndarray, K: int) -> tuple[np.ndarray, float]:
    """Returns rate as float64 [K, K] and the fastest rate of leaving a category."""
    if rate.shape != (K, K):
        raise ValueError(f"rate has shape {rate.shape}, expected [{K}, {K}] as p0 has {K} categories")
    if not np.isfinite(rate).all():
        raise ValueError("rate has entries that are not finite: rates are numbers, 0 where nothing moves")
    leave = -np.diag(rate)
    fastest = float(leave.max())
    others = rate + np.diag(leave)
    if not (np.all(others >= 0) and fastest > 0 and np.abs(rate.sum(1)).max() <= 1e-9 * fastest):
        raise ValueError(
            f"rate is not a generator (smallest entry off the diagonal {others.min():g}, row sums up to "
            f"{np.abs(rate.sum(1)).max():.2g}): subtract diag(rate.sum(1)) from a matrix of rates"
        )
    return rate, fastest
