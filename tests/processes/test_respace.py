"""Processes on fewer steps: their tables against products of the steps between."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import d3pm_jax as d3pm
from tests.processes.odd import PROCESSES, T

pytestmark = pytest.mark.filterwarnings("ignore:x_T still depends")


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("name", PROCESSES)
def test_respacing_multiplies_the_steps_between(name):
    process = PROCESSES[name]()
    grid = [1, 4, 9, T]
    short = d3pm.respace(process, grid)
    assert short.T == 4
    np.testing.assert_array_equal(short.time, [0, *grid])
    at = jnp.asarray([0, *grid])
    np.testing.assert_allclose(short.Qbar(jnp.arange(5)), process.Qbar(at), atol=1e-14)
    product = np.eye(process.K)
    for step in (5, 6, 7, 8, 9):
        product = product @ np.asarray(process.Q(jnp.asarray(step)))
    np.testing.assert_allclose(short.Q(jnp.asarray(3)), product, atol=1e-14)
    again = d3pm.respace(short, [2, 4])
    np.testing.assert_array_equal(again.time, [0, 4, T])
    np.testing.assert_allclose(again.Qbar(jnp.asarray(1)), process.Qbar(jnp.asarray(4)), atol=1e-14)


def test_respacing_refuses_what_it_cannot_do():
    process = PROCESSES["uniform"]()
    for grid in ([], [0, T], [3, 2, T], [3, 3, T], [1, T - 1]):
        with pytest.raises(ValueError, match=r"must increase from at least 1 and end at T = 12"):
            d3pm.respace(process, grid)
    with pytest.raises(ValueError, match="came out of a JAX transformation"):
        d3pm.respace(jax.device_put(process), [T])
