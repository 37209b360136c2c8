"""Forward chains of pictures: their joint law; and that what is compiled for a run does not keep it."""

import gc
import itertools
import weakref

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import d3pm_jax as d3pm
from d3pm_jax import kinds
from d3pm_jax.kinds import Given
from d3pm_jax.measure.samples import draw_forward, evenly_spaced
from d3pm_jax.runs.run import open_run
from tests import tiny
from tests.families import BETA


def test_forward_chains_have_the_law_of_one_step_after_another():
    """Every (x_1, x_3, x_4) as often as the matrices say, an x_2 that is not recorded between."""
    N = 40_000
    process = d3pm.masked(d3pm.random_walk(BETA, np.array([[0, 1], [1, 0]])), BETA / 2)
    Q = np.asarray(process.Q(jnp.arange(1, 5)), np.float64)
    states = draw_forward(jax.random.key(0), process, np.zeros((N, 1), np.int32), [0, 1, 3, 4])[..., 0]
    assert (states[0] == 0).all()
    for path in itertools.product(range(3), repeat=3):
        i, j, k = path
        p = Q[0, 0, i] * (Q[1] @ Q[2])[i, j] * Q[3, j, k]
        share = np.mean((path == states[1:].T).all(1))
        assert abs(share - p) <= 4 * np.sqrt(p * (1 - p) / N), path
    assert not ((states[1] == 2) & (states[3] != 2)).any()  # a mask stays


def test_what_a_run_keeps_compiled_does_not_keep_the_run(tmp_path, small_network):
    """Arrays on a device are given back with the last use of a run, not when Python looks for circles."""
    tiny.write_run(tmp_path / "w", tiny.get_config())
    run = open_run(tmp_path / "w")
    gc.disable()
    try:
        run.sample(jax.random.key(0), 2)
        run.evaluate_on(np.zeros((2, 8, 8, 1), np.int32))
        parts_left = weakref.ref(run.parts)
        del run
        assert parts_left() is None
    finally:
        gc.enable()


def test_known_elements_may_be_passed_by_their_older_name(tmp_path, small_network):
    tiny.write_run(tmp_path / "w", tiny.get_config())
    run = open_run(tmp_path / "w")
    known = np.zeros((8, 8, 1), bool)
    known[:4] = True
    elements = Given(np.full((8, 8, 1), 5, np.int32), known)
    by_name, _ = run.sample(jax.random.key(0), 2, known_elements=elements)
    by_older_name, _ = run.sample(jax.random.key(0), 2, given=elements)
    by_place, _ = run.sample(jax.random.key(0), 2, None, 128, (), lambda done: None, None, elements)
    of_a_pair, _ = run.sample(jax.random.key(0), 2, given=(elements.x0, known))
    np.testing.assert_array_equal(by_name, by_older_name)
    np.testing.assert_array_equal(by_name, of_a_pair)
    np.testing.assert_array_equal(by_name, by_place)
    assert (by_name[:, known] == 5).all()
    assert (by_name[:, ~known] != 5).any()
    with pytest.raises(ValueError, match="given is the old name of known_elements: pass one of them"):
        run.sample(jax.random.key(0), 2, known_elements=elements, given=elements)


@pytest.mark.parametrize("T", [1, 5, 10, 45, 100, 256, 1000, 4000])
def test_the_states_of_the_picture_are_among_those_of_the_gif(T):
    few = evenly_spaced(T, kinds.base.STATES)
    many = evenly_spaced(T, kinds.base.FRAMES)
    assert set(few) <= set(many)
    assert (many[0], many[-1], len(many)) == (0, T, min(T + 1, kinds.base.FRAMES))
