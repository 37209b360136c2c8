"""Edits of a run, and known elements of each sample: rows by numbers of samples, costs, what is refused."""

import jax
import jaxtyping
import numpy as np
import pytest

from d3pm_jax.errors import UserError
from d3pm_jax.runs import Draw
from d3pm_jax.runs.run import open_run
from d3pm_jax.sampling import named
from tests import tiny

SHAPE = (8, 8, 1)
X0 = np.random.default_rng(0).integers(0, 17, (3, *SHAPE))
KNOWN = np.random.default_rng(1).random((2, *SHAPE)) < 0.5
KEY = jax.random.key(0)


@pytest.fixture(scope="module")
def run(tmp_path_factory, small_network):
    folder = tmp_path_factory.mktemp("edits") / "w"
    tiny.write_run(folder, tiny.get_config())
    return open_run(folder)


def draw(run, n, batch_size=128, **request):
    return run.sample(KEY, n, Draw(**request), batch_size=batch_size)


def edit(run, x0, strength, n=1, **request):
    return draw(run, n, start=(x0, strength), **request)


def test_known_elements_are_rows_by_the_number_of_the_sample(run):
    together = draw(run, 7, known=(X0, KNOWN), batch_size=8)
    in_parts = draw(run, 7, known=(X0, KNOWN), batch_size=2)
    np.testing.assert_array_equal(together.x0, in_parts.x0)
    for i, x in enumerate(together.x0):
        np.testing.assert_array_equal(x[KNOWN[i % 2]], X0[i % 3][KNOWN[i % 2]])


@pytest.mark.slow
def test_there_may_be_a_mask_for_all_or_an_example_for_all(run):
    of_all = draw(run, 4, known=(X0, KNOWN[0]), batch_size=2).x0
    np.testing.assert_array_equal(of_all[:, KNOWN[0]], X0[[0, 1, 2, 0]][:, KNOWN[0]])
    of_one = draw(run, 4, known=(X0[0], KNOWN), batch_size=2).x0
    np.testing.assert_array_equal(of_one[:2][KNOWN], np.broadcast_to(X0[0], (2, *SHAPE))[KNOWN])


def test_an_edit_goes_as_far_as_its_strength_with_what_is_known(run):
    """T = 10: strength .25 is 2 steps of the chain, of three passes each."""
    edits = edit(run, X0, 0.25, 3, known=(X0, KNOWN[0]), sampler=named.repaint(3), record=(10,))
    np.testing.assert_array_equal(edits.x0[:, KNOWN[0]], X0[:, KNOWN[0]])
    np.testing.assert_array_equal(edits.calls, 6)
    share = np.mean(edits.states[0][:, ~KNOWN[0]] == X0[:, ~KNOWN[0]])
    assert 0.3 < share < 0.9


def test_known_elements_of_an_edit_need_not_be_those_of_its_example(run):
    other = (X0 + 1) % 17
    edits = edit(run, X0, 0.25, 4, known=(other[0], KNOWN), batch_size=3).x0
    for i, x in enumerate(edits):
        np.testing.assert_array_equal(x[KNOWN[i % 2]], other[0][KNOWN[i % 2]])


@pytest.mark.slow
def test_edits_of_any_number_are_rows_of_the_examples(run):
    edits = edit(run, X0, 0.25, 3, record=(2,))
    assert edits.x0.shape == (3, *SHAPE)
    np.testing.assert_array_equal(edits.calls, 2)
    assert np.mean(edits.states[0] == X0) > 0.3
    full = edit(run, X0, 1.0, 3, record=(10,))
    np.testing.assert_array_equal(full.calls, 10)
    assert np.mean(full.states[0] == X0) < 0.2

    more = edit(run, X0, 0.25, 5, batch_size=2)
    np.testing.assert_array_equal(more.x0[:3], edits.x0)
    of_one = edit(run, X0[0], 0.25, 5, batch_size=2)
    np.testing.assert_array_equal(of_one.x0[[0, 3]], more.x0[[0, 3]])


def test_what_cannot_be_edited_gets_one_line(run, monkeypatch):
    # As users call it: without the checks of types that tests have.
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)
    above = np.where(np.arange(8)[:, None, None] < 4, 17, X0)
    calls = {
        "strength = 0: it must be a number above 0, and at most 1": lambda: edit(run, X0, 0),
        "strength = 1.5: it must be": lambda: edit(run, X0, 1.5),
        "strength = nan: it must be": lambda: edit(run, X0, float("nan")),
        "strength = 'half': it must be": lambda: edit(run, X0, "half"),
        "strength = True: it must be": lambda: edit(run, X0, True),
        r"shapes? \[3, 8, 8\].*: pass \[8, 8, 1\], those": lambda: edit(run, X0[..., 0], 0.5),
        r"or \[N, 8, 8, 1\], of which sample i has row i": lambda: edit(run, X0[:0], 0.5, 2),
        r"shapes \[3, 8, 8, 1\] and \[3, 3\]: pass": lambda: edit(
            run, X0, 0.5, known=(X0, np.ones((3, 3), bool))
        ),
        # All of an example counts where it is edited, and elsewhere what is known.
        "hold 0..17: categories are 0..16": lambda: edit(run, above, 0.5),
        "hold 17..17: categories are 0..16": lambda: draw(run, 2, known=(above, above == 17)),
        "float64.*: pass integers": lambda: edit(run, X0 * 0.5, 0.5),
        "x0 of start is a list: pass integers": lambda: edit(run, [[1], [1, 2]], 0.5),
        "start is of dtype int64, shape .*: pass a pair": lambda: draw(run, 2, start=X0),
        "known is of dtype int64, shape .*: pass a pair": lambda: draw(run, 2, known=X0),
        "a block needs an absorbing process": lambda: edit(run, X0, 0.5, sampler="blocks"),
        "n = 0: it must be a whole number in 1..": lambda: edit(run, X0, 0.5, 0),
    }
    for message, call in calls.items():
        with pytest.raises(UserError, match=message) as raised:
            call()
        assert "\n" not in str(raised.value)
    draw(run, 2, known=(above, above < 17))
