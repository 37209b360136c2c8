"""Families at real sizes: published numbers, checks at construction, memory, odd inputs."""

import subprocess
import sys
import warnings

import jax
import jax.extend.core
import jax.numpy as jnp
import numpy as np
import pytest

import d3pm_jax as d3pm
from d3pm_jax import beliefs, processes
from d3pm_jax.processes.tables import gather
from tests.processes.odd import PROCESSES, T

BELIEFS = ("d3pm", "leave_one_out", "denoiser")


def i32(*x):
    return jnp.asarray(x, jnp.int32)


@pytest.mark.slow
def test_gaussian_diagonals_of_the_paper(x64):
    process = d3pm.gaussian(d3pm.linear(1000), 256)
    diagonal = np.diagonal(process.Qbar(i32(10, 100, 500)), axis1=1, axis2=2)[:, 128]
    np.testing.assert_allclose(diagonal, [0.1016, 0.01343, 0.003922], rtol=5e-3)
    one_step = np.diagonal(process.Q(i32(1, 1000)), axis1=1, axis2=2)[:, 128]
    np.testing.assert_allclose(one_step, [0.4425, 0.0313], rtol=5e-3)
    prior = d3pm.prior_kl(process, jnp.arange(256, dtype=jnp.int32)) / np.log(2)
    assert prior.max() == pytest.approx(6.6e-6, rel=0.02)
    np.testing.assert_allclose(process.Qbar(i32(1000)).sum(-1), 1.0, atol=1e-12)


@pytest.mark.parametrize(
    ("build", "bits"),
    [
        (lambda: d3pm.uniform(d3pm.linear(1000), 256), 3.0e-7),
        (lambda: d3pm.uniform(d3pm.cosine(1000), 256), 4.5e-10),
        (lambda: d3pm.uniform(d3pm.linear(1000, 0.02, 1.0), 256), 0.0),
        (lambda: d3pm.absorbing(d3pm.reciprocal(1000), 256, 128), 0.0),
    ],
)
def test_published_prior_kl(build, bits, x64):
    actual = d3pm.prior_kl(build(), jnp.arange(256, dtype=jnp.int32)) / np.log(2)
    assert actual.max() == pytest.approx(bits, rel=0.05, abs=1e-16)


def test_tables_keep_small_noise_that_float32_products_lose():
    process = d3pm.uniform(np.append(np.full(1000, 1e-9), 1.0), 4)
    np.testing.assert_allclose(np.exp(process.log_beta_bar[i32(1, 1000)]), [1e-9, 1e-6], rtol=2e-6)


@pytest.mark.parametrize("build", [lambda b: d3pm.uniform(b, 5), lambda b: d3pm.gaussian(b, 5)])
def test_a_chain_that_still_remembers_warns(build):
    with pytest.warns(UserWarning, match=r"prior KL is up to .* bits per dimension"):
        build(np.full(10, 0.1))


def test_an_absorbing_chain_that_does_not_finish_has_infinite_prior_kl():
    with pytest.warns(UserWarning, match="prior KL is up to inf"):
        process = d3pm.absorbing(np.full(10, 0.1), 5, 4)
    np.testing.assert_array_equal(d3pm.prior_kl(process, i32(0, 4)), [np.inf, 0.0])


def test_nonsense_is_refused():
    with pytest.raises(ValueError, match=r"the chain is the identity.*raise beta"):
        d3pm.gaussian(d3pm.linear(1000), 3)
    with pytest.raises(ValueError, match=r"beta = 1\.2 at t = 1 is outside"):
        d3pm.uniform(np.array([1.2]), 5)
    with pytest.raises(ValueError, match=r"mask_id = 5, outside 0\.\.4"):
        d3pm.absorbing(d3pm.reciprocal(3), 5, 5)
    with pytest.raises(ValueError, match="K = 1"):
        d3pm.uniform(np.array([1.0]), 1)
    with pytest.raises(ValueError, match=r"not row-stochastic.*transpose"):
        d3pm.dense([np.array([[0.5, 0.4], [0.5, 0.6]])])
    with pytest.raises(ValueError, match="pi must be 2 probabilities that sum to 1"):
        d3pm.marginal(np.array([1.0]), np.array([0.5, 0.4]))
    with pytest.raises(ValueError, match="prior must be 2 probabilities"):
        d3pm.dense([np.full((2, 2), 0.5)], prior=np.ones(3) / 3)
    with pytest.raises(ValueError, match="Q is empty"):
        d3pm.dense([])


def test_a_chain_that_is_the_identity_is_made_where_it_is_allowed():
    slow = np.full(3, 1e-9)
    made = []
    with pytest.warns(UserWarning, match="x_T still depends on x_0"), processes.allow_identity():
        made += [d3pm.uniform(slow, 4), d3pm.dense(np.tile(np.eye(4), (3, 1, 1)))]
    for process in made:
        np.testing.assert_allclose(process.Qbar(i32(3))[0], np.eye(4), atol=4e-9)
    with pytest.raises(KeyError), processes.allow_identity():
        raise KeyError
    with pytest.raises(ValueError, match=r"the chain is the identity.*processes\.allow_identity\(\)"):
        d3pm.uniform(slow, 4)


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


def test_an_index_outside_of_a_table_is_nan_not_another_row():
    rows = jax.jit(gather)(jnp.arange(3.0), i32(-1, 0, 2, 3))
    np.testing.assert_array_equal(rows, [np.nan, 0, 2, np.nan])


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
    "build",
    [
        lambda K: d3pm.uniform(d3pm.cosine(1000), K),
        lambda K: d3pm.absorbing(d3pm.reciprocal(1000), K, K - 1),
        lambda K: d3pm.autoregressive(3, K, K - 1),
        lambda K: d3pm.marginal(d3pm.cosine(1000), np.arange(1, K + 1) / (K * (K + 1) / 2)),
        lambda K: d3pm.masked(d3pm.uniform(d3pm.cosine(1000), K - 1), d3pm.reciprocal(1000)),
    ],
)
def test_no_array_of_an_o_of_k_process_has_two_axes_of_size_k(build):
    K = 50_000
    process = build(K)

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
def test_noise_too_small_for_float32_is_refused():
    beta = np.append(np.full(9, 1e-19), 1.0)
    with pytest.raises(ValueError, match=r"beta as small as 1e-19 .* use float64"):
        d3pm.uniform(beta, 4)
    with jax.enable_x64(True), warnings.catch_warnings():
        d3pm.uniform(beta, 4)
    d3pm.absorbing(beta, 4, 3)


@pytest.mark.filterwarnings("ignore:x_T still depends")
def test_masked_processes_are_checked():
    with pytest.raises(ValueError, match="gamma has 3 steps, the inner process 12"):
        d3pm.masked(PROCESSES["uniform"](), d3pm.reciprocal(3))
    with pytest.raises(ValueError, match=r"gamma = 2 at t = 1 is outside"):
        d3pm.masked(PROCESSES["uniform"](), np.full(T, 2.0))
