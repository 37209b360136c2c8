"""The terms of the bound at extreme inputs, of any shape of t; label smoothing."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import d3pm_jax as d3pm
from d3pm_jax.losses import variational
from tests.lowering.values import largest_value

PROCESS = d3pm.absorbing(d3pm.reciprocal(5), 4, mask_id=3)
LOGITS = jnp.array([[0.3, -1.2, 2.0, 0.1], [1.0, 0.0, -3.0, 0.5]])
X0 = jnp.array([2, 0])


def test_smoothing_is_the_mean_over_all_labels():
    log_p = np.asarray(jax.nn.log_softmax(LOGITS))
    ce = d3pm.smoothed_cross_entropy(PROCESS, LOGITS, X0, 0.2)
    np.testing.assert_allclose(ce, -0.8 * log_p[[0, 1], X0] - 0.2 * log_p.mean(1), rtol=1e-6)
    ce = d3pm.smoothed_cross_entropy(PROCESS, LOGITS, X0, 0.2, mask_id=3)
    np.testing.assert_allclose(ce, -0.8 * log_p[[0, 1], X0] - 0.2 * log_p[:, :3].mean(1), rtol=1e-6)
    np.testing.assert_allclose(
        d3pm.smoothed_cross_entropy(PROCESS, LOGITS, X0, 0.0),
        d3pm.cross_entropy(PROCESS, LOGITS, X0),
        rtol=1e-6,
    )


@pytest.mark.parametrize(("smoothing", "mask_id"), [(0.0, None), (0.1, 3), (0.1, None)])
def test_a_forbidden_category_costs_infinity_only_if_it_has_mass(smoothing, mask_id):
    def loss(x):
        return d3pm.smoothed_cross_entropy(PROCESS, d3pm.forbid(x, 3), X0, smoothing, mask_id).sum()

    value, gradient = jax.jit(jax.value_and_grad(loss))(LOGITS)
    if smoothing and mask_id is None:
        assert np.isposinf(value)
    else:
        assert np.isfinite(value)
    assert np.isfinite(gradient).all()


def test_smoothing_outside_0_to_1_is_refused():
    with pytest.raises(ValueError, match=r"smoothing = 1\.5, outside \[0, 1\]"):
        d3pm.smoothed_cross_entropy(PROCESS, LOGITS, X0, 1.5)


def i32(*x):
    return jnp.asarray(x, jnp.int32)


def test_hybrid_without_cross_entropy_is_the_bound_even_where_that_is_infinite():
    process = d3pm.uniform(d3pm.cosine(20), 7)
    logits = jnp.zeros((1, 7)).at[0, 2].set(-jnp.inf)

    def loss(x):
        terms = d3pm.hybrid(process, x, i32(2), i32(3), i32(10), 0.0)
        return terms.loss.sum(), terms

    gradient, terms = jax.jit(jax.grad(loss, has_aux=True))(logits)
    assert terms.ce == np.inf
    np.testing.assert_array_equal(terms.loss, terms.kl)
    assert np.all(np.isfinite(gradient))


def test_a_large_factor_does_not_break_the_gradient():
    process = d3pm.gaussian(d3pm.linear(100, 1e-3, 0.2), 17)
    logits = jnp.full((1, 17), -jnp.inf).at[0, 16].set(0.0).at[0, 0].set(-29.99)

    def loss(x, factor):
        return factor * d3pm.posterior_kl(process, x, i32(0), i32(11), i32(5)).sum()

    gradient = jax.jit(jax.grad(loss))
    once = gradient(logits, 1.0)
    many = gradient(logits, 1e6)
    assert np.all(np.isfinite(once))
    np.testing.assert_allclose(many, 1e6 * once, rtol=1e-5)


@pytest.mark.parametrize("process", ["uniform", "gaussian"], indirect=True)
def test_t_of_any_prefix_shape_and_vmap_agree(process):
    rng = np.random.default_rng(0)
    t = i32(1, 8, 20)
    x0 = jnp.asarray(rng.integers(0, 7, (3, 2, 2)), jnp.int32)
    xt = jnp.asarray(rng.integers(0, 7, (3, 2, 2)), jnp.int32)
    logits = jnp.asarray(rng.normal(size=(3, 2, 2, 7)), jnp.float32)

    @jax.jit
    def run(process):
        t_of_elements = jnp.broadcast_to(t[:, None, None], x0.shape)
        return (
            d3pm.posterior_kl(process, logits, x0, xt, t),
            d3pm.posterior_kl(process, logits, x0, xt, t_of_elements),
            jax.vmap(d3pm.posterior_kl, (None, 0, 0, 0, 0))(process, logits, x0, xt, t),
            d3pm.posterior_kl(process, logits[1], x0[1], xt[1], t[1]),
        )

    per_example, per_element, mapped, second = run(process)
    np.testing.assert_allclose(per_example, per_element, rtol=2e-6, atol=1e-6)
    np.testing.assert_allclose(per_example, mapped, rtol=2e-6, atol=1e-6)
    np.testing.assert_allclose(per_example[1], second, rtol=2e-6, atol=1e-6)
    with pytest.raises(ValueError, match="must be a prefix of the shape of x"):
        process.log_q_probs(x0[0, 0], jnp.ones((2, 2), jnp.int32))


def test_extreme_logits_give_exact_values_and_finite_gradients(process):
    """Against the same sums in log space in float64."""
    rng = np.random.default_rng(1)
    x0 = i32(*rng.integers(0, 7, 64))
    t = i32(*rng.integers(1, 21, 64))
    logits = rng.normal(size=(64, 7))
    u = jnp.asarray(rng.random(64), jnp.float32)

    @jax.jit
    def run(process, logits):
        xt = d3pm.q_sample(process, x0, t, u)
        return xt, *jax.value_and_grad(lambda x: d3pm.posterior_kl(process, x, x0, xt, t).sum())(logits)

    for scale in (1.0, 1e4):
        x = jnp.asarray(scale * logits, jnp.float32)
        xt, loss, gradient = run(process, x)
        np.testing.assert_allclose(loss, _kl_in_float64(process, x, x0, xt, t).sum(), rtol=1e-5)
        assert np.all(np.isfinite(gradient))


def _kl_in_float64(process, logits, x0, xt, t):
    steps = jnp.arange(21, dtype=jnp.int32)
    Q = np.float64(process.Q(steps))
    Qbar = np.float64(process.Qbar(steps))
    x0 = np.asarray(x0)
    xt = np.asarray(xt)
    t = np.asarray(t)
    logits = np.float64(logits)
    with np.errstate(divide="ignore", invalid="ignore"):
        back = np.log(Q[t, :, xt])  # [N, K]
        row = np.log(Qbar[t - 1, x0])
        pushed = np.logaddexp.reduce(logits[:, :, None] + np.log(Qbar[t - 1]), axis=1)
        log_q = _log_normalise(back + row)
        log_p = _log_normalise(back + pushed)
        return np.where(log_q > -np.inf, np.exp(log_q) * (log_q - log_p), 0.0).sum(1)


def _log_normalise(logs):
    return logs - np.logaddexp.reduce(logs, axis=1)[:, None]


def test_a_wrong_certain_prediction_costs_infinity_and_no_nan(process):
    logits = jnp.full((1, 7), -jnp.inf).at[0, 2].set(0.0)
    value, gradient = jax.jit(
        jax.value_and_grad(lambda x: d3pm.posterior_kl(process, x, i32(5), i32(5), i32(1)).sum())
    )(logits)
    assert value == np.inf
    assert not np.any(np.isnan(gradient))
    assert d3pm.cross_entropy(process, logits, i32(5)) == np.inf
    np.testing.assert_array_equal(d3pm.cross_entropy(process, logits, i32(2)), 0.0)


def test_bfloat16_logits_are_widened_first():
    process = d3pm.uniform(d3pm.cosine(20), 7)
    logits = jax.random.normal(jax.random.key(0), (3, 7), jnp.bfloat16)
    x0 = i32(0, 1, 2)
    xt = i32(0, 3, 3)
    t = i32(1, 9, 20)
    kl, expected = jax.jit(
        lambda x: [d3pm.posterior_kl(process, y, x0, xt, t) for y in (x, x.astype(jnp.float32))]
    )(logits)
    assert kl.dtype == jnp.float32
    np.testing.assert_array_equal(kl, expected)


def with_zeros(K):
    """Makes a pi of one category that has half of it, and of some that have none."""
    pi = np.random.default_rng(K).random(K) ** 2
    pi[1::3] = 0
    pi[0] = pi.sum()
    return pi / pi.sum()


PRIORS = {
    "uniform": d3pm.uniform,
    "marginal": lambda beta, K: d3pm.marginal(beta, np.arange(1.0, K + 1) / (K * (K + 1) / 2)),
    "with zeros": lambda beta, K: d3pm.marginal(beta, with_zeros(K)),
    "all but certain": lambda beta, K: d3pm.marginal(beta, np.r_[1 - 1e-6, np.full(K - 1, 1e-6 / (K - 1))]),
    "absorbing": lambda beta, K: d3pm.absorbing(beta, K, K - 1),
    "masked": lambda beta, K: d3pm.masked(d3pm.uniform(beta, K), np.full(beta.shape, 0.3)),
    "all masked": lambda beta, K: d3pm.masked(d3pm.marginal(beta, with_zeros(K)), d3pm.reciprocal(beta.size)),
}
# How likely x_0 stays until T: mostly, often, rarely, hardly, and never.
STAYS = [0.9, 0.3, 1e-3, 1e-8, 0.0]


@pytest.mark.filterwarnings("ignore:x_T still depends")
@pytest.mark.parametrize("name", PRIORS)
def test_prior_kl_is_its_definition(name):
    """In float64; in float32 near 0 too, where the definition in float32 loses its digits."""
    fast = jax.jit(d3pm.prior_kl)
    definition = jax.jit(variational.dispatch_prior_kl.dispatch(object))
    for K in (2, 7, 257):
        x0 = jnp.arange(K + ("mask" in name))
        for stays in STAYS:
            beta = np.array([0.0625, 1 - stays / 0.9375])
            with jax.enable_x64(True):
                process = PRIORS[name](beta, K)
                expected = definition(process, x0)
                found = fast(process, x0)
            np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-15, err_msg=f"{K}, {stays}")
            assert (np.asarray(found) >= 0).all()
            found = fast(PRIORS[name](beta, K), x0)
            np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-15, err_msg=f"{K}, {stays}")


@pytest.mark.filterwarnings("ignore:x_T still depends")
def test_prior_kl_makes_no_row_of_a_place():
    K = 50_304
    x0 = jnp.zeros((4, 1024), jnp.int32)
    for name in PRIORS:
        assert largest_value(d3pm.prior_kl, PRIORS[name](d3pm.cosine(4), K), x0) <= 2 * K
