"""Draws of one step of the process, x_t given x_{t-1}, against its one-step matrices."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import d3pm_jax as d3pm
from d3pm_jax.processes import Process
from tests.families import NAMES, make

K = 3
T = 4
GRID = 512
HALVINGS = 44
# Of each way that a family draws in; the others are their special cases.
FAST = ("marginal", "masked", "dense", "own")

pytestmark = pytest.mark.filterwarnings("ignore:x_T still depends")


@functools.partial(jax.jit, static_argnames="draw")
def draw_from_all(process, u, draw):
    """What each u [T + 1, K, n] makes of each x at each t, 0 among them."""
    x = jnp.broadcast_to(jnp.arange(K)[None, :, None], u.shape)
    return draw(process, x, jnp.arange(T + 1), u)


def measure_law(draw, process):
    """The length of all u that lead from x to each category at t, [T + 1, K, K], by bisection of a grid."""
    ends = np.linspace(0, 1 - 2**-53, GRID)
    u = np.broadcast_to(ends, (T + 1, K, GRID))
    drawn = np.asarray(draw_from_all(process, jnp.asarray(u), draw))
    low, high = u[..., :-1].copy(), u[..., 1:].copy()
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        padded = np.concatenate([middle, middle[..., -1:]], axis=-1)
        at_middle = np.asarray(draw_from_all(process, jnp.asarray(padded), draw))[..., :-1]
        is_before = at_middle == drawn[..., :-1]
        low, high = np.where(is_before, middle, low), np.where(is_before, high, middle)
    # Where both ends of a cell draw the same, all of it is theirs, wherever the bisection went.
    law = np.zeros((T + 1, K, K))
    for k in range(K):
        law[..., k] += np.sum((drawn[..., :-1] == k) * (low - ends[:-1]), axis=-1)
        law[..., k] += np.sum((drawn[..., 1:] == k) * (ends[1:] - low), axis=-1)
    return law


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[] if name in FAST else pytest.mark.slow) for name in NAMES]
)
def test_the_law_of_a_step_is_its_matrix(name, x64):
    case = make(name)
    expected = np.concatenate([np.eye(K)[None], case.Q])
    law = measure_law(type(case.process).draw_step, case.process)
    np.testing.assert_allclose(law, expected, atol=1e-12)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["marginal", "masked", "dense"])
def test_what_the_interface_gives_has_the_law_of_the_fast_form(name, x64):
    case = make(name)
    law = measure_law(Process.draw_step, case.process)
    np.testing.assert_allclose(law[1:], case.Q, atol=1e-12)


def test_small_integer_types_and_steps_outside_of_the_chain():
    process = d3pm.absorbing(d3pm.reciprocal(10), 257, 256)
    x = jnp.zeros(2, jnp.int8)
    u = jnp.array([0.05, 0.95])
    # The family draws the mask for the lowest tenth of u, what the interface gives for the highest.
    for draw, drawn in ((type(process).draw_step, [256, 0]), (Process.draw_step, [0, 256])):
        run = jax.jit(draw)
        assert run(process, x, jnp.asarray(1), u).tolist() == drawn
        assert run(process, x, jnp.asarray(11), u).tolist() == [-1, -1]
