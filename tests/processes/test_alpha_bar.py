"""The table alpha_bar of the processes that have one, against products of 1 - beta."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import d3pm_jax as d3pm

T = 5
GRID = [2, 3, 5]
BETA = np.array([0.1, 0.3, 0.2, 0.5, 1.0])
GAMMA = np.array([0.2, 0.1, 0.4, 0.3, 0.6])
KEPT = np.cumprod(np.append(1.0, 1 - BETA))

CASES = {
    "marginal": (lambda: d3pm.marginal(BETA, np.array([0.5, 0.0, 0.2, 0.3])), KEPT),
    "masked": (
        lambda: d3pm.masked(d3pm.uniform(BETA, 4), GAMMA),
        KEPT * np.cumprod(np.append(1.0, 1 - GAMMA)),
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_it_is_the_product_of_what_steps_keep_and_the_part_of_qbar_that_knows_x0(name, x64):
    process = CASES[name][0]()
    expected = CASES[name][1]
    actual = jax.jit(lambda process: process.alpha_bar)(process)
    np.testing.assert_allclose(actual, expected, rtol=1e-13)
    assert process.alpha_bar[0] == 1
    Qbar = np.asarray(process.Qbar(jnp.arange(T + 1)))
    np.testing.assert_allclose(Qbar[:, 1, 1] - Qbar[:, 0, 1], expected, atol=1e-15)
    short = d3pm.respace(process, GRID)
    np.testing.assert_allclose(short.alpha_bar, expected[[0, *GRID]], rtol=1e-13)
    two = jax.tree.map(lambda *x: jnp.stack(x), process, process)
    np.testing.assert_allclose(jax.vmap(lambda process: process.alpha_bar)(two), [actual, actual], rtol=1e-14)


@pytest.mark.filterwarnings("ignore:x_T still depends")
def test_other_processes_have_none():
    dense = d3pm.gaussian(np.full(T, 0.9), 4)
    for process in (dense, d3pm.masked(dense, GAMMA), d3pm.autoregressive(T, 4, 3)):
        assert not hasattr(process, "alpha_bar")
    with pytest.raises(AttributeError, match="Masked on top of Dense has no alpha_bar, as Dense has none"):
        d3pm.masked(dense, GAMMA).alpha_bar  # noqa: B018
