"""Forward chains of pictures: their joint law; and that what is compiled for a run does not keep it."""

import gc
import itertools
import weakref

import jax
import jax.numpy as jnp
import numpy as np

import d3pm_jax as d3pm
from d3pm_jax.measure.samples import draw_forward
from d3pm_jax.runs.run import open_run
from tests import tiny
from tests.families import BETA


def test_forward_chains_have_the_law_of_one_step_after_another():
    """Every (x_1, x_3, x_4) as often as the matrices say, an x_2 that is not recorded between."""
    N, process = 40_000, d3pm.masked(d3pm.random_walk(BETA, np.array([[0, 1], [1, 0]])), BETA / 2)
    Q = np.asarray(process.Q(jnp.arange(1, 5)), np.float64)
    found = draw_forward(jax.random.key(0), process, np.zeros((N, 1), np.int32), [0, 1, 3, 4])[..., 0]
    assert (found[0] == 0).all()
    for path in itertools.product(range(3), repeat=3):
        i, j, k = path
        p = Q[0, 0, i] * (Q[1] @ Q[2])[i, j] * Q[3, j, k]
        share = np.mean((path == found[1:].T).all(1))
        assert abs(share - p) <= 4 * np.sqrt(p * (1 - p) / N), path
    assert not ((found[1] == 2) & (found[3] != 2)).any()  # a mask stays


def test_what_a_run_keeps_compiled_does_not_keep_the_run(tmp_path, small_network):
    """Arrays on a device are given back with the last use of a run, not when Python looks for circles."""
    tiny.write_run(tmp_path / "w", tiny.get_config())
    run = open_run(tmp_path / "w")
    gc.disable()
    try:
        run.sample(jax.random.key(0), 2)
        run.evaluate_on(np.zeros((2, 8, 8, 1), np.int32))
        kept = weakref.ref(run.parts)
        del run
        assert kept() is None
    finally:
        gc.enable()
