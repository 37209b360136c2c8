"""Schedules that remove information evenly, against the information of the dense joint distribution."""

import jax.numpy as jnp
import numpy as np
import pytest
import scipy

from d3pm_jax import processes, schedules
from d3pm_jax.schedules import information


def left(p0, Qbar):
    """I(x_t; x_0) / H(x_0) from entropies of the joint distribution."""
    joint = p0[:, None] * Qbar
    H = [scipy.special.entr(p).sum() for p in (p0, joint.sum(0), joint)]
    return (H[0] + H[1] - H[2]) / H[0]


def histogram(K, seed=0):
    return np.random.default_rng(seed).dirichlet(np.ones(K))


def ring(K):
    """Jumps to either neighbour at rate 1."""
    return np.roll(np.eye(K), 1, 0) + np.roll(np.eye(K), -1, 0) - 2 * np.eye(K)


@pytest.mark.parametrize("T", [1, 2, 3, 50, 1000, 4000])
def test_a_mask_gets_the_reciprocal_schedule_whatever_the_data(T):
    for p0 in (histogram(27), np.array([0.99, 0.01])):
        K = len(p0) + 1
        beta = information.mutual_information(T, np.append(p0, 0.0), np.eye(K)[-1])
        np.testing.assert_allclose(beta, schedules.reciprocal(T), rtol=1e-9)
        assert beta[-1] == 1.0


@pytest.mark.parametrize(
    "pi",
    [
        np.full(6, 1 / 6),
        np.eye(6)[2],  # a mask that the data also contains
        np.array([0.5, 0.0, 0.0, 0.2, 0.2, 0.1]),
    ],
)
def test_information_falls_linearly_where_values_are_resampled(pi, x64):
    T = 50
    p0 = np.append(histogram(5), 0.0)
    process = processes.marginal(information.mutual_information(T, p0, pi), pi)
    Qbar = np.asarray(process.Qbar(jnp.arange(T + 1)), np.float64)
    np.testing.assert_allclose([left(p0, Q) for Q in Qbar], 1 - np.arange(T + 1) / T, atol=1e-6)


@pytest.mark.parametrize("name", ["ring", "ring and mask", "weak link"])
def test_information_falls_linearly_under_a_rate_matrix(name):
    rate = 3.0 * ring(8)
    T = 50
    if name == "ring and mask":
        rate = np.pad(rate - 4.0 * np.eye(8), ((0, 1), (0, 1)))
        rate[:8, 8] = 4.0
    if name == "weak link":
        rate = np.kron(np.eye(2), ring(4))
        rate[0, 4] = rate[4, 0] = 1e-6
        rate[0, 0] = rate[4, 4] = -2 - 1e-6
    p0 = np.append(histogram(8), np.zeros(len(rate) - 8))
    steps = information.mutual_information_steps(T, p0, rate)
    actual = [left(p0, scipy.linalg.expm(s * rate).clip(0)) for s in np.cumsum(steps)]
    np.testing.assert_allclose(actual, np.append(1 - np.arange(1, T) / T, 1e-6), atol=1e-6, rtol=1e-3)
    assert information.mutual_information_steps(1, p0, rate)[0] == pytest.approx(steps.sum(), rel=1e-4)


CURVES = {  # parts that are left at t / T
    "cosine": lambda t: np.append(np.cos(np.pi / 2 * t[:-1]), 0.0),
    "power": lambda t: 1 - t**3,
    "exponential": lambda t: np.exp(-9 * t),
}


@pytest.mark.parametrize("curve", CURVES)
def test_information_falls_along_any_curve(curve):
    T = 50
    p0 = histogram(8)
    targets = CURVES[curve](np.arange(T + 1) / T)
    pi = histogram(8, 1)
    rate = ring(8)
    keep = np.cumprod(1 - information.mutual_information(T, p0, pi, targets))
    actual = [left(p0, a * np.eye(8) + (1 - a) * pi) for a in keep]
    np.testing.assert_allclose(actual, targets[1:], atol=1e-6)
    s = np.cumsum(information.mutual_information_steps(T, p0, rate, targets))
    actual = [left(p0, scipy.linalg.expm(x * rate).clip(0)) for x in s]
    np.testing.assert_allclose(actual, np.append(targets[1:-1], targets[-1] or 1e-6), atol=1e-6, rtol=1e-3)
    mask = information.mutual_information(T, np.append(p0, 0.0), np.eye(9)[-1], targets)
    np.testing.assert_allclose(mask, schedules.from_alpha_bar(targets), rtol=1e-9)


@pytest.mark.parametrize("T", [100, 1000])
def test_a_rate_ends_below_what_is_left_before(T):
    p0 = histogram(8)
    rate = ring(8)
    targets = (1 - np.arange(T + 1) / T) ** 4  # down to 1 / T^4
    s = np.cumsum(information.mutual_information_steps(T, p0, rate, targets))
    actual = information.information_left_by_rate(s, p0, rate)
    np.testing.assert_allclose(actual[:-1], targets[1:-1], atol=1e-6)
    np.testing.assert_allclose(actual[-1], targets[-2] / 2, rtol=1e-2)


def test_a_rate_may_be_much_faster_where_the_data_never_is():
    rate = np.array([[-1.0, 1.0, 0.0], [1.0, -1.0, 0.0], [1e20, 0.0, -1e20]])
    p0 = np.array([0.3, 0.7, 0.0])
    actual = information.mutual_information_steps(10, p0, rate)
    expected = information.mutual_information_steps(10, p0[:2], rate[:2, :2])
    np.testing.assert_allclose(actual, expected, rtol=1e-4)


def test_by_default_information_falls_linearly():
    T = 30
    p0 = histogram(8)
    pi = histogram(8, 1)
    line = 1 - np.arange(T + 1) / T
    for solve, other in (
        (information.mutual_information, pi),
        (information.mutual_information_steps, ring(8)),
    ):
        np.testing.assert_array_equal(solve(T, p0, other, line), solve(T, p0, other))


def test_targets_next_to_everything_and_to_nothing():
    p0 = histogram(8)
    pi = histogram(8, 1)
    rate = ring(8)
    targets = np.array([1, 1 - 1e-12, 1 - 2e-12, 0.5, 1e-6, 2e-12, 1e-12])
    s = np.cumsum(-np.log1p(-information.mutual_information(6, p0, pi, targets)))
    np.testing.assert_allclose(information.information_left(s, p0, pi), targets[1:], atol=1e-6)
    s = np.cumsum(information.mutual_information_steps(6, p0, rate, targets))
    np.testing.assert_allclose(information.information_left_by_rate(s, p0, rate), targets[1:], atol=1e-6)
    assert np.all(np.diff(s) > 0)


def test_information_left_at_any_exponents():
    p0 = np.append(histogram(7), 0.0)
    pi = histogram(8, 1)
    rate = 5.0 * ring(8)
    s = np.array([[0.0, 1e-9, 0.01], [0.7, 3.0, 40.0]])
    actual = information.information_left(s, p0, pi)
    dense = [[left(p0, np.exp(-x) * np.eye(8) - np.expm1(-x) * pi) for x in row] for row in s]
    np.testing.assert_allclose(actual, dense, atol=1e-14)
    tiny = np.append(0.0, np.geomspace(1e-20, 1e3, 200))  # rounding leaves [0, 1] at both ends
    for parts in (
        information.information_left(tiny, p0, pi),
        information.information_left_by_rate(tiny, p0, rate),
    ):
        assert parts.min() >= 0
        assert parts.max() <= 1
    ends = information.information_left(np.array([0.0, np.inf]), p0, pi)
    np.testing.assert_allclose(ends, [1.0, 0.0], rtol=1e-15)
    actual = information.information_left_by_rate(s, p0, rate)
    dense = [[left(p0, scipy.linalg.expm(x * rate).clip(0)) for x in row] for row in s]
    np.testing.assert_allclose(actual, dense, atol=1e-12)
    with pytest.raises(ValueError, match="s contains inf: no exponent of a rate is the end of a chain"):
        information.information_left_by_rate(np.array([np.inf]), p0, rate)
    with pytest.raises(ValueError, match=r"s contains -1\.0: it must be at least 0"):
        information.information_left(np.array([-1.0]), p0, pi)


@pytest.mark.parametrize(
    ("targets", "message"),
    [
        ([1.0, 0.5], r"left must have shape \[T \+ 1\] = \(4,\) .* got shape \(2,\)"),
        ([0.9, 0.5, 0.2, 0.0], r"start at 1, got shape \(4,\) starting \[0.9 0.5\]"),
        ([1.0, 0.5, 0.5, 0.0], "left goes from 0.5 to 0.5 at t = 2: .* must fall at every step"),
        ([1.0, 0.5, 0.2, np.nan], "left goes from 0.2 to nan at t = 3"),
        ([1.0, 1 - 1e-15, 0.2, 0.0], "left = 0.999999999999999 at t = 1: only the first is 1"),
        ([1.0, 0.5, 0.2, -0.1], "left = -0.1 at t = 3: only the first is 1, only the last may be 0"),
        ([1.0, 0.5, 1e-13, 0.0], "left = 1e-13 at t = 2: .* none is nearer to them than 1e-12"),
    ],
)
def test_a_curve_that_cannot_be_followed_is_refused(targets, message):
    with pytest.raises(ValueError, match=message):
        information.mutual_information(3, histogram(8), histogram(8, 1), np.array(targets))


def test_time_units_of_a_rate_matrix_do_not_matter():
    p0 = histogram(8)
    steps = information.mutual_information_steps(10, p0, ring(8))
    np.testing.assert_allclose(information.mutual_information_steps(10, p0, 1e6 * ring(8)), steps / 1e6)


@pytest.mark.parametrize(
    ("p0", "other", "message"),
    [
        ([0.5, 0.4], [0.5, 0.5], r"p0 must be 2 .* sum 0.9, smallest entry 0.4: divide counts"),
        ([1.0, 0.0], [0.5, 0.5], "p0 has an entropy of 0 nats"),
        ([0.5, 0.5], [1.5, -0.5], r"pi must be 2 .* smallest entry -0.5"),
        ([0.5, 0.5], [1.0], r"pi must be 2 probabilities .* got shape \(1,\)"),
        ([0.5, 0.5], [[1.0, 0.0], [0.0, 1.0]], "rate is not a generator"),
        ([0.5, 0.5], [[0.0, 0.0], [0.0, 0.0]], "rate is not a generator"),
        ([0.5, 0.5], [[0.0]], r"rate has shape \(1, 1\), expected \[2, 2\]"),
        ([0.5, 0.5, 0.0], [[0, 0, 0], [0, 0, 0], [0, 1, -1]], "keeps 1 of the information .* never meet"),
    ],
)
def test_bad_arguments_are_named(p0, other, message):
    solve = information.mutual_information_steps if np.ndim(other) == 2 else information.mutual_information
    with pytest.raises(ValueError, match=message):
        solve(5, np.array(p0), np.array(other))
