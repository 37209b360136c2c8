"""Networks that predict x_{t-1} itself, against sums over every path: K = 3, D = 2, T = 4, float64."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import d3pm_jax as d3pm
from d3pm_jax import sampling
from d3pm_jax.sampling.transitions import OwnReverse
from tests import families, paths

K = 3
T = 4
STATES = np.array(list(itertools.product(range(K), repeat=2)))
TABLE = np.random.default_rng(4).normal(size=(T + 1, K**2, 2, K)) * 1.5  # the model: any function will do
REVERSE = [paths.both(np.exp(x) / np.exp(x).sum(-1, keepdims=True)) for x in TABLE[1:]]

pytestmark = [pytest.mark.usefixtures("x64"), pytest.mark.filterwarnings("ignore:x_T still depends")]


def predict(xt, t):
    return jnp.asarray(TABLE)[t, xt[:, 0] * K + xt[:, 1]]


@jax.jit
def term(process, x0, xt, ts):
    return d3pm.direct_kl(process, predict(xt, ts), x0, xt, ts).sum(1)


@pytest.mark.parametrize("name", ["uniform", "dense"])
def test_the_bound_is_that_of_the_paths(name):
    case = families.make(name)
    x0 = np.array(list(itertools.product(case.data, repeat=2)))
    total = np.array(jax.jit(d3pm.prior_kl)(case.process, jnp.asarray(x0)).sum(1))
    Qbar = np.asarray(jax.jit(lambda process: process.Qbar(jnp.arange(T + 1)))(case.process))
    for t in range(1, T + 1):
        ts = jnp.full(len(x0), t)
        q = Qbar[t]
        total += paths.expected_term(
            lambda xt, ts=ts: term(case.process, jnp.asarray(x0), jnp.asarray(xt), ts), q, x0
        )
    expected, exact = np.array([paths.bound_and_nll(case.Q, case.prior, REVERSE, x) for x in x0]).T
    np.testing.assert_allclose(total, expected, rtol=1e-12)
    assert np.all(total >= exact)


def test_at_the_first_step_it_is_the_reconstruction():
    case = families.make("gaussian")
    x0 = jnp.asarray(STATES)
    xt = jnp.asarray(STATES[::-1])
    ts = jnp.ones(len(x0), jnp.int32)
    logits = predict(xt, ts)
    kl = jax.jit(d3pm.direct_kl)(case.process, logits, x0, xt, ts)
    np.testing.assert_allclose(kl, jax.jit(d3pm.cross_entropy)(case.process, logits, x0), rtol=1e-12)


def test_chains_and_bounds_take_it():
    """A chain draws by the cumulative sums of the table; the whole bound adds up the terms."""
    case = families.make("gaussian")
    n = 200
    u = np.random.default_rng(5).uniform(size=(T + 1, n, 2))

    def noise(t):
        return jnp.asarray(u)[t]

    @jax.jit
    def run(process):
        xT = process.draw_prior(noise(0))
        denoiser = d3pm.Denoiser(process, predict)
        sampler = sampling.Sampler(OwnReverse(d3pm.p_prev))
        chain = sampling.run(denoiser, xT, lambda t, stream: noise(t), sampler, record=range(T + 1))
        bound = d3pm.all_t_bound(predict, process, chain.x0, noise, d3pm.direct_kl)
        ts = jnp.full(n, 2)
        xt = d3pm.q_sample(process, chain.x0, ts, noise(2))
        return chain, bound, term(process, chain.x0, xt, ts)

    chain, bound, second = run(case.process)
    x = np.asarray(chain.states[T])
    for t in range(T, 0, -1):
        p = np.exp(TABLE[t, x[:, 0] * K + x[:, 1]])
        cdf = np.cumsum(p, -1) / p.sum(-1, keepdims=True)
        x = np.minimum((cdf <= u[t][..., None]).sum(-1), K - 1)
        np.testing.assert_array_equal(chain.states[t - 1], x)
    np.testing.assert_allclose(bound.steps[1], second, rtol=1e-12)


def test_it_is_least_at_the_posterior_and_moves_towards_it():
    process = families.make("uniform").process
    x0 = jnp.array([0, 1])
    xt = jnp.array([2, 1])
    t = jnp.array([3, 2])
    log_q = jax.jit(d3pm.q_posterior)(process, x0, xt, t)
    value_and_gradient = jax.jit(jax.value_and_grad(lambda x: d3pm.direct_kl(process, x, x0, xt, t).sum()))
    value, gradient = value_and_gradient(log_q + 7.0)
    np.testing.assert_allclose(value, 0.0, atol=1e-14)
    np.testing.assert_allclose(gradient, 0.0, atol=1e-14)
    _, gradient = value_and_gradient(jnp.zeros((2, 3)))
    np.testing.assert_allclose(gradient, 1 / 3 - np.exp(log_q), atol=1e-14)
