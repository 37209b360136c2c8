"""Every edge of the kernels holds: what they are given is checked, or what they give is marked."""

import collections
import itertools
import subprocess
import sys

import jax
import jax.numpy as jnp
import jaxtyping
import numpy as np
import pytest
from jaxtyping import Array, Int

import d3pm_jax as d3pm
from d3pm_jax import config as configs
from d3pm_jax.checks import NOISE, declared
from d3pm_jax.processes import Process
from tests.checks import table

PROCESS = table.PROCESSES["uniform"]
X = jnp.array([[0, 1, 2], [2, 1, 0]])
T = jnp.array([2, 5])
U = table.UNIT
LOGITS = jnp.zeros((2, 3, 4))


def defects(process, jit, wanted):
    with jax.debug_key_reuse(False):  # the table has one key
        outcomes = list(table.calls(process, jit, wanted))
    counts = collections.Counter(kind for kind, _, _ in outcomes)
    assert not [x for x in outcomes if x[0] in table.DEFECTS]
    return counts


def is_refused(name, role, bad):
    """What needs nothing compiled: it should not come so far."""
    shapes = "axis" in bad.case or "rank" in bad.case
    values = bad.element is not None and (role == "floats" or name == "timesteps.importance")
    of_lists = name == "processes.dense" and bad.case == "ragged"  # which the checks of these tests refuse
    return not (shapes or values or of_lists or bad.case == "None")


@pytest.mark.filterwarnings("ignore:x_T still depends")
def test_every_argument_of_every_function_is_checked():
    """Each in every third way: the whole table below has each in all of them."""
    numbers = collections.defaultdict(
        itertools.count
    )  # of each function, so that another one changes nothing

    def is_third(name, role, bad):
        return is_refused(name, role, bad) and next(numbers[name, role]) % 3 == 0

    counts = defects(PROCESS, False, is_third)
    assert counts["clear"] > 1000


QUICK = {"posteriors.p_sample", "losses.smoothed_cross_entropy", "compat.prior_bits"}


def is_out_of_range(name, role, bad):
    return bad.element is not None and role != "floats"


def test_what_only_a_run_can_see_is_marked():
    counts = defects(PROCESS, True, lambda *call: call[0] in QUICK and is_out_of_range(*call))
    assert set(counts) == {"marked"}
    assert counts["marked"] > 20


@pytest.mark.slow
@pytest.mark.parametrize("family", ["dense", "masked"])
def test_of_every_family_what_only_a_run_can_see_is_marked(family):
    """By functions of a process. Others know no family, and all of "uniform" is in the whole table.

    So are the methods of every other process of its class, "absorbing" and "marginal" among them, and what
    loops over functions of a step.
    """
    process = table.PROCESSES[family]
    loops = ("likelihood.", "sampling.", "enumeration.")
    names = {
        call.name for call in table.public(process) if call.of_process and not call.name.startswith(loops)
    }
    counts = defects(process, True, lambda *call: call[0] in names and is_out_of_range(*call))
    assert counts["marked"] > 200


@pytest.mark.slow
def test_the_whole_table_without_the_checks_of_these_tests():
    """As users have it: in a process of its own."""
    run = subprocess.run(
        [sys.executable, "-m", "tests.checks.table"], capture_output=True, text=True, check=True
    )
    lines = run.stdout.strip().splitlines()
    titles = [line.split(":")[0] for line in lines]  # a defect is one line more
    assert titles == ["eager", "jit", "constructors", "networks, eager", "networks, jit"], run.stdout
    ends = ("0 unclear, 0 silent, 0 spread", "0 unclear, 0 silent, 0 NaN")
    assert all(line.endswith(tuple(f", {end}" for end in ends)) for line in lines), run.stdout


def test_a_kernel_that_was_called_before_is_checked_again():
    for _ in range(2):
        d3pm.q_sample(PROCESS, X, T, U)
    for x, t, u, said in (
        (X + 2, T, U, "x0"),
        (X, T + 1, U, "t"),
        (X, T, U + 1, "u"),
        (X, T, U * jnp.nan, "u"),
    ):
        with pytest.raises(ValueError, match=f"^{said} contains"):
            d3pm.q_sample(PROCESS, x, t, u)


def test_methods_of_a_process_of_ones_own_are_checked():
    class Half(Process):
        K = 2
        T = 3

        def log_q_probs(self, x0, t):
            return jnp.full((*x0.shape, 2), jnp.log(0.5))

        def log_q_back(self, xt, t):
            return self.log_q_probs(xt, t)

        def log_push(self, log_p, t):
            return jnp.full(log_p.shape, jnp.log(0.5))

        def log_prior(self):
            return jnp.log(jnp.full(2, 0.5))

    class Mixin:
        def draw_q(self, x0, t, u, u_low=None):
            return np.zeros(x0.shape, np.uint8)

    class Mixed(Mixin, Half):
        pass

    with pytest.raises(ValueError, match=r"x0 contains 2, outside 0\.\.1: the process has K = 2"):
        Half().log_q_probs(X, T)
    with pytest.raises(ValueError, match="x0 contains 2"):
        Mixed().draw_q(X, T - 2, U)
    drawn = jax.jit(Mixed().draw_q)(X, T - 2, U)
    np.testing.assert_array_equal(drawn, np.where(X < 2, 0, -1))
    with pytest.raises(TypeError, match="process is the class Half itself: pass an instance of it"):
        d3pm.q_sample(Half, X, T, U)
    assert np.isnan(jax.jit(Half().log_q_probs)(X, jnp.array([1, 2])))[0, 2].all()


def test_a_function_declares_what_it_takes():
    with pytest.raises(AssertionError, match="has no"):
        declared(missing=NOISE)(lambda x: x)


def test_a_prefix_is_declared_behind_the_shape_it_is_a_prefix_of():
    def f(t: Int[Array, "..."], x0: Int[Array, "*S"]):
        return x0

    with pytest.raises(AssertionError, match="f: t has to come after x0"):
        declared()(f)


def test_what_is_nearly_an_argument_is_told_how_to_become_one(monkeypatch):
    # A class is made by users without the checks of types that tests have.
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)
    process = d3pm.uniform(d3pm.cosine(5), 4)
    x0 = jnp.zeros((2, 3), jnp.int32)
    u = jnp.zeros((2, 3))

    class OfAnotherFramework:
        dtype = "torch.int64"
        shape = (2, 3)

        def __array__(self):
            return np.zeros((2, 3), int)

    class Trained:
        predict = None

    with pytest.raises(TypeError, match=r"x0 is of dtype torch\.int64.*: pass numpy\.asarray\(x\) of it"):
        d3pm.q_sample(process, OfAnotherFramework(), 1, u)
    with pytest.raises(TypeError, match=r"key is of dtype torch\.int64.*: pass jax\.random\.key\(seed\)"):
        d3pm.sample(OfAnotherFramework(), d3pm.Denoiser(process, lambda xt, t: xt), (2, 3))
    dtype_of_torch = type("dtype", (), {"__module__": "torch"})()
    for no_array, words in ((dtype_of_torch, "a dtype"), (np.float32, "a type")):
        with pytest.raises(TypeError, match=f"beta is {words}, expected an array of real numbers"):
            d3pm.uniform(no_array, 3)
    with pytest.raises(TypeError, match=r"process is a Uniform, expected a Process: pass what its build\(\)"):
        d3pm.q_sample(configs.Uniform(4, 5, configs.Cosine()), x0, 1, u)
    with pytest.raises(TypeError, match="network is a Trained, expected a function: pass its predict"):
        d3pm.Denoiser(process, Trained())
    with pytest.raises(ValueError, match="time = 'minutes': it must be 'steps' or 'unit'"):
        d3pm.Denoiser(process, lambda xt, t: xt, time="minutes")
    with pytest.raises(ValueError, match=r"beta must have shape \[T\].*: pass a schedule, as cosine\(100\)"):
        d3pm.uniform(5, 4)
