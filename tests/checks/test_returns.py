"""What functions of a user return is checked like an argument, and said in words of the call."""

import collections
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import d3pm_jax as d3pm
from tests.checks import returns, table

PROCESS = table.PROCESSES["uniform"]
X = jnp.array([[0, 1, 2], [2, 1, 0]])
U = table.UNIT
LOGITS = jnp.zeros((2, 3, 4))


def denoise(xt, time):
    return LOGITS


def noise(t):
    return U


def defects(jit, names):
    with jax.debug_key_reuse(False):  # the table has one key
        outcomes = list(returns.calls(PROCESS, jit, names, values=False))
    counts = collections.Counter(kind for kind, _, _ in outcomes)
    assert not [x for x in outcomes if x[0] in returns.DEFECTS]
    return counts


QUICK = {"likelihood.chain_rule", "sampling.chain.run_chain", "processes.knn_graph"}


@pytest.mark.parametrize(("jit", "names"), [(False, QUICK), (True, {"losses.continuous.uniform_draw"})])
def test_types_shapes_and_signatures_are_refused(jit, names):
    """Of a few functions; values need programs. Both come with the whole table."""
    counts = defects(jit, names)
    assert set(counts) == {"clear"}
    assert counts["clear"] > 15


@pytest.mark.slow
def test_the_whole_table_without_the_checks_of_these_tests():
    """As users have it: in a process of its own."""
    run = subprocess.run(
        [sys.executable, "-m", "tests.checks.returns"], capture_output=True, text=True, check=True
    )
    lines = run.stdout.strip().splitlines()
    assert [line.split(":")[0] for line in lines] == ["eager", "jit"], run.stdout  # a defect is one line more
    assert all(line.endswith(", 0 silent, 0 unclear, 0 NaN") for line in lines), run.stdout


@pytest.mark.parametrize(
    ("logits", "refused"),
    [
        (jnp.zeros((2, 3, 5)), r"has shape \(2, 3, 5\), expected \[2, 3, 4\] as in x0 and the process"),
        (jnp.zeros((2, 4, 3)), r"has shape \(2, 4, 3\), expected \[2, 3, 4\] as in x0 and the process"),
        (jnp.zeros((2, 3)), r"has shape \(2, 3\), expected \[2, 3, 4\] as in x0 and the process"),
        (jnp.zeros((2, 3, 4), int), "has dtype int32, expected floats"),
        ((LOGITS, None), "is a tuple, expected an array of floats"),
    ],
)
def test_logits_are_refused_with_their_cure(logits, refused):
    cure = "return a float logit of each category for each element, categories last"
    with pytest.raises((TypeError, ValueError), match=rf"^denoise\(xt, time\) {refused}: {cure}"):
        d3pm.all_t_bound(lambda xt, t: logits, PROCESS, X, noise)


def run(network, noise=noise, record=()):
    """A chain of the network from X."""
    denoiser = d3pm.Denoiser(PROCESS, network)
    return d3pm.sampling.run(denoiser, X, lambda t, stream: noise(t), record=record)


def test_a_function_of_other_arguments_is_told_its_own():
    refused = r"^network is called as network\(xt, time\), but takes \(xt\): make it take these arguments"
    with pytest.raises(TypeError, match=refused):
        run(lambda xt: LOGITS)

    def term(process, logits, x0, xt, t):
        return logits[..., 0]

    refused = r"^term is called as term\(process, logits, x0, xt, t, belief='denoiser'\), but takes "
    with pytest.raises(TypeError, match=refused):
        d3pm.all_t_bound(denoise, PROCESS, X, noise, term, "denoiser")


def test_an_error_within_a_function_stays_what_it_is():
    def denoise(xt, time):
        raise TypeError("of its own")

    with pytest.raises(TypeError, match=r"^of its own"):
        run(denoise)


def test_noise_out_of_range_marks_its_examples_at_its_step():
    """Where a loop makes it; what is an array already is refused."""

    def noise(t):
        return U.at[1, 2].set(jnp.where(t == 2, 1.0, 0.5))

    bound = d3pm.all_t_bound(denoise, PROCESS, X, noise)
    np.testing.assert_array_equal(np.isnan(bound.steps), np.arange(1, 6)[:, None] == [[0, 2]])
    chain = run(denoise, noise, record=range(6))
    assert chain.failed_at == 2
    np.testing.assert_array_equal(chain.states[1] == -1, [[False] * 3, [False, False, True]])
    with pytest.raises(ValueError, match=r"^noise\(t\) contains 1\.5, outside \[0, 1\): noise is uniform"):
        d3pm.all_t_bound(denoise, PROCESS, X, lambda t: np.full((2, 3), 1.5))


def test_an_infinite_logit_is_marked_as_nan_is():
    logits = LOGITS.at[0, 1, 3].set(jnp.inf)
    bound = d3pm.all_t_bound(lambda xt, t: logits, PROCESS, X, noise)
    np.testing.assert_array_equal(np.isnan(bound.steps), [[True, False]] * 5)
    chain = run(lambda xt, t: logits)
    assert chain.failed_at == 5


def test_x0_of_the_chain_rule_is_below_the_K_of_its_network():
    refused = (
        r"^x0 contains 4, outside 0\.\.3: fill_in\(xt\) has K = 4 categories; give it more or fix the data"
    )
    wrong = X.at[0, 1].set(4)
    with pytest.raises(ValueError, match=refused):
        d3pm.chain_rule(lambda xt: LOGITS, wrong, U, 3)
    nats = jax.jit(lambda x: d3pm.chain_rule(lambda xt: LOGITS, x, U, 3))(wrong)
    np.testing.assert_array_equal(np.isnan(nats), [[False, True, False], [False] * 3])
    with pytest.raises(ValueError, match=r"x0 contains 4294967296, outside 0\.\.3"):
        d3pm.chain_rule(lambda xt: LOGITS, np.full((2, 3), 2**32), U, 3)
