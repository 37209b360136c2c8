"""Bounds with fewer steps: strided ones against sums over paths, stratified ones over every choice of t."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import d3pm_jax as d3pm
from d3pm_jax.timesteps import stratified
from tests import families, paths

K = 3
T = 4
GRID = [1, 4]
STATES = np.array(list(itertools.product(range(K), repeat=2)))
TABLE = np.random.default_rng(6).normal(size=(T + 1, K**2, 2, K)) * 1.5  # the model: any function will do

pytestmark = [
    pytest.mark.usefixtures("x64"),
    pytest.mark.filterwarnings("ignore:x_T still depends"),
]


def denoise(xt, t):
    return jnp.asarray(TABLE)[t, xt[:, 0] * K + xt[:, 1]]


def shorter_chain(Q):
    """The one-step matrices between the times of the grid, and p(x_s | x_t) of both elements for each."""
    ends = [0, *GRID]
    steps = [np.linalg.multi_dot([np.eye(K), *Q[a:b], np.eye(K)]) for a, b in itertools.pairwise(ends)]
    before = np.eye(K)
    reverse = []
    for step, time in zip(steps, GRID, strict=True):
        p0 = np.exp(TABLE[time]) / np.exp(TABLE[time]).sum(-1, keepdims=True)
        weights = (p0 @ before) * step.T[STATES]  # p(x_s) q(x_t | x_s)
        reverse.append(paths.both(weights / weights.sum(-1, keepdims=True)))
        before = before @ step
    return np.stack(steps), reverse


@jax.jit
def term(process, x0, xt, ts):
    return d3pm.posterior_kl(process, denoise(xt, process.time[ts]), x0, xt, ts).sum(1)


@pytest.mark.parametrize("name", ["uniform", pytest.param("dense", marks=pytest.mark.slow)])
def test_a_strided_bound_is_that_of_the_paths_of_the_shorter_chain(name):
    case = families.make(name)
    process = d3pm.respace(case.process, GRID)
    Q, reverse = shorter_chain(case.Q)
    x0 = np.array(list(itertools.product(case.data, repeat=2)))

    total = np.array(d3pm.prior_kl(process, jnp.asarray(x0)).sum(1))
    for t in (1, 2):
        ts = jnp.full(len(x0), t)
        q = np.asarray(case.process.Qbar(jnp.asarray(GRID[t - 1])))
        total += paths.expected_term(lambda xt, ts=ts: term(process, x0, xt, ts), q, x0)
    expected, exact = np.array([paths.bound_and_nll(Q, case.prior, reverse, x) for x in x0]).T
    np.testing.assert_allclose(total, expected, rtol=1e-12)
    assert np.all(total >= exact)
    many = jnp.tile(jnp.asarray(x0[4:5]), (20_000, 1))
    index = jnp.arange(20_000)
    estimate = jax.jit(
        lambda process: d3pm.estimate_bound(jax.random.key(0), denoise, process, many, index).total()
    )
    mean, error = d3pm.mean_and_se(estimate(process))
    assert abs(mean - expected[4]) < 4 * error
    assert error < 0.05


@pytest.mark.parametrize(
    "n", [pytest.param(1, marks=pytest.mark.slow), 3, pytest.param(4, marks=pytest.mark.slow)]
)
def test_the_mean_over_every_choice_of_t_is_the_whole_bound(n):
    """At the same noise for every t. A step of a stratum of size s is chosen by s of 12 u."""
    process = families.make("uniform").process
    grid = (jnp.arange(12) + 0.5) / 12
    x0 = jnp.asarray(STATES)
    noise = jnp.asarray(np.random.default_rng(7).random(STATES.shape))
    whole = d3pm.all_t_bound(denoise, process, x0, lambda t: noise).total()
    bound = jax.jit(lambda u: d3pm.strata_bound(denoise, process, x0, u, lambda j: noise))
    # The choices in one stratum do not interact with those in another, so that all move together.
    mean = np.mean([bound(jnp.full((n, len(STATES)), u)) for u in grid], axis=0)
    np.testing.assert_allclose(mean, whole, rtol=1e-12)


def test_strata_cover_every_step_once():
    u = (jnp.arange(420)[None] + 0.5) / 420
    for n, T in ((1, 1), (3, 7), (4, 7), (7, 7), (5, 12)):
        t, sizes = stratified(jnp.broadcast_to(u, (n, 420)), T)
        counts = np.sum(
            [size * np.bincount(row, minlength=T + 1) for row, size in zip(t, sizes, strict=True)], 0
        )
        np.testing.assert_array_equal(counts, [0] + [420] * T)
        assert sizes.sum() == T
        assert np.ptp(sizes) <= 1
    with pytest.raises(ValueError, match="5 strata of T = 4 steps: use at most 4"):
        stratified(jnp.zeros((5, 1)), 4)


def test_a_stratified_estimate_is_unbiased_and_does_not_depend_on_the_batch():
    process = families.make("uniform").process
    x0 = jnp.tile(jnp.array([[0, 2]]), (4000, 1))
    index = jnp.arange(4000)
    estimate = jax.jit(
        lambda x0, index: d3pm.stratified_bound(jax.random.key(1), denoise, process, x0, index, 3)
    )
    estimates = estimate(x0, index)
    exact = 0.0
    example = np.asarray(x0[:1])
    for t in range(1, T + 1):
        ts = jnp.full(1, t)
        q = np.asarray(process.Qbar(jnp.asarray(t)))
        exact += paths.expected_term(lambda xt, ts=ts: term(process, example, xt, ts), q, example)[0]
    mean, error = d3pm.mean_and_se(estimates)
    assert abs(mean - exact - d3pm.prior_kl(process, x0[:1]).sum()) < 4 * error
    np.testing.assert_allclose(estimate(x0[7:9], index[7:9]), estimates[7:9], rtol=1e-12)


def test_standard_errors_are_those_of_numpy():
    x = np.random.default_rng(0).normal(size=50)
    mean, error = d3pm.mean_and_se(jnp.asarray(x))
    np.testing.assert_allclose([mean, error], [x.mean(), x.std(ddof=1) / 50**0.5], rtol=1e-12)
    with pytest.raises(ValueError, match="at least 2 values"):
        d3pm.mean_and_se(jnp.zeros(1))
