"""Every edge of the kernels holds: what they are given is checked, or what they give is marked."""

import collections
import dataclasses
import functools
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import d3pm_jax as d3pm
from d3pm_jax.checks import NOISE, bare, declared
from d3pm_jax.numerics import double_float
from d3pm_jax.processes import Process, tables
from tests.checks import table

PROCESS = table.PROCESSES["uniform"]
X, T, U = jnp.array([[0, 1, 2], [2, 1, 0]]), jnp.array([2, 5]), table.UNIT
LOGITS = jnp.zeros((2, 3, 4))


def defects(process, jit, wanted):
    with jax.debug_key_reuse(False):  # the table has one key
        found = list(table.calls(process, jit, wanted))
    counts = collections.Counter(kind for kind, _, _ in found)
    assert not [x for x in found if x[0] in table.DEFECTS]
    return counts


def is_refused(name, role, bad):
    """What needs nothing compiled: it should not come so far."""
    shapes = "axis" in bad.case or "rank" in bad.case
    values = bad.element is not None and (role == "floats" or name == "timesteps.importance")
    of_lists = name == "processes.dense" and bad.case == "ragged"  # which the checks of these tests refuse
    return not (shapes or values or of_lists or bad.case == "None")


@pytest.mark.filterwarnings("ignore:x_T still depends")
def test_every_argument_of_every_function_is_checked():
    counts = defects(PROCESS, False, is_refused)
    assert counts["clear"] > 3000


QUICK = {"posteriors.p_sample", "losses.smoothed_cross_entropy", "compat.prior_bits"}


def is_out_of_range(name, role, bad):
    return bad.element is not None and role != "floats"


def test_what_only_a_run_can_see_is_marked():
    counts = defects(PROCESS, True, lambda *call: call[0] in QUICK and is_out_of_range(*call))
    assert set(counts) == {"marked"}
    assert counts["marked"] > 20


@pytest.mark.slow
@pytest.mark.parametrize("process", table.PROCESSES.values(), ids=list(table.PROCESSES))
def test_of_every_family_what_only_a_run_can_see_is_marked(process):
    counts = defects(process, True, is_out_of_range)
    assert counts["marked"] > 200


@pytest.mark.slow
@pytest.mark.parametrize("options", [[], ["--jit"]], ids=["eager", "jit"])
def test_the_whole_table_without_the_checks_of_these_tests(options):
    """As users have it: in a process of its own."""
    run = subprocess.run(
        [sys.executable, "-m", "tests.checks.table", *options], capture_output=True, text=True, check=True
    )
    assert run.stdout.strip().endswith("0 unclear, 0 silent, 0 spread"), run.stdout


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


def test_a_zero_with_a_sign_is_noise_like_any_other():
    u = U.at[0, 0].set(-0.0)
    np.testing.assert_array_equal(
        d3pm.q_sample(PROCESS, X, T, u), d3pm.q_sample(PROCESS, X, T, u.at[0, 0].set(0.0))
    )


def test_bare_kernels_add_nothing_to_a_program():
    def alone(process, x0, t, u):
        noise = double_float.noise_from_words(u, None)
        mix = tables.gather_steps(tuple(process.beta_bar), t, x0.shape)
        k = process._move_uniform(x0, mix, noise)
        drawn = jnp.where(k == process.K, x0, k)
        return jnp.where(jnp.isnan(mix[0]), -1, drawn)

    bare_text, checked_text, alone_text = (
        jax.jit(lambda *args, f=f: f(*args)).lower(PROCESS, X, T, U).as_text()
        for f in (bare(d3pm.q_sample), d3pm.q_sample, alone)
    )
    assert bare_text == alone_text
    assert bare_text != checked_text


@pytest.mark.parametrize("wrapped", [lambda f: f, functools.partial])
def test_a_callback_of_ones_own_is_called_from_outside(wrapped):
    """Kernels within it are checked; those within a kernel are not, again."""

    @wrapped
    def denoise(xt, t):
        return d3pm.residual(jnp.zeros((2, 3, 4)), xt[0])

    with pytest.raises(ValueError, match=r"xt has shape \(3,\), expected \[2, 3\]"):
        d3pm.ancestral(denoise, PROCESS, X, lambda t: U)


@pytest.mark.parametrize("wrapper", [functools.wraps(d3pm.p_logits), jax.jit], ids=["wraps", "jit"])
def test_a_wrapper_of_a_kernel_is_another_function(wrapper):
    """It has the attributes of the kernel, which are not its own."""

    @wrapper
    def always_2(process, logits, xt, t):
        return (
            d3pm.p_logits(process, logits, xt, t) * 0
            + jnp.where(jnp.arange(4) == 2, 0.0, -jnp.inf)[None, None]
        )

    def denoise(xt, t):
        return LOGITS

    chain = d3pm.ancestral(denoise, PROCESS, X, lambda t: U, reverse=always_2)
    np.testing.assert_array_equal(chain.x0, 2)
    assert bare(always_2) is always_2
    assert bare(jax.jit(d3pm.p_logits)) is not bare(d3pm.p_logits)


def test_what_was_compiled_inside_of_a_kernel_is_not_used_outside():
    draw = jax.jit(d3pm.q_sample)

    class Own(type(PROCESS)):
        def draw_q(self, x0, t, u, u_low=None):
            return draw(PROCESS, x0, t, u)

    own = Own(**{f.name: getattr(PROCESS, f.name) for f in dataclasses.fields(PROCESS)})
    own.draw_q(X, T, U)
    np.testing.assert_array_equal(draw(PROCESS, X, T, U - 1), -1)


def test_marks_go_by_the_names_of_axes_not_by_their_sizes():
    """As many examples as steps, as many as categories: what is marked is what belongs to it."""
    p = jnp.array([-0.5, 0.7, 0.8])
    assert (jax.jit(d3pm.timesteps.importance)(jnp.full(3, 0.5), p)[0] == -1).all()
    table = jnp.ones((3, 3)).at[0, 1].set(-1.0)
    product = jax.jit(d3pm.log_matmul)(jnp.zeros((3, 3)), table)
    np.testing.assert_array_equal(np.isnan(product), [[False, True, False]] * 3)
    history = d3pm.timesteps.empty_history(3)
    after = jax.jit(d3pm.timesteps.update)(history, jnp.array([9, 1, 2]), jnp.ones(3))
    assert np.isnan(after.mean_square).all()
    process = d3pm.uniform(d3pm.reciprocal(3), 3)
    x = jnp.zeros((3, 3), jnp.int32).at[0, 2].set(3)

    def noise(t):
        return jnp.full((3, 3), 0.5)

    def denoise(xt, t):
        return jnp.zeros((3, 3, 3))

    bound = jax.jit(lambda x: d3pm.all_t_bound(denoise, process, x, noise))(x)
    np.testing.assert_array_equal(np.isnan(bound.steps), [[True, False, False]] * 3)
    chain = jax.jit(
        lambda x: d3pm.ancestral(lambda xt, t: jnp.zeros((3, 3, 3)), process, x, noise, (0, 1, 3))
    )(x)
    np.testing.assert_array_equal((chain.states == -1).any((0, 2)), [True, False, False])


def test_the_gradient_of_what_is_out_of_range_is_marked_too():
    grad = jax.jit(jax.grad(lambda logits, x: d3pm.cross_entropy(PROCESS, logits, x).sum()))
    marked = np.isnan(grad(LOGITS, X.at[0, 1].set(7)))
    np.testing.assert_array_equal(marked.all(-1), [[False, True, False], [False] * 3])
    np.testing.assert_array_equal(marked.any(-1), marked.all(-1))


def test_integers_that_int32_cannot_hold_are_refused():
    for call in (
        lambda: d3pm.sampling.per_example(jax.random.key(0), np.array([2**32 + 5]), (2,)),
        lambda: d3pm.losses.continuous.absorbing_draw(
            d3pm.schedules.continuous.linear, np.array([2**32 + 1]), jnp.array(0.5), jnp.array([0.5]), 3
        ),
        lambda: d3pm.sampling.chain.run_chain(lambda x, t: x, 3, np.array([2**40])),
    ):
        with pytest.raises(ValueError, match=r"contains \d+, outside .*int32"):
            call()


def test_noise_of_float64_that_rounds_up_to_1_is_the_last_float_below_it():
    u = np.full((2, 3), 1 - 2**-30)
    last = np.full((2, 3), np.nextafter(np.float32(1), np.float32(0)))
    np.testing.assert_array_equal(d3pm.q_sample(PROCESS, X, T, u), d3pm.q_sample(PROCESS, X, T, last))
    with pytest.raises(ValueError, match=r"u contains 1\.0, outside"):
        d3pm.q_sample(PROCESS, X, T, u.astype(np.float32))


def test_methods_of_a_process_of_ones_own_are_checked():
    class Half(Process):
        K, T = 2, 3

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
    with pytest.raises(TypeError, match="process is a "):
        d3pm.q_sample(Half, X, T, U)
    assert np.isnan(jax.jit(Half().log_q_probs)(X, jnp.array([1, 2])))[0, 2].all()


def test_a_function_declares_what_it_takes():
    with pytest.raises(AssertionError, match="has no"):
        declared(missing=NOISE)(lambda x: x)
