"""Families at real sizes: odd inputs, steps outside of the chain, memory."""

import subprocess
import sys

import jax
import jax.extend.core
import jax.numpy as jnp
import numpy as np
import pytest

import d3pm_jax as d3pm
from d3pm_jax import beliefs
from tests.families import FAMILIES

BELIEFS = ("d3pm", "leave_one_out", "denoiser")


def i32(*x):
    return jnp.asarray(x, jnp.int32)


def test_bad_input_names_the_value_and_the_cure(process):
    x = i32(0, 1)
    logits = jnp.zeros((2, 7))
    with pytest.raises(TypeError, match="t has dtype float32, expected integers"):
        d3pm.p_logits(process, logits, x, jnp.array([1.0, 2.0]))
    with pytest.raises(ValueError, match=r"t contains 0, outside 1..20"):
        d3pm.p_logits(process, logits, x, i32(0, 1))
    with pytest.raises(ValueError, match=r"t contains 21, outside 0..20"):
        d3pm.q_sample(process, x, i32(21, 1), jnp.zeros(2))
    with pytest.raises(ValueError, match=r"x0 contains 7, outside 0..6: the process has K = 7"):
        d3pm.q_sample(process, i32(7, 1), i32(1, 1), jnp.zeros(2))
    with pytest.raises(ValueError, match=r"xt contains -1, outside"):
        d3pm.q_posterior(process, x, i32(-1, 1), i32(1, 1))
    with pytest.raises(
        ValueError, match=r"logits_x0 has shape \(2, 5\), expected \[\*S, 7\] as in the process"
    ):
        d3pm.posterior_kl(process, jnp.zeros((2, 5)), x, x, i32(1, 1))


@pytest.mark.parametrize("step", [-1, 0, 21])
def test_a_wrong_step_under_jit_is_nan_not_another_step(process, step):
    x = i32(0, 1)
    t = i32(step, step)
    u = jnp.array([0.3, 0.6])
    assert np.all(np.isnan(jax.jit(d3pm.posterior_kl)(process, jnp.zeros((2, 7)), x, x, t)))
    if step != 0:  # x_0 itself is a fine draw of x_0
        assert np.all(np.isnan(jax.jit(process.log_q_probs)(x, t)))
        np.testing.assert_array_equal(jax.jit(d3pm.q_sample)(process, x, t, u), -1)


def test_small_integer_types_hold_more_categories_than_they_can_count():
    process = d3pm.absorbing(d3pm.reciprocal(10), 257, 256)
    x = jnp.zeros(2, jnp.int8)
    np.testing.assert_allclose(
        jnp.exp(process.log_q_probs(x, jnp.asarray(5)))[:, [0, 1, 256]], [[0.5, 0, 0.5]] * 2
    )
    np.testing.assert_array_equal(d3pm.residual(jnp.zeros((2, 257)), x).sum(-1), 1.0)


def test_what_has_no_distribution_is_marked(process):
    nothing = jnp.full((2, 7), -jnp.inf)
    x = i32(3, 4)
    t = i32(5, 20)
    drawn = jax.jit(d3pm.p_sample)(process, nothing, x, t, jnp.array([0.1, 0.9]))
    np.testing.assert_array_equal(drawn, -1)
    kl = jax.jit(d3pm.posterior_kl)(process, nothing * jnp.nan, x, x, i32(5, 5))
    assert np.all(np.isnan(kl))


def test_arguments_of_the_wrong_kind_are_refused_without_type_checks_too():
    """In a process of its own, because the checks of these tests would refuse them first."""
    code = """
import jax.numpy as jnp, d3pm_jax as d3pm
process, x, logits = d3pm.uniform(d3pm.cosine(20), 7), jnp.array([2]), jnp.zeros((1, 7))
for call in (
    lambda: d3pm.p_logits(process, logits, x, jnp.array([1]), "Bayes"),
    lambda: d3pm.p_logits(process, logits, x, jnp.array([1.0])),
    lambda: d3pm.q_sample(process, jnp.array([2.0]), jnp.array([1]), jnp.zeros(1)),
):
    try:
        call()
    except (TypeError, ValueError) as error:
        print(error)
"""
    actual = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    rule, step, category = actual.splitlines()
    assert rule == "belief = 'Bayes': it must be 'd3pm' or 'official' or 'leave_one_out' or 'denoiser'"
    assert step.startswith("t has dtype float32, expected integers: pass category or step numbers")
    assert category.startswith("x0 has dtype float32, expected integers: pass category or step numbers")


@pytest.mark.parametrize(
    ("family", "T"),
    [
        *(("uniform", 1000), ("autoregressive", 3), ("masked", 1000)),
        *(
            pytest.param(name, 1000, marks=pytest.mark.slow)
            for name in ("marginal", "extra mask", "interpolating")
        ),
    ],
)
def test_no_array_of_an_o_of_k_process_has_two_axes_of_size_k(family, T):
    K = 50_000
    process = FAMILIES[family](K, T)

    def everything(process, logits, x0, t, u):
        xt = d3pm.q_sample(process, x0, t, u)

        def loss(x):
            return sum(d3pm.hybrid(process, x, x0, xt, t, 0.01, belief=b).loss.sum() for b in BELIEFS)

        return (
            jax.grad(loss)(logits),
            [d3pm.p_sample(process, logits, xt, t, u, belief=b) for b in BELIEFS],
            beliefs.to_denoiser(process, beliefs.to_leave_one_out(process, logits, xt, t), xt, t),
            d3pm.prior_kl(process, x0),
            process.draw_prior(u),
        )

    args = jnp.zeros((2, 3, K)), jnp.zeros((2, 3), jnp.int32), i32(1, 1000), jnp.zeros((2, 3))
    shapes = list(_shapes(jax.make_jaxpr(everything)(process, *args).jaxpr))
    assert any(K in shape for shape in shapes)
    assert all(sum(n >= K - 1 for n in shape) < 2 for shape in shapes)


def _shapes(jaxpr):
    for equation in jaxpr.eqns:
        yield from (v.aval.shape for v in equation.outvars)
        for inner in jax.extend.core.jaxprs_in_params(equation.params):
            yield from _shapes(inner)


@pytest.mark.filterwarnings("ignore:x_T still depends")
@pytest.mark.parametrize("name", ["uniform", "banded", "masked banded"])
def test_kernels_take_no_examples(name):
    beta = np.full(4, 0.9)
    build = {
        "uniform": lambda: d3pm.uniform(beta, 4),
        "banded": lambda: d3pm.banded(beta, 4, 1),
        "masked banded": lambda: d3pm.masked(d3pm.banded(beta, 3, 1), beta),
    }
    process = build[name]()
    x, t, logits = jnp.zeros((0, 3), jnp.int32), jnp.zeros(0, jnp.int32), jnp.zeros((0, 3, 4))
    loss = jax.value_and_grad(lambda logits: d3pm.hybrid(process, logits, x, x, t, 0.1).loss.sum())
    value, gradient = loss(logits)
    assert value == 0
    assert gradient.shape == (0, 3, 4)
    assert process.log_push(logits, t).shape == (0, 3, 4)
    assert d3pm.p_sample(process, logits, x, t, jnp.zeros((0, 3))).shape == (0, 3)
