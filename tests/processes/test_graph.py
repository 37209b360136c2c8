"""Processes along graphs and from rates: definitions by loops, sums, limits, closed forms."""

import math
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.linalg

import d3pm_jax as d3pm
from d3pm_jax import processes
from d3pm_jax.processes import graph
from tests.families import all_steps

pytestmark = [pytest.mark.usefixtures("x64"), pytest.mark.filterwarnings("ignore:x_T still depends")]


def points(K, d, seed=0):
    return np.random.default_rng(seed).normal(size=(K, d))


def rates(K, seed=0):
    """Random, not symmetric, some of them 0."""
    rng = np.random.default_rng(seed)
    R = rng.exponential(size=(K, K)) * (rng.random((K, K)) < 0.5)
    np.fill_diagonal(R, 0.0)
    return R - np.diag(R.sum(1))


def neighbours(x, i, k):
    """By the definition, the lower index first among equals."""
    others = [j for j in range(len(x)) if j != i]
    return sorted(others, key=lambda j: (sum((a - b) ** 2 for a, b in zip(x[i], x[j], strict=True)), j))[:k]


@pytest.mark.parametrize(
    "x",
    [points(40, 2), np.indices((5, 6)).reshape(2, -1).T.astype(float), np.zeros((6, 1))],
    ids=["random", "grid", "all the same"],
)
def test_the_graph_joins_nearest_neighbours(x):
    k = 4
    A = np.zeros((len(x), len(x)))
    for i in range(len(x)):
        for j in neighbours(x, i, k):
            A[i, j] += 1 / (2 * k)
            A[j, i] += 1 / (2 * k)
    R = d3pm.knn_rate(x, k)
    np.testing.assert_allclose(R, A - np.diag(A.sum(1)), atol=1e-15)
    W = d3pm.knn_graph(x, k)
    np.testing.assert_array_equal(W > 0, (A > 0) | np.eye(len(x), dtype=bool))
    scaling = W / (2 * k * A + 2 * np.eye(len(x)) + (W == 0))  # d_i d_j: any two of its rows are proportional
    for i, j in zip(*np.nonzero(np.triu(W, 1)), strict=True):
        assert scaling[i, j] ** 2 == pytest.approx(scaling[i, i] * scaling[j, j], rel=1e-12)


WEIGHTS = {  # of one category, from its distances, by sums
    processes.rank_weights: lambda d: [math.exp(-2 * r**2 / len(d)) for r in range(len(d))],
    partial(processes.gaussian_weights, scale=0.3): lambda d: [math.exp(-((x / 0.3) ** 2) / 2) for x in d],
}


@pytest.mark.parametrize("weights", WEIGHTS)
def test_neighbours_are_weighed_by_rank_or_by_distance(weights):
    x = points(30, 2)
    k = 5
    G = np.zeros((30, 30))
    for i in range(30):
        near = neighbours(x, i, k)
        w = np.array(WEIGHTS[weights]([math.dist(x[i], x[j]) for j in near]))
        G[i, near] = k * w / w.sum()
    R = d3pm.knn_rate(x, k, weights)
    moves = np.where(np.eye(30), 0, R)
    np.testing.assert_allclose(moves, (G + G.T) / (2 * k), rtol=1e-12)
    np.testing.assert_allclose(R.sum(1), 0, atol=1e-15)
    assert moves.sum() / 30 == pytest.approx(1, rel=1e-12)
    W = d3pm.knn_graph(x, k, weights)
    np.testing.assert_allclose(W.sum(1), 1, atol=1e-13)
    d = np.sqrt(np.diag(W) / 2)
    np.testing.assert_allclose(W, np.outer(d, d) * (G + G.T + 2 * np.eye(30)), rtol=1e-12)


@pytest.mark.parametrize("K", [2, 300])
def test_a_hub_is_made_doubly_stochastic(K):
    """All know the hub only: without edges to itself no scaling exists for K > 2."""
    hub = np.zeros((K, K))
    hub[0] = 1.0
    hub[:, 0] = 1.0
    x = np.concatenate([np.zeros((1, K - 1)), np.eye(K - 1)])
    W = d3pm.knn_graph(x, 1)
    np.testing.assert_array_equal(W > 0, (hub + np.eye(K)) > 0)
    np.testing.assert_array_equal(W, W.T)
    np.testing.assert_allclose(W.sum(1), 1.0, atol=1e-12)


def test_a_graph_that_cannot_be_scaled_is_refused():
    with pytest.raises(ValueError, match=r"row sums are still off by .* after 10000 .*edge to itself"):
        graph._make_doubly_stochastic(np.array([[1.0, 1.0], [1.0, 0.0]]))


def test_renaming_the_categories_renames_the_graph():
    x = points(50, 3)
    order = np.random.default_rng(1).permutation(50)
    for make in (d3pm.knn_graph, d3pm.knn_rate):
        np.testing.assert_allclose(make(x[order], 5), make(x, 5)[np.ix_(order, order)], atol=1e-13)


def test_a_random_walk_mixes_its_matrix_with_the_identity():
    W = np.array([[0.0, 1.0, 0.0], [0.3, 0.3, 0.4], [1.0, 0.0, 0.0]])
    Q, Qbar = all_steps(d3pm.random_walk(np.array([0.2, 1.0]), W))
    np.testing.assert_allclose(Q[1], [[0.8, 0.2, 0.0], [0.06, 0.86, 0.08], [0.2, 0.0, 0.8]], atol=1e-15)
    np.testing.assert_array_equal(Q[2], W)
    np.testing.assert_allclose(Qbar[2], Q[1] @ W, atol=1e-15)


def test_a_random_walk_starts_from_the_mean_row_or_from_a_prior_of_its_own():
    W = np.array([[0.0, 1.0, 0.0], [0.3, 0.3, 0.4], [1.0, 0.0, 0.0]])
    beta = np.array([0.2, 1.0])
    prior = np.array([0.5, 0.25, 0.25])
    mean = np.mean(((0.8 * np.eye(3) + 0.2 * W) @ W), axis=0)
    np.testing.assert_allclose(np.exp(d3pm.random_walk(beta, W).log_prior()), mean, rtol=1e-14)
    walk = d3pm.random_walk(beta, W, prior)
    for process in (walk, d3pm.respace(walk, [2])):
        np.testing.assert_allclose(np.exp(process.log_prior()), prior, rtol=1e-14)


@pytest.mark.parametrize("R", [rates(9), 1e6 * rates(17, 1), d3pm.knn_rate(points(27, 2), 3)])
def test_rates_against_scipy(R):
    durations = np.geomspace(1e-3, 30.0, 12) / np.abs(R).max()
    Q, _ = all_steps(d3pm.from_rate(R, durations))
    for t, s in enumerate(durations, 1):
        np.testing.assert_allclose(Q[t], scipy.linalg.expm(s * R), atol=1e-12)
        np.testing.assert_allclose(Q[t].sum(1), 1.0, atol=1e-12)
        assert Q[t].min() >= 0


@pytest.mark.parametrize(("a", "b"), [(1.0, 1.0), (1e-9, 3.0), (2.0, 1e-7)])
def test_two_states_have_a_closed_form_in_every_digit(a, b):
    R = np.array([[-a, a], [b, -b]])
    for s in (1e-3 / (a + b), 1.0, 1e5):
        gone = -math.expm1(-(a + b) * s)
        left = math.exp(-(a + b) * s)
        expected = np.array([[b + a * left, a * gone], [b * gone, a + b * left]]) / (a + b)
        actual = graph._exponential(graph._powers(graph._uniformise(R)[0]), max(a, b) * s)
        np.testing.assert_allclose(actual, expected, rtol=1e-12)


@pytest.mark.parametrize("s", [1e-3, 1.0, 20.0])
def test_the_smallest_entries_of_a_chain_of_births_are_poisson(s):
    """At rate 1 to the next category: exp(-s) s^n / n! after n births, down to 1e-170."""
    K = 60
    R = np.diag(np.ones(K - 1), 1) - np.diag(np.append(np.ones(K - 1), 0.0))
    Q, _ = all_steps(d3pm.from_rate(R, np.array([s, 1e3])))
    expected = [math.exp(-s) * s**n / math.factorial(n) for n in range(K - 1)]
    np.testing.assert_allclose(
        Q[1, 0, : K - 1], np.where(np.array(expected) < 2.0**-580, 0.0, expected), rtol=1e-12
    )
    np.testing.assert_allclose(Q[2, 0], np.eye(K)[-1], atol=1e-12)


LEVELS = np.array([0.1, 0.7, 0.0, 3.0])


def test_a_hierarchical_rate_depends_on_where_the_paths_of_two_leaves_part():
    R = d3pm.hierarchical_rate(LEVELS)
    paths = [(i // 8, i // 4 % 2, i // 2 % 2, i % 2) for i in range(16)]
    for i, a in enumerate(paths):
        for j, b in enumerate(paths):
            common = 0
            while common < 4 and a[common] == b[common]:
                common += 1
            expected = -LEVELS.sum()
            if i != j:
                expected = LEVELS[common] / 2 ** (3 - common)
            assert R[i, j] == pytest.approx(expected, rel=1e-15)
    np.testing.assert_allclose(R.sum(1), 0, atol=1e-14)
    halves = R.reshape(2, 8, 2, 8)
    np.testing.assert_allclose(halves[0, :, 1].sum(-1), LEVELS[0])  # out of one half, at the first
    np.testing.assert_allclose(np.diag(R, 1)[::2], LEVELS[-1])  # of two neighbours, at the last


def haar(p, level_rates, s):
    """p exp(s R) by Haar wavelets, K log K: those of level l decay at rates[l] twice and rates[0..l - 1]."""
    total = np.full_like(p, p.mean())
    mean = p.mean()
    for l, rate in enumerate(level_rates):
        finer = np.repeat(p.reshape(2 ** (l + 1), -1).mean(1), len(p) // 2 ** (l + 1))
        total += np.exp(-s * (level_rates[:l].sum() + 2 * rate)) * (finer - mean)
        mean = finer
    return total


def test_a_hierarchical_process_has_wavelets_for_eigenvectors():
    durations = np.array([0.05, 1.0, 20.0])
    Q, Qbar = all_steps(d3pm.from_rate(d3pm.hierarchical_rate(LEVELS), durations))
    p = np.random.default_rng(0).dirichlet(np.ones(16))
    for t, s in enumerate(durations, 1):
        np.testing.assert_allclose(p @ Q[t], haar(p, LEVELS, s), rtol=1e-12)
    np.testing.assert_allclose(p @ Qbar[3], haar(p, LEVELS, durations.sum()), rtol=1e-12)


def test_a_hierarchical_rate_that_is_the_same_between_all_leaves_resamples_uniformly():
    R = d3pm.hierarchical_rate(0.5 ** np.arange(1, 5))
    np.testing.assert_array_equal(R, 1 / 16 - np.eye(16))


def test_after_a_long_time_a_chain_forgets():
    R = rates(9)
    process = d3pm.from_rate(R, np.array([0.1, 1e6]))
    pi = np.linalg.lstsq(np.vstack([R.T, np.ones(9)]), np.append(np.zeros(9), 1.0))[0]
    np.testing.assert_allclose(all_steps(process)[0][2], np.broadcast_to(pi, (9, 9)), rtol=1e-11)
    np.testing.assert_allclose(np.exp(process.log_prior()), pi, rtol=1e-11)


def test_times_add_up():
    R = rates(9)
    _, Qbar = all_steps(d3pm.from_rate(R, np.array([0.1, 0.2, 0.7])))
    np.testing.assert_allclose(Qbar[3], scipy.linalg.expm(R), atol=1e-14)


@pytest.mark.filterwarnings("error")
def test_letters_of_an_alphabet():
    """27 letters with random embeddings: the chain ends uniform, and the loss is finite for any logits."""
    process = d3pm.from_rate(d3pm.knn_rate(points(27, 16), 5), np.geomspace(0.01, 2.0, 50))
    rng = np.random.default_rng(1)
    x0 = jnp.asarray(rng.integers(0, 27, (4, 8)), jnp.int32)
    t = jnp.asarray([1, 10, 30, 50], jnp.int32)
    logits = jnp.asarray(rng.normal(size=(4, 8, 27)))
    u = jnp.asarray(rng.random((4, 8)))

    @jax.jit
    def terms(process):
        xt = d3pm.q_sample(process, x0, t, u)
        return d3pm.posterior_kl(process, logits, x0, xt, t), d3pm.prior_kl(process, x0)

    kl, prior = terms(process)
    assert np.isfinite(kl).all()
    assert (np.asarray(kl) >= 0).all()
    assert prior.max() < 1e-3


def _negative_rate():
    R = rates(4)
    R[2, 1] = -0.5
    return R


def _flat(K):
    return np.full((K, K), 1 / K)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: d3pm.knn_graph(points(5, 2), 5), r"k = 5 is outside 1\.\.4"),
        (lambda: d3pm.knn_rate(points(5, 2), 0), "k = 0: it must be at least 1"),
        (lambda: d3pm.knn_graph(np.array([[0.0], [1.0], [np.nan]]), 1), r"embeddings\[2\] is not finite"),
        (lambda: d3pm.knn_rate(np.arange(3.0), 1), r"embeddings have shape \(3,\), expected \[K, d\]"),
        (lambda: d3pm.knn_rate(points(5, 2), 2, lambda d: d[0]), r"weights of distances \[5, 2\] have shape"),
        (lambda: d3pm.knn_graph(points(5, 2), 2, np.negative), r"weights\[0, 0\] = -.* not negative"),
        (
            lambda: d3pm.knn_rate(np.array([[-1.7e308], [1.7e308]]), 1),
            r"embeddings are up to 1\.7e\+308, and",
        ),
        (lambda: d3pm.knn_graph(points(5, 2), 2, lambda d: 0 * d + 1e308), "weights are up to 1e\\+308, and"),
        (lambda: d3pm.knn_rate(points(5, 2), 2, lambda d: 0 * d + 1e308), "weights are up to 1e\\+308, and"),
        (lambda: d3pm.random_walk(np.ones(2), 2 * np.eye(3)), "row 0 of W sums to 2"),
        (lambda: d3pm.random_walk(np.ones(2), np.array([[1.5, -0.5], [0, 1]])), r"smallest entry is -0\.5"),
        (lambda: d3pm.random_walk(np.ones(2), np.ones((2, 3)) / 3), r"W has shape \(2, 3\), expected"),
        (lambda: d3pm.random_walk(np.ones(2), np.eye(3)), "the chain is the identity"),
        (lambda: d3pm.hierarchical_rate(np.array([1.0, -2.0])), r"level_rates must .* values \[ 1. -2.\]"),
        (lambda: d3pm.hierarchical_rate(np.array([])), r"level_rates must be \[N\] .* shape \(0,\)"),
        (
            lambda: d3pm.hierarchical_rate(np.ones(40)),
            r"N = 40 levels, so K = 2\^N = 1099511627776 categories",
        ),
        (lambda: d3pm.from_rate(_negative_rate(), np.ones(2)), r"R\[2, 1\] = -0\.5: rates off the diagonal"),
        (lambda: d3pm.from_rate(rates(4) * np.nan, np.ones(2)), r"R\[0, 1\] = nan"),
        (lambda: d3pm.from_rate(_flat(3), np.ones(2)), "row 0 of R sums to 1, not 0"),
        (lambda: d3pm.from_rate(rates(4).T, np.ones(2)), "rows are 'from', columns are 'to'"),
        (lambda: d3pm.from_rate(rates(4)[0], np.ones(2)), r"R has shape \(4,\), expected"),
        (lambda: d3pm.from_rate(np.zeros((3, 3)), np.ones(2)), "the chain is the identity"),
        (lambda: d3pm.from_rate(rates(4), np.array([0.0, 1.0])), r"durations must be .* smallest 0"),
        (lambda: d3pm.from_rate(rates(4), np.array([1.0, np.inf])), "durations must be"),
    ],
)
def test_nonsense_is_refused(build, message):
    with pytest.raises(ValueError, match=message):
        build()
