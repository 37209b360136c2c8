"""Losses from the two numbers of a logistic head, against those of its logits."""

import dataclasses
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import d3pm_jax
from d3pm_jax import heads
from d3pm_jax.config import HybridLoss, LogisticHead
from d3pm_jax.config.objective import HybridOfParameters
from d3pm_jax.losses import fused_logistic
from d3pm_jax.losses.variational import dispatch_kl_and_ce
from d3pm_jax.processes import Mixing
from tests.numerics.row_forms import interpret

T = 12
N = 20
BELIEFS = ("d3pm", "leave_one_out", "denoiser", "official")


def make_process(K, family):
    pi = np.random.default_rng(K).dirichlet(np.ones(K))
    return {
        "uniform": partial(d3pm_jax.uniform, d3pm_jax.cosine(T), K),
        "absorbing": partial(d3pm_jax.absorbing, d3pm_jax.reciprocal(T), K, K - 1),
        "marginal": partial(d3pm_jax.marginal, d3pm_jax.cosine(T), pi),
    }[family]()


def make_case(process, dtype):
    """Returns loc and log_scale from sharp to wide, x_0, x_t, t and cotangents."""
    rng = np.random.default_rng(process.K)
    x0 = jnp.asarray(rng.integers(0, process.K, N), jnp.int32)
    t = jnp.asarray(np.r_[1, T, rng.integers(1, T + 1, N - 2)], jnp.int32)
    xt = d3pm_jax.q_sample(process, x0, t, jnp.asarray(rng.random(N), jnp.float32))
    loc = np.tanh(rng.normal(size=N))
    log_scale = np.r_[-1.0, 8.0, 4.0, rng.normal(size=N - 3) + 2.0]
    cotangents = tuple(jnp.asarray(rng.normal(size=(2, N)), dtype))
    return (jnp.asarray(loc, dtype), jnp.asarray(log_scale, dtype)), (x0, xt, t), cotangents


def from_logits(process, loc, log_scale, x0, xt, t, belief):
    return d3pm_jax.hybrid(process, heads.logistic(loc, log_scale, process.K), x0, xt, t, 0.1, belief)


def from_numbers(process, loc, log_scale, x0, xt, t, belief):
    return fused_logistic.hybrid(process, loc, log_scale, x0, xt, t, 0.1, belief)


def compute(losses, process, dtype, beliefs):
    """Returns kl, ce, and the gradients for loc and log_scale, of all beliefs, one behind the other."""
    parameters, elements, cotangents = make_case(process, dtype)

    @jax.jit
    def values_and_gradients(process, parameters):
        results = []
        for belief in beliefs:

            def kl_and_ce(*parameters, belief=belief):
                hybrid = losses(process, *parameters, *elements, belief)
                return hybrid.kl, hybrid.ce

            values, pull = jax.vjp(kl_and_ce, *parameters)
            results += [*values, *pull(cotangents)]
        return results

    return [np.asarray(x, np.float64) for x in values_and_gradients(process, parameters)]


def assert_close(actual, desired, tolerance):
    for a, b in zip(actual, desired, strict=True):
        np.testing.assert_array_equal(np.isinf(a), np.isinf(b))
        finite = np.isfinite(b)
        scale = 1 + np.abs(b[finite]).max()
        np.testing.assert_allclose(a[finite], b[finite], rtol=0, atol=tolerance * scale)


def test_an_objective_of_two_numbers_is_that_of_their_logits():
    head = LogisticHead()
    objective = HybridLoss(ce_weight=0.1)
    process = make_process(5, "uniform")
    output = jnp.asarray(np.random.default_rng(0).normal(size=(N, 2)), jnp.float32)
    _, (x0, xt, t), (w, _) = make_case(process, np.float32)
    p_t = jnp.full(N, 1 / T)

    @jax.jit
    def differentiate(output):
        def from_numbers(output):
            parameters = head.parameters(output, xt, process.K)
            terms = HybridOfParameters(objective).terms(process, parameters, x0, xt, t, p_t)
            return jnp.sum(w * terms.loss), terms

        def from_logits(output):
            terms = objective.terms(process, head.logits(output, xt, process.K), x0, xt, t, p_t)
            return jnp.sum(w * terms.loss), terms

        return [jax.grad(f, has_aux=True)(output) for f in (from_numbers, from_logits)]

    (gradient, terms), (desired_gradient, desired) = differentiate(output)
    assert_close([gradient, *terms], [desired_gradient, *desired], 1e-6)


class Own(Mixing):
    """Has a loss of its own."""


@dispatch_kl_and_ce.register
def _(process: Own, logits, x0, xt, t, belief="d3pm"):
    return jnp.full(x0.shape, 7.0), jnp.zeros(x0.shape)


def test_a_subclass_has_its_own_loss():
    process = make_process(3, "uniform")
    own = Own(**{field.name: getattr(process, field.name) for field in dataclasses.fields(process)})
    x0 = jnp.zeros(2, jnp.int32)
    assert list(fused_logistic.hybrid(own, jnp.zeros(2), jnp.zeros(2), x0, x0, x0 + 1, 0.1).loss) == [7, 7]


def test_categories_may_be_bytes_and_numbers_float32_among_float64():
    process = make_process(256, "absorbing")
    x0 = jnp.asarray([200, 255], jnp.uint8)
    arguments = [jnp.zeros(2), jnp.zeros(2), x0, x0, jnp.ones(2, jnp.int32), 0.1]
    of_bytes = fused_logistic.hybrid(process, *arguments)
    arguments[2:4] = [x0.astype(jnp.int32)] * 2
    for a, b in zip(of_bytes, fused_logistic.hybrid(process, *arguments), strict=True):
        np.testing.assert_array_equal(a, b)

    with jax.enable_x64(True):
        wide = make_process(256, "absorbing")

        def loss(loc):
            return fused_logistic.hybrid(wide, jnp.sin(loc), *arguments[1:]).loss.sum()

        assert jax.eval_shape(jax.grad(loss), arguments[0]).dtype == np.float32


SLOW = [(2, "absorbing"), (27, "marginal"), (256, "uniform"), (257, "marginal")]


@pytest.mark.slow
@pytest.mark.parametrize(("K", "family"), SLOW)
def test_two_numbers_are_what_their_logits_are(K, family, monkeypatch):
    beliefs = BELIEFS[: 4 if K < 256 else 2]
    with jax.enable_x64(True):
        process = make_process(K, family)
        desired = compute(from_logits, process, np.float64, beliefs)
        assert_close(compute(from_numbers, process, np.float64, beliefs), desired, 1e-10)
    process = make_process(K, family)
    assert_close(compute(from_numbers, process, np.float32, beliefs), desired, 1e-6)

    monkeypatch.setattr(fused_logistic, "map_rows", interpret)
    # What is compiled already knows nothing of that.
    monkeypatch.setattr(fused_logistic, "_by_hand", fused_logistic._custom)
    assert_close(compute(from_numbers, process, np.float32, beliefs), desired, 1e-6)
