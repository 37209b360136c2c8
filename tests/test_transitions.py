"""Families at real sizes: published numbers, checks at construction, memory, odd inputs."""

import subprocess
import sys

import jax
import jax.extend.core
import jax.numpy as jnp
import numpy as np
import pytest

import d3pm_jax as d3pm
from d3pm_jax.checks import check_steps


def i32(*x):
    return jnp.asarray(x, jnp.int32)


def test_gaussian_diagonals_of_the_paper(x64):
    tr = d3pm.gaussian(d3pm.linear(1000), 256)
    diagonal = np.diagonal(tr.Qbar(i32(10, 100, 500)), axis1=1, axis2=2)[:, 128]
    np.testing.assert_allclose(diagonal, [0.1016, 0.01343, 0.003922], rtol=5e-3)
    one_step = np.diagonal(tr.Q(i32(1, 1000)), axis1=1, axis2=2)[:, 128]
    np.testing.assert_allclose(one_step, [0.4425, 0.0313], rtol=5e-3)
    prior = d3pm.prior_kl(tr, jnp.arange(256, dtype=jnp.int32)) / np.log(2)
    assert prior.max() == pytest.approx(6.6e-6, rel=0.02)
    np.testing.assert_allclose(tr.Qbar(i32(1000)).sum(-1), 1.0, atol=1e-12)


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
    found = d3pm.prior_kl(build(), jnp.arange(256, dtype=jnp.int32)) / np.log(2)
    assert found.max() == pytest.approx(bits, rel=0.05, abs=1e-16)


def test_tables_keep_small_noise_that_float32_products_lose():
    tr = d3pm.uniform(np.append(np.full(1000, 1e-9), 1.0), 4)
    np.testing.assert_allclose(np.exp(tr.log_beta_bar[i32(1, 1000)]), [1e-9, 1e-6], rtol=2e-6)


@pytest.mark.parametrize("build", [lambda b: d3pm.uniform(b, 5), lambda b: d3pm.gaussian(b, 5)])
def test_a_chain_that_still_remembers_warns(build):
    with pytest.warns(UserWarning, match=r"prior KL is up to .* bits per dimension"):
        build(np.full(10, 0.1))


def test_an_absorbing_chain_that_does_not_finish_has_infinite_prior_kl():
    with pytest.warns(UserWarning, match="prior KL is up to inf"):
        tr = d3pm.absorbing(np.full(10, 0.1), 5, 4)
    np.testing.assert_array_equal(d3pm.prior_kl(tr, i32(0, 4)), [np.inf, 0.0])


def test_nonsense_is_refused():
    with pytest.raises(ValueError, match=r"the chain is the identity.*raise beta"):
        d3pm.gaussian(d3pm.linear(1000), 3)
    with pytest.raises(ValueError, match=r"beta = 1\.2 at t = 1 is outside"):
        d3pm.uniform(np.array([1.2]), 5)
    with pytest.raises(ValueError, match=r"mask_id = 5 is outside 0\.\.4"):
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


@pytest.fixture(params=["uniform", "absorbing", "gaussian"])
def tr(request):
    return {
        "uniform": lambda: d3pm.uniform(d3pm.cosine(20), 7),
        "absorbing": lambda: d3pm.absorbing(d3pm.reciprocal(20), 7, 3),
        "gaussian": lambda: d3pm.gaussian(d3pm.linear(20, 0.05, 1.0), 7),
    }[request.param]()


def test_bad_input_names_the_value_and_the_cure(tr):
    x, logits = i32(0, 1), jnp.zeros((2, 7))
    with pytest.raises(TypeError, match="t has dtype float32, expected integers"):
        check_steps(jnp.array([1.0, 2.0]), 1, 20)
    with pytest.raises(ValueError, match=r"t contains 0, outside 1..20"):
        d3pm.p_logits(tr, logits, x, i32(0, 1))
    with pytest.raises(ValueError, match=r"t contains 21, outside 0..20"):
        d3pm.q_sample(tr, x, i32(21, 1), jnp.zeros(2))
    with pytest.raises(ValueError, match=r"x0 contains 7, outside 0..6: the process has K = 7"):
        d3pm.q_sample(tr, i32(7, 1), i32(1, 1), jnp.zeros(2))
    with pytest.raises(ValueError, match=r"xt contains -1, outside"):
        d3pm.q_posterior(tr, x, i32(-1, 1), i32(1, 1))
    with pytest.raises(ValueError, match="logits have 5 categories, the process has K = 7"):
        d3pm.posterior_kl(tr, jnp.zeros((2, 5)), x, x, i32(1, 1))


@pytest.mark.parametrize("step", [-1, 0, 21])
def test_a_wrong_step_under_jit_is_nan_not_another_step(tr, step):
    x, t, u = i32(0, 1), i32(step, step), jnp.array([0.3, 0.6])
    assert np.all(np.isnan(jax.jit(d3pm.posterior_kl)(tr, jnp.zeros((2, 7)), x, x, t)))
    if step != 0:  # x_0 itself is a fine draw of x_0
        assert np.all(np.isnan(jax.jit(tr.log_q_probs)(x, t)))
        np.testing.assert_array_equal(jax.jit(d3pm.q_sample)(tr, x, t, u), -1)


def test_small_integer_types_hold_more_categories_than_they_can_count():
    tr = d3pm.absorbing(d3pm.reciprocal(10), 257, 256)
    x = jnp.zeros(2, jnp.int8)
    np.testing.assert_allclose(
        jnp.exp(tr.log_q_probs(x, jnp.asarray(5)))[:, [0, 1, 256]], [[0.5, 0, 0.5]] * 2
    )
    np.testing.assert_array_equal(d3pm.residual(jnp.zeros((2, 257)), x).sum(-1), 1.0)


def test_what_has_no_distribution_is_marked(tr):
    nothing = jnp.full((2, 7), -jnp.inf)
    drawn = d3pm.p_sample(tr, nothing, i32(3, 4), i32(5, 20), jnp.array([0.1, 0.9]))
    np.testing.assert_array_equal(drawn, -1)
    broken = d3pm.posterior_kl(tr, nothing * jnp.nan, i32(3, 4), i32(3, 4), i32(5, 5))
    assert np.all(np.isnan(broken))


def test_hybrid_without_cross_entropy_is_the_bound_even_where_that_is_infinite():
    tr = d3pm.uniform(d3pm.cosine(20), 7)
    logits = jnp.zeros((1, 7)).at[0, 2].set(-jnp.inf)
    found = d3pm.hybrid(tr, logits, i32(2), i32(3), i32(10), 0.0)
    assert found.ce == np.inf
    np.testing.assert_array_equal(found.loss, found.kl)
    gradient = jax.grad(lambda x: d3pm.hybrid(tr, x, i32(2), i32(3), i32(10), 0.0).loss.sum())(logits)
    assert np.all(np.isfinite(gradient))


def test_arguments_of_the_wrong_kind_are_refused_without_type_checks_too():
    """In a process of its own, because the checks of these tests would refuse them first."""
    code = """
import jax.numpy as jnp, d3pm_jax as d3pm
tr, x, logits = d3pm.uniform(d3pm.cosine(20), 7), jnp.array([2]), jnp.zeros((1, 7))
for call in (
    lambda: d3pm.p_logits(tr, logits, x, jnp.array([1]), "Bayes"),
    lambda: d3pm.p_logits(tr, logits, x, jnp.array([1.0])),
    lambda: d3pm.q_sample(tr, jnp.array([2.0]), jnp.array([1]), jnp.zeros(1)),
):
    try:
        call()
    except (TypeError, ValueError) as error:
        print(error)
"""
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    rule, step, category = found.splitlines()
    assert rule == """first_step = 'Bayes': it must be "bayes" or "x0\""""
    assert step.startswith("t has dtype float32, expected integers: pass the step number")
    assert category.startswith("x0 has dtype float32, expected integers: pass category numbers")


def test_a_large_factor_does_not_break_the_gradient():
    tr = d3pm.gaussian(d3pm.linear(100, 1e-3, 0.2), 17)
    logits = jnp.full((1, 17), -jnp.inf).at[0, 16].set(0.0).at[0, 0].set(-29.99)

    def loss(x, factor):
        return factor * d3pm.posterior_kl(tr, x, i32(0), i32(11), i32(5)).sum()

    one, many = (jax.grad(loss)(logits, factor) for factor in (1.0, 1e6))
    assert np.all(np.isfinite(one))
    np.testing.assert_allclose(many, 1e6 * one, rtol=1e-5)


def test_t_of_any_prefix_shape_and_vmap_agree(tr):
    keys = jax.random.split(jax.random.key(0), 4)
    x0, xt = (jax.random.randint(k, (3, 2, 2), 0, 7) for k in keys[:2])
    logits, t = jax.random.normal(keys[2], (3, 2, 2, 7)), i32(1, 8, 20)
    per_example = d3pm.posterior_kl(tr, logits, x0, xt, t)
    per_element = d3pm.posterior_kl(tr, logits, x0, xt, jnp.broadcast_to(t[:, None, None], x0.shape))
    mapped = jax.vmap(d3pm.posterior_kl, (None, 0, 0, 0, 0))(tr, logits, x0, xt, t)
    np.testing.assert_allclose(per_example, per_element, rtol=2e-6, atol=1e-6)
    np.testing.assert_allclose(per_example, mapped, rtol=2e-6, atol=1e-6)
    one = d3pm.posterior_kl(tr, logits[1], x0[1], xt[1], jnp.asarray(8))
    np.testing.assert_allclose(per_example[1], one, rtol=2e-6, atol=1e-6)
    with pytest.raises(ValueError, match="must be a prefix of the shape of x"):
        tr.log_q_probs(x0[0, 0], jnp.ones((2, 2), jnp.int32))


@pytest.mark.parametrize("scale", [1.0, 1e4])
def test_extreme_logits_give_exact_values_and_finite_gradients(tr, scale):
    """Against the same sums in log space in float64."""
    keys = jax.random.split(jax.random.key(1), 4)
    x0, t = jax.random.randint(keys[0], (64,), 0, 7), jax.random.randint(keys[1], (64,), 1, 21)
    xt = d3pm.q_sample(tr, x0, t, jax.random.uniform(keys[2], (64,)))
    logits = jax.random.normal(keys[3], (64, 7)) * scale
    loss, gradient = jax.value_and_grad(lambda x: d3pm.posterior_kl(tr, x, x0, xt, t).sum())(logits)
    expected = _kl_in_float64(tr, logits, x0, xt, t)
    np.testing.assert_allclose(loss, expected.sum(), rtol=1e-5)
    assert np.all(np.isfinite(gradient))


def _kl_in_float64(tr, logits, x0, xt, t):
    Q, Qbar = (np.float64(f(jnp.arange(21, dtype=jnp.int32))) for f in (tr.Q, tr.Qbar))
    x0, xt, t, logits = (np.asarray(x) for x in (x0, xt, t, np.float64(logits)))
    with np.errstate(divide="ignore", invalid="ignore"):
        back, row = np.log(Q[t, :, xt]), np.log(Qbar[t - 1, x0])
        pushed = np.logaddexp.reduce(logits[:, :, None] + np.log(Qbar[t - 1]), axis=1)
        q, p = (x - np.logaddexp.reduce(x, axis=1)[:, None] for x in (back + row, back + pushed))
        return np.where(q > -np.inf, np.exp(q) * (q - p), 0.0).sum(1)


def test_a_wrong_certain_prediction_costs_infinity_and_no_nan(tr):
    logits = jnp.full((1, 7), -jnp.inf).at[0, 2].set(0.0)
    value, gradient = jax.value_and_grad(lambda x: d3pm.posterior_kl(tr, x, i32(5), i32(5), i32(1)).sum())(
        logits
    )
    assert value == np.inf
    assert not np.any(np.isnan(gradient))
    assert d3pm.cross_entropy(tr, logits, i32(5)) == np.inf
    np.testing.assert_array_equal(d3pm.cross_entropy(tr, logits, i32(2)), 0.0)


def test_bfloat16_logits_are_widened_first(tr):
    logits = jax.random.normal(jax.random.key(0), (3, 7), jnp.bfloat16)
    found = d3pm.posterior_kl(tr, logits, i32(0, 1, 2), i32(0, 3, 3), i32(1, 9, 20))
    expected = d3pm.posterior_kl(tr, logits.astype(jnp.float32), i32(0, 1, 2), i32(0, 3, 3), i32(1, 9, 20))
    assert found.dtype == jnp.float32
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize(
    "build",
    [
        lambda K: d3pm.uniform(d3pm.cosine(1000), K),
        lambda K: d3pm.absorbing(d3pm.reciprocal(1000), K, K - 1),
        lambda K: d3pm.marginal(d3pm.cosine(1000), np.arange(1, K + 1) / (K * (K + 1) / 2)),
        lambda K: d3pm.masked(d3pm.uniform(d3pm.cosine(1000), K - 1), d3pm.reciprocal(1000)),
    ],
)
def test_no_array_of_an_o_of_k_process_has_two_axes_of_size_k(build):
    K = 50_000
    tr = build(K)

    def everything(tr, logits, x0, t, u):
        xt = d3pm.q_sample(tr, x0, t, u)
        grad = jax.grad(lambda x: d3pm.hybrid(tr, x, x0, xt, t, 0.01).loss.sum())(logits)
        return grad, d3pm.p_sample(tr, logits, xt, t, u), d3pm.prior_kl(tr, x0), tr.draw_prior(u)

    args = jnp.zeros((2, 3, K)), jnp.zeros((2, 3), jnp.int32), i32(1, 1000), jnp.zeros((2, 3))
    shapes = list(_shapes(jax.make_jaxpr(everything)(tr, *args).jaxpr))
    assert any(K in shape for shape in shapes)
    assert all(sum(n >= K - 1 for n in shape) < 2 for shape in shapes)


def _shapes(jaxpr):
    for equation in jaxpr.eqns:
        yield from (v.aval.shape for v in equation.outvars)
        for inner in jax.extend.core.jaxprs_in_params(equation.params):
            yield from _shapes(inner)


def test_samples_do_not_depend_on_the_batch():
    tr = d3pm.uniform(d3pm.cosine(20), 7)
    key = jax.random.key(0)

    def denoise(xt, t):
        return 2.0 * jax.nn.one_hot(xt, 7)

    whole = d3pm.sample(key, denoise, tr, (6, 3, 2))
    part = d3pm.sample(key, denoise, tr, (2, 3, 2), start=4)
    np.testing.assert_array_equal(whole.x0[4:], part.x0)
    x0 = whole.x0
    all_at_once = d3pm.estimate_bound(key, denoise, tr, x0, jnp.arange(6))
    later = d3pm.estimate_bound(key, denoise, tr, x0[4:], jnp.arange(4, 6))
    np.testing.assert_allclose(all_at_once.steps[:, 4:], later.steps, rtol=1e-5, atol=1e-6)


def test_a_network_that_breaks_down_is_noticed(tr):
    chain = d3pm.sample(jax.random.key(0), lambda xt, t: jnp.full((*xt.shape, 7), jnp.nan), tr, (2, 3))
    assert chain.failed_at == 20


def test_low_discrepancy_covers_every_step():
    for u in (0.0, 0.3, 1 - 2**-24):
        t = d3pm.low_discrepancy(jnp.float32(u), 64, 20)
        assert set(np.bincount(t, minlength=21)[1:]) == {3, 4}


def test_recorded_steps_are_checked():
    tr = d3pm.uniform(d3pm.cosine(20), 7)
    with pytest.raises(ValueError, match=r"record = \[21\]"):
        d3pm.sample(jax.random.key(0), lambda x, t: jax.nn.one_hot(x, 7), tr, (1, 1), record=[21])
