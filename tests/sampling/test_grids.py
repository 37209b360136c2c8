"""The best grid is that of brute force, and the costs of its steps are the terms of the strided bound."""

import itertools

import jax
import numpy as np
import pytest

import d3pm_jax as d3pm
from d3pm_jax.evaluation.jumps import jump_costs
from d3pm_jax.sampling import best_grid


@pytest.mark.parametrize("T", [1, 2, 5, 10])
def test_the_best_grid_is_that_of_brute_force(T):
    rng = np.random.default_rng(T)
    costs = rng.exponential(size=(T + 1, T + 1))
    costs[rng.random(costs.shape) < 0.1] = np.inf
    costs[:-1, -1] = rng.exponential(size=T)  # so that there is a finite one
    costs[0, :] = rng.exponential(size=T + 1)
    for steps in range(1, T + 1):
        sums = {}
        for inner in itertools.combinations(range(1, T), steps - 1):
            path = [0, *inner, T]
            sums[tuple(path[1:])] = sum(costs[s, t] for s, t in itertools.pairwise(path))
        if np.isinf(min(sums.values())):
            with pytest.raises(ValueError, match=f"every grid of {steps} steps has an infinite cost"):
                best_grid(costs, steps)
        else:
            assert tuple(best_grid(costs, steps)) == min(sums, key=sums.__getitem__)


def test_costs_that_are_none_are_refused():
    for costs, steps, message in (
        (np.ones((3, 4)), 1, r"costs have shape \(3, 4\)"),
        (np.ones((3, 3)), 3, r"steps = 3: it must be in 1..2"),
        (np.full((3, 3), np.nan), 1, "costs hold NaN or -inf"),
    ):
        with pytest.raises(ValueError, match=message):
            best_grid(costs, steps)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["uniform", "dense"])
def test_costs_of_steps_are_the_terms_of_strided_bounds(kind):
    T = 6
    K = 3
    rng = np.random.default_rng(0)
    beta = np.linspace(0.1, 1.0, T)
    Q = rng.dirichlet(np.ones(K), (T, K))
    process = d3pm.uniform(beta, K) if kind == "uniform" else d3pm.dense(Q)
    x0 = rng.integers(0, K, (5, 2)).astype(np.int32)
    table = rng.normal(size=(T + 1, K, K)).astype(np.float32)

    @jax.jit
    def denoise(xt, t):
        return jax.numpy.asarray(table)[t[:, None], xt]

    key = jax.random.key(1)
    times = [2, 3, 5, 6]
    costs = jump_costs(denoise, process, x0, times, key)
    noise = d3pm.sampling.per_example(key, np.arange(5), (2,))
    for chosen in ([4], [2, 4], [1, 2, 3, 4], [1, 3, 4]):
        grid = [times[i - 1] for i in chosen]
        of_step = jax.numpy.asarray([0, *chosen])
        bound = d3pm.all_t_bound(denoise, d3pm.respace(process, grid), x0, lambda i, n=of_step: noise(n[i]))
        actual = [costs[i, j] for i, j in itertools.pairwise([0, *chosen])]
        np.testing.assert_allclose(actual, bound.steps.mean(1), rtol=2e-5)
    assert np.all(np.isinf(costs[np.tril_indices(5)]))
