"""Makes schedules that remove information at a given pace (D3PM appendix A.7), in float64 on the host.

What x_t still says of x_0 falls from the entropy H(x_0) to nothing as the exponent s of the process
grows: alpha_bar = exp(-s) where values are resampled, Qbar = expm(s R) for a rate matrix R. Here s_t is
chosen so that I(x_t; x_0) / H(x_0) is the part that is to be left at t, 1 - t / T by default. The official
text code has the same targets where it overrides its last step with a mask; where it does not, its targets
are 1 - t / (T + 1), the first T of those for T + 1 steps.
"""

import itertools
import math
from collections.abc import Callable, Iterator
from functools import partial

import numpy as np
import scipy  # its parts are imported when they are first used

from d3pm_jax.checks import FINITE, NUM_STEPS, AllowedRange, check_distribution, declared
from d3pm_jax.schedules.discrete import check_betas

# The part of the information that x_T keeps, at most, where no finite exponent removes all of it.
LEFT = 1e-6
# How near a target may come to 0 or 1: nearer ones are lost in rounding.
NEAREST = 1e-12
EXPONENTS = AllowedRange(0, math.inf, "exponents count from 0")
# The number of exponents between s and 2 s at which the information is computed.
PER_DOUBLING = 8

# s -> the part of the information that is left at exponents s, 2 s, 4 s, ...
Doubling = Callable[[float], Iterator[float]]


@declared(T=NUM_STEPS)
def mutual_information(T: int, p0: np.ndarray, pi: np.ndarray, left: np.ndarray | None = None) -> np.ndarray:
    """beta_t with I(x_t; x_0) = left_t H(x_0) for Q = (1 - beta) I + beta 1 pi^T (D3PM appendix A.7).

    With all of pi on a mask that the data never contains alpha_bar is left, so that beta_t is
    1 / (T - t + 1) by default, whatever p0.

    Args:
        T: number of steps, at least 1.
        p0: [K], the histogram of the data.
        pi: [K], what is resampled from: see `processes.marginal`.
        left: [T + 1], the part of the information that is left at t = 0..T: from exactly 1, strictly falling;
            only the last may be 0. 1 - t / T by default.

    Returns:
        float64 [T], the last entry exactly 1 where nothing is left at T. The information is within 1e-6 of
        its target.

    Raises:
        ValueError: p0 or pi is not a distribution over the same K, p0 is next to certain, or left does not
            fall at some step, or is nearer than 1e-12 to 1 or 0.
    """
    p0, H = _check_data(p0)
    pi = check_distribution("pi", pi, p0.size)
    targets = _check_targets(T, left)

    def left_by_doubling(s: float) -> Iterator[float]:
        return (_left_where_resampled(s * 2.0**k, p0, pi, H) for k in itertools.count())

    # Nothing is left at s = inf alone, which makes the last beta 1.
    s = _find_exponents(left_by_doubling, targets[targets > 0])
    s = np.append(s, [np.inf] * (T - s.size))  # [T]
    return check_betas(-np.expm1(-np.diff(s, prepend=0.0)))


@declared(T=NUM_STEPS, rate=FINITE)
def mutual_information_steps(
    T: int, p0: np.ndarray, rate: np.ndarray, left: np.ndarray | None = None
) -> np.ndarray:
    """step_t with I(x_t; x_0) = left_t H(x_0) for Q_t = expm(step_t rate) (D3PM appendix A.7).

    No finite exponent removes everything: where nothing is to be left, x_T keeps 1e-6 of the information, or
    half of what is left before if that is less.

    Args:
        T: number of steps, at least 1.
        p0: [K], the histogram of the data.
        rate: [K, K], a generator: non-negative off the diagonal, rows sum to 0; rows are "from". For
            example the adjacency matrix of a graph less its degrees.
        left: [T + 1], the part of the information that is left at t = 0..T; 1 - t / T by default.

    Returns:
        float64 [T], the increments of the exponent. The information is within 1e-6 of its target; where
        rates are very uneven it can miss by a few 1e-6.

    Raises:
        ValueError: p0 is not a distribution or is next to certain, rate is not a generator, or it cannot
            remove the information because some categories never meet; left does not fall from 1.
    """
    p0, H = _check_data(p0)
    rate, fastest = _check_rate(rate, p0.size)
    targets = _check_targets(T, left, end=LEFT)

    # `_left_by_doubling` asks for rates up to 1, so the rate is divided by the fastest. The exponents of that
    # rate are longer by the same factor: their increments are divided by it too.
    left_by_doubling = partial(_left_by_doubling, p0=p0, H=H, rate=rate / fastest)
    exponents = _find_exponents(left_by_doubling, targets)  # [T]
    return np.diff(exponents, prepend=0.0) / fastest


@declared(s=EXPONENTS)
def information_left(s: np.ndarray, p0: np.ndarray, pi: np.ndarray) -> np.ndarray:
    """I(x_t; x_0) / H(x_0) where alpha_bar_t = exp(-s) and values are resampled from pi.

    Args:
        s: exponents of any shape, at least 0; inf is the end of a chain.
        p0: [K], the histogram of the data.
        pi: [K], what is resampled from: see `processes.marginal`.

    Returns:
        float64, of the shape of s: 1 at s = 0, 0 at inf.

    Raises:
        ValueError: s is negative, or p0 or pi is not a distribution.
    """
    p0, H = _check_data(p0)
    pi = check_distribution("pi", pi, p0.size)
    return np.reshape([_left_where_resampled(x, p0, pi, H) for x in s.ravel()], s.shape)


@declared(s=EXPONENTS, rate=FINITE)
def information_left_by_rate(s: np.ndarray, p0: np.ndarray, rate: np.ndarray) -> np.ndarray:
    """I(x_t; x_0) / H(x_0) where Qbar_t = expm(s rate), by squaring of what a short time does.

    Args:
        s: exponents of any shape, at least 0 and finite.
        p0: [K], the histogram of the data.
        rate: [K, K], a generator: non-negative off the diagonal, rows sum to 0.

    Returns:
        float64, of the shape of s: 1 at s = 0.

    Raises:
        ValueError: s is negative or infinite, p0 is not a distribution, or rate is not a generator.
    """
    p0, H = _check_data(p0)
    rate, fastest = _check_rate(rate, p0.size)
    if not np.isfinite(s).all():
        raise ValueError("s contains inf: no exponent of a rate is the end of a chain, pass finite ones")

    def left_at(exponent: float) -> float:
        doublings = max(0, math.frexp(exponent)[1])
        parts = _left_by_doubling(math.ldexp(exponent, -doublings), p0, H, rate / fastest)
        return next(itertools.islice(parts, doublings, None))

    return np.reshape([left_at(x) for x in s.ravel() * fastest], s.shape)


def _left_where_resampled(s: float, p0: np.ndarray, pi: np.ndarray, H: float) -> float:
    """I(x_t; x_0) / H for alpha_bar = exp(-s), in O(K)."""
    # I is the mean over x_0 of KL(q(x_t | x_0) || m), m the distribution of x_t. The rows q(. | x_0) differ
    # only at x_0: `moved` has the term of each category in the rows of all others, `stayed` in its own row.
    # So the sum over rows and columns is that of `moved`, mended on the diagonal. kl_div(a, b) = a log(a / b)
    # - a + b is never negative, and what it adds to a log(a / b) sums to 0 over a row.
    keep = np.exp(-s)
    mix = -np.expm1(-s)
    m = keep * p0 + mix * pi
    moved = scipy.special.kl_div(mix * pi, m)  # [K]
    stayed = scipy.special.kl_div(keep + mix * pi, m)  # [K]
    in_data = p0 > 0
    return _divide_within_1(moved.sum() + p0[in_data] @ (stayed - moved)[in_data], H)


def _left_by_doubling(s: float, p0: np.ndarray, H: float, rate: np.ndarray) -> Iterator[float]:
    """Yields I(x_t; x_0) / H for Qbar = expm(s rate), expm(2 s rate), .., for s <= 2 and rates up to 1."""
    in_data = p0 > 0
    Qbar = _small_exponential(s, rate)
    while True:
        yield _divide_within_1(p0[in_data] @ scipy.special.kl_div(Qbar[in_data], p0 @ Qbar).sum(1), H)
        # expm(2 A) = expm(A)^2. The errors of row sums would double with each squaring, so rows are divided
        # by them.
        Qbar = Qbar @ Qbar
        Qbar /= Qbar.sum(1, keepdims=True)


def _divide_within_1(information: float, H: float) -> float:
    """information / H, held within [0, 1], which rounding can leave."""
    return min(max(float(information) / H, 0.0), 1.0)


def _check_targets(T: int, left: np.ndarray | None, end: float = 0.0) -> np.ndarray:
    """Returns the parts [T] that are to be left at t = 1..T, with up to `end` in place of 0 at T."""
    if left is None:
        left = 1 - np.arange(T + 1) / T
    if left.shape != (T + 1,) or left[0] != 1:
        raise ValueError(
            f"left must have shape [T + 1] = ({T + 1},) and start at 1, got shape {left.shape} starting "
            f"{left.ravel()[:2]}"
        )
    wrong = np.flatnonzero(~(np.diff(left) < 0)) + 1
    if wrong.size:
        t = wrong[0]
        raise ValueError(
            f"left goes from {left[t - 1]} to {left[t]} at t = {t}: the part of the information that is "
            f"left must fall at every step"
        )
    near = np.flatnonzero(~((left[1:] >= NEAREST) & (left[1:] <= 1 - NEAREST))) + 1
    if near.size and not (near[0] == T and left[T] == 0):
        t = near[0]
        raise ValueError(
            f"left = {left[t]} at t = {t}: only the first is 1, only the last may be 0, and none is nearer "
            f"to them than {NEAREST:g}"
        )
    if left[-1] > 0:
        return left[1:]
    return np.append(left[1:-1], min(end, left[-2] / 2))


def _find_exponents(left_by_doubling: Doubling, targets: np.ndarray) -> np.ndarray:
    """Finds the s at which these falling parts of the information are left, in (0, 1).

    A monotone cubic (PCHIP) through log s as a function of log(-log left): for a mask, left = exp(-s) makes
    it a straight line, and any chain forgets exponentially in the end.
    """
    if targets.size == 0:
        return targets

    # The smallest exponent has to leave more than the first target.
    start = 1.0
    while next(left_by_doubling(start)) <= targets[0]:
        start /= 2

    # Exponents at equal distances on a log scale, from there until less than the last target is left. For a
    # rate matrix a doubling is one squaring, so they are computed as PER_DOUBLING series of doublings, and
    # sorted afterwards.
    points = []  # (s, part left)
    for first in start * 2.0 ** (np.arange(PER_DOUBLING) / PER_DOUBLING):
        for k, left in enumerate(_take_until_below(left_by_doubling(first), targets[-1])):
            points.append((first * 2.0**k, left))
    s, left = np.array(sorted(points)).T

    # Rounding may make a part that is next to 0 or 1 equal to it, whose logs are infinite, and may make
    # neighbours equal or turn them round, which the interpolation refuses.
    double = np.finfo(float)
    left = np.clip(left, double.tiny, 1 - double.epsneg)
    x = np.maximum.accumulate(np.log(-np.log(left)))
    rises = np.diff(x, prepend=-np.inf) > 0
    curve = scipy.interpolate.PchipInterpolator(x[rises], np.log(s[rises]))
    return np.exp(curve(np.log(-np.log(targets))))


def _take_until_below(lefts: Iterator[float], smallest: float) -> Iterator[float]:
    """Yields the parts down to the first that is below smallest. Raises ValueError if 100 are not."""
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
    # expm(s rate) = exp(-s) sum_n (s jump)^n / n! with jump = I + rate, whose entries are not negative.
    # Horner's scheme sums the first 30 terms, beyond which s^n / n! is below 1e-23; the last line divides by
    # exp(s), as the sum of a row.
    I = np.eye(len(rate))
    jump = I + rate
    total = I
    for n in range(30, 0, -1):
        total = I + (s / n) * (jump @ total)
    return total / total.sum(1, keepdims=True)


def _check_data(p0: np.ndarray) -> tuple[np.ndarray, float]:
    """Returns p0 as float64 [K] and its entropy in nats."""
    p0 = check_distribution("p0", p0, p0.size)
    H = float(scipy.special.entr(p0).sum())
    if H < 0.01:
        raise ValueError(f"p0 has an entropy of {H:.3g} nats: below 0.01 there is no information to remove")
    return p0, H


def _check_rate(rate: np.ndarray, K: int) -> tuple[np.ndarray, float]:
    """Returns rate as float64 [K, K] and the fastest rate of leaving a category."""
    if rate.shape != (K, K):
        raise ValueError(f"rate has shape {rate.shape}, expected [{K}, {K}] as p0 has {K} categories")
    leave = -np.diag(rate)
    fastest = float(leave.max())
    others = rate + np.diag(leave)
    if not (np.all(others >= 0) and fastest > 0 and np.abs(rate.sum(1)).max() <= 1e-9 * fastest):
        raise ValueError(
            f"rate is not a generator (smallest entry off the diagonal {others.min():g}, row sums up to "
            f"{np.abs(rate.sum(1)).max():.2g}): subtract diag(rate.sum(1)) from a matrix of rates"
        )
    return rate, fastest
