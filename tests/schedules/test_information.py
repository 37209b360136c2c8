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
    T, p0 = 50, np.append(histogram(5), 0.0)
    process = processes.marginal(information.mutual_information(T, p0, pi), pi)
    Qbar = np.asarray(process.Qbar(jnp.arange(T + 1)), np.float64)
    np.testing.assert_allclose([left(p0, Q) for Q in Qbar], 1 - np.arange(T + 1) / T, atol=1e-6)


@pytest.mark.parametrize("name", ["ring", "ring and mask", "weak link"])
def test_information_falls_linearly_under_a_rate_matrix(name):
    rate, T = 3.0 * ring(8), 50
    if name == "ring and mask":
        rate = np.pad(rate - 4.0 * np.eye(8), ((0, 1), (0, 1)))
        rate[:8, 8] = 4.0
    if name == "weak link":
        rate = np.kron(np.eye(2), ring(4))
        rate[0, 4] = rate[4, 0] = 1e-6
        rate[0, 0] = rate[4, 4] = -2 - 1e-6
    p0 = np.append(histogram(8), np.zeros(len(rate) - 8))
    steps = information.mutual_information_steps(T, p0, rate)
    found = [left(p0, scipy.linalg.expm(s * rate).clip(0)) for s in np.cumsum(steps)]
    np.testing.assert_allclose(found, np.append(1 - np.arange(1, T) / T, 1e-6), atol=1e-6, rtol=1e-3)
    assert information.mutual_information_steps(1, p0, rate)[0] == pytest.approx(steps.sum(), rel=1e-4)


def test_time_units_of_a_rate_matrix_do_not_matter():
    p0 = histogram(8)
    steps = information.mutual_information_steps(10, p0, ring(8))
    np.testing.assert_allclose(information.mutual_information_steps(10, p0, 1e6 * ring(8)), steps / 1e6)


@pytest.mark.parametrize(
    ("p0", "other", "message"),
    [
        ([0.5, 0.4], [0.5, 0.5], r"p0 must be .* sum 0.9: divide counts"),
        ([1.0, 0.0], [0.5, 0.5], "p0 has an entropy of 0 nats"),
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
