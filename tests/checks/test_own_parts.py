"""What parts of one's own do wrong is told from one call of them, before or at the first step."""

import subprocess
import sys
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from d3pm_jax import config as configs
from d3pm_jax.errors import UserError
from d3pm_jax.program.loop import loop
from d3pm_jax.program.parts.network import _sees
from d3pm_jax.training.diffusion import draw_noise
from d3pm_jax.training.state import init_state
from d3pm_jax.training.step import make_step
from tests.checks import own_parts


@pytest.mark.slow
def test_the_whole_table_without_the_checks_of_these_tests():
    """As users have it: in a process of its own."""
    run = subprocess.run(
        [sys.executable, "-m", "tests.checks.own_parts"], capture_output=True, text=True, check=True
    )
    (line,) = run.stdout.strip().splitlines()  # a defect is one line more
    assert line.endswith(", 0 silent, 0 unclear, 0 NaN"), run.stdout


def test_a_rate_that_is_no_rate_is_refused_before_a_training():
    refused = 0
    for fault in own_parts.rates():
        optimizer = fault.make()
        if fault.is_legal:
            optimizer.check_steps(3)
            continue
        with pytest.raises((UserError, ValueError), match=fault.word):
            optimizer.check_steps(3)
        refused += 1
    assert refused > 20


X = jnp.zeros((2, 5), jnp.int32)


def test_an_update_keeps_the_shapes_of_parameters_and_state():
    process = own_parts.make_process()

    def predict(params, xt, time, key=None):
        return jnp.broadcast_to(params, (*xt.shape, own_parts.K))

    refused = 0
    for fault in own_parts.optimizers():
        if not fault.case.startswith(("update returns", "a state", "a rule")):
            continue
        rule = fault.make().build()
        step = make_step(configs.HybridLoss(), configs.LowDiscrepancy(), rule, predict, 0.9)
        params: Any = jnp.zeros(own_parts.K)
        state = init_state(params, rule)

        def take(state, step=step):
            return step(state, process, {"x": X}, jax.random.key(0))

        if fault.is_legal:
            jax.eval_shape(take, state)
        else:
            with pytest.raises(UserError, match=r"returns .*: return updates and a state"):
                jax.eval_shape(take, state)
            refused += 1
    assert refused == 16
    np.testing.assert_array_equal(optax.apply_updates(X, X), X)


def test_what_is_no_probability_of_a_time_is_marked():
    p = jnp.array([0.25, 1.0, 1.5, 0.0, -0.25, jnp.nan, jnp.inf])

    def draw(self, key, history, B, T):
        return jnp.ones(B, jnp.float32 if self.real else jnp.int32), p

    is_right = {False: [True, True] + [False] * 5, True: [True, True, True] + [False] * 4}  # a density
    for real, expected in is_right.items():
        times = own_parts.changed(own_parts.OwnTimes, draw=draw, real=real)
        noise = draw_noise(times, jax.random.key(0), 0, None, (len(p), 3), 4)
        np.testing.assert_array_equal(noise.p_t, np.where(expected, p, np.nan))


def test_what_a_program_computes_from_an_input_depends_on_it():
    """Also through a loop and a branch; a shape says nothing, nor does what is thrown away."""

    def loop(a, x):
        return jax.lax.fori_loop(0, 3, lambda i, y: y + x, a)

    cases = {
        True: (
            lambda a, x: (a + x, a),
            lambda a, x: (jnp.sin(jnp.cumsum(x)) * a, a),
            lambda a, x: (loop(a, x), a),
            lambda a, x: (jax.lax.cond(x[0] > 0, lambda: a, lambda: -a), a),
            lambda a, x: (x, a),
        ),
        False: (
            lambda a, x: (a + len(x), a + x),
            lambda a, x: (a * 0 + jnp.zeros_like(x), x),
            lambda a, x: (jnp.ones(3), x),
        ),
    }
    for sees, functions in cases.items():
        for f in functions:
            program = jax.make_jaxpr(f)(jnp.ones(3), jnp.ones(3)).jaxpr
            assert _sees(program, 1, 1) == sees


def test_a_network_that_does_not_look_at_x_is_said(capsys):
    for fault in own_parts.networks():
        if fault.case.startswith(("does not look", "looks")):
            loop.build_run(own_parts.get_config(model=fault.make()))
            said = capsys.readouterr().err
            assert ("warning: the network of OwnOwnModel does not look at x_t" in said) != fault.is_legal
