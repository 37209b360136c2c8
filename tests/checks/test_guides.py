"""Guidance, flows and heads refuse or mark what they cannot take, and take floats of few digits."""

import collections
import subprocess
import sys

import jax
import jax.numpy as jnp
import jaxtyping
import numpy as np
import pytest

from d3pm_jax import flows, heads, sampling
from d3pm_jax.sampling import guidance
from tests.checks import guides
from tests.checks.constructors import DEFECTS


def defects(jit, wanted):
    with jax.debug_key_reuse(False):  # the table has one key
        outcomes = list(guides.calls(jit, wanted))
    # What the checks of types of these tests refuse before us is left to the whole table.
    wrong = [x for x in outcomes if x[0] in DEFECTS and not x[2].startswith("TypeCheckError")]
    assert not wrong, "\n".join(map(str, wrong))
    return collections.Counter(kind for kind, _, _ in outcomes)


def test_what_needs_nothing_compiled_is_refused():
    def is_refused_early(call):
        return not call.is_legal and call.name.startswith(("per_example(", "heads.", "invert_linear, zeros"))

    assert defects(False, is_refused_early)["clear"] > 60


@pytest.mark.slow
def test_the_whole_table_without_the_checks_of_these_tests():
    """As users have it: in a process of its own."""
    run = subprocess.run(
        [sys.executable, "-m", "tests.checks.guides"], capture_output=True, text=True, check=True
    )
    lines = run.stdout.strip().splitlines()
    assert [line.split(":")[0] for line in lines] == ["eager", "jit"], run.stdout  # a defect is one line more
    assert all(line.endswith(", 0 unclear, 0 silent, 0 NaN") for line in lines), run.stdout


def test_what_is_no_probability_marks_its_example_alone():
    """By the gradient, and by every change, whose rows i, i + B, .. are of example i."""
    x = jnp.array([[0, 1, 2], [2, 1, 0]])

    @jax.jit
    def changes(value):
        def log_prob(one_hots, time):
            is_first = jnp.arange(len(one_hots)) % 2 == 0
            return jnp.where(is_first, value, -1.0) * one_hots.mean((1, 2)) * guides.K

        time = jnp.array([1, 2])
        first = guidance.first_order_changes(log_prob, x, time, guides.K)
        return first, guidance.all_changes(log_prob, x, time, guides.K)

    for value, is_wrong in ((1.0, True), (jnp.nan, True), (-2.0, False)):
        for result in changes(value):
            assert np.isnan(result[0]).all() == is_wrong
            assert np.isfinite(result[1]).all()


def test_a_gamma_that_a_program_is_given_guides_as_one_that_is_known(monkeypatch):
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)

    def draw(gamma):
        return guides.draw_without_classifier(**guides.FREE | {"gamma": gamma})

    with jax.debug_key_reuse(False):
        program = jax.jit(draw)
        for gamma in (2.0, 1.0):
            np.testing.assert_array_equal(program(gamma), draw(gamma))
        np.testing.assert_array_equal(program(jnp.nan), -1)


def test_noise_of_stream_0_is_the_same_however_0_is_written():
    noise = sampling.per_example(jax.random.key(0), jnp.arange(2), (3,))
    for zero in (np.int64(0), jnp.int32(0)):
        np.testing.assert_array_equal(noise(1, zero), noise(1))
    np.testing.assert_array_equal(noise(jnp.int32(7), 3), noise(7, 3))


@pytest.mark.usefixtures("x64")
def test_a_matrix_is_inverted_whatever_its_scale():
    """To float64, from entries of bfloat16 too; a singular one is NaN under jit."""
    rng = np.random.default_rng(0)
    matrix = rng.normal(size=(3, 3)) * [[1e-9], [1.0], [1e9]]
    v = rng.normal(size=(2, 3))
    z, log_det = flows.linear(jnp.asarray(v), jnp.asarray(matrix))
    np.testing.assert_allclose(flows.invert_linear(z, jnp.asarray(matrix)), v, rtol=1e-9)
    np.testing.assert_allclose(log_det, np.log(abs(np.linalg.det(matrix))), rtol=1e-9)
    narrow = jnp.asarray(rng.normal(size=(3, 3)), jnp.bfloat16)
    z, log_det = flows.linear(jnp.asarray(v, jnp.bfloat16), narrow)
    wide = np.asarray(narrow, np.float64)
    np.testing.assert_allclose(z, np.asarray(jnp.asarray(v, jnp.bfloat16), np.float64) @ wide.T, rtol=1e-5)
    np.testing.assert_allclose(log_det, np.linalg.slogdet(wide)[1], rtol=1e-5)
    singular = jnp.asarray(matrix[[0, 1, 1]])
    with pytest.raises(ValueError, match="matrix is singular"):
        flows.invert_linear(z, singular)
    assert np.isnan(jax.jit(flows.invert_linear)(z, singular)).all()


def test_a_head_marks_the_element_whose_number_is_none():
    loc = jnp.array([0.1, jnp.inf, 0.2, 0.3])
    log_scale = jnp.array([1.0, 1.0, jnp.inf, 2.0])
    logits = jax.jit(lambda loc, log_scale: heads.logistic(loc, log_scale, 5))(loc, log_scale)
    np.testing.assert_array_equal(np.isnan(logits).all(-1), [False, True, True, False])
    with pytest.raises(ValueError, match="output contains inf: it must be finite"):
        heads.bounded_logistic(jnp.full((2, 2), jnp.inf), 5)
