"""Objectives in continuous time against sums over all x_t, many steps and all orders, in float64."""

import itertools
import re

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from scipy import special

import d3pm_jax as d3pm
from d3pm_jax import config as configs
from d3pm_jax.config import check_fields
from d3pm_jax.losses import gidd, score_entropy
from d3pm_jax.schedules.continuous import linear
from d3pm_jax.timesteps import StepNoise
from d3pm_jax.training.state import init_state
from d3pm_jax.training.step import make_step

L = 3
pytestmark = pytest.mark.usefixtures("x64")
LOGITS = np.random.default_rng(3).normal(size=(4**L, L, 4)) * 1.5  # the network: any function of x_t
ORDERS = np.array(list(itertools.permutations(range(L)))) / L


def states(K):
    return np.array(list(itertools.product(range(K), repeat=L)))


def network(xt, K, mask_id):
    """Logits of x_0 from all of x_t, without time."""
    logits = jnp.asarray(LOGITS)[xt @ (K ** np.arange(L))][..., :K]
    if mask_id is None:
        return logits
    return d3pm.forbid(logits, mask_id)


@jax.jit
def chain_rules():
    """-log p of every x_0 of three categories and a mask, in every order: [6, 27]."""
    x0 = jnp.asarray(np.tile(states(3), (len(ORDERS), 1)))
    order = jnp.asarray(np.repeat(ORDERS, 27, axis=0))
    return d3pm.chain_rule(lambda xt: network(xt, 4, 3), x0, order, 3).sum(1).reshape(len(ORDERS), 27)


def in_order(x, order):
    """-log p of one example, a place at a time, in NumPy."""
    xt = np.full(L, 3)
    total = 0.0
    for place in np.argsort(order):
        logits = LOGITS[xt @ 4 ** np.arange(L), place, :3]
        total -= logits[x[place]] - np.log(np.exp(logits).sum())
        xt[place] = x[place]
    return total


def test_the_chain_rule_is_the_likelihood_of_filling_in_one_place_after_the_other():
    nats = np.asarray(chain_rules())
    np.testing.assert_allclose(np.exp(-nats).sum(1), 1, rtol=1e-12)
    expected = [[in_order(x, order) for x in states(3)] for order in ORDERS]
    np.testing.assert_allclose(nats, expected, rtol=1e-12)
    assert np.ptp(nats, axis=0).min() > 1e-3  # the orders differ


@pytest.mark.parametrize("shape", [(0, 3), (2, 0), (0, 2, 2)])
def test_the_chain_rule_of_no_elements(shape):
    x0 = jnp.zeros(shape, jnp.int32)
    nats = d3pm.chain_rule(lambda xt: jnp.zeros((*xt.shape, 4)), x0, jnp.zeros(shape), 3)
    assert nats.shape == shape


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_the_chain_rule_of_logits_of_16_bits_is_that_of_their_values(dtype):
    logits = jnp.asarray(np.random.default_rng(0).normal(size=(1, 4, 50)), dtype)
    x0 = jnp.arange(4)[None]
    nats = d3pm.chain_rule(lambda xt: logits, x0, jnp.arange(4.0)[None] / 4, 50)
    assert nats.dtype == jnp.float32
    expected = -np.asarray(jax.nn.log_softmax(logits.astype(jnp.float32)))[0, range(4), range(4)]
    np.testing.assert_allclose(nats[0], expected, rtol=1e-6)


def every_pair(data, K):
    """Every x_0 of the data with every x_t, [data^L K^L, L] each."""
    i, j = np.meshgrid(np.arange(data**L), np.arange(K**L), indexing="ij")
    return states(data)[i.reshape(-1)], states(K)[j.reshape(-1)]


def expectation(objective, K, data, mask_id, nodes, power):
    """The mean of the objective over times in (0, 1] and all x_t, of every x_0: Gauss and Legendre's nodes.

    Times are s^power, so that logarithms at time 0 do no harm.
    """
    # The nodes are those of [-1, 1], moved to [0, 1].
    s, w = np.polynomial.legendre.leggauss(nodes)
    s = (s + 1) / 2
    w = w / 2
    time = s**power
    weight = w * power * s ** (power - 1)
    x0, xt = every_pair(data, K)
    process = d3pm.uniform(d3pm.reciprocal(1), K)  # T = 1: t is time
    alpha = objective.alpha.continuous()

    @jax.jit
    def at(time):
        level = alpha(time)
        n = jnp.full(len(x0), time)
        if mask_id is None:
            q = jnp.where(x0 == xt, level.alpha, 0.0) + level.beta / K
        else:
            q = jnp.where(x0 == xt, level.alpha, 0.0) + jnp.where(xt == mask_id, level.beta, 0.0)
        logits = network(jnp.asarray(xt), K, mask_id)
        terms = objective.terms(process, logits, jnp.asarray(x0), jnp.asarray(xt), n, jnp.ones(len(x0)))
        by_pair = jnp.where(q.prod(1) > 0, q.prod(1) * terms.loss.sum(1), 0.0)
        return by_pair.reshape(data**L, -1).sum(1)

    return sum(float(b) * np.asarray(at(jnp.asarray(a))) for a, b in zip(time, weight, strict=True))


@pytest.mark.parametrize("alpha", [configs.Reciprocal(), configs.Polynomial(2.0)])
def test_the_absorbing_objective_is_the_mean_over_orders_of_the_chain_rule(alpha):
    objective = configs.ContinuousAbsorbing(alpha)
    mean = expectation(objective, 4, 3, 3, nodes=8, power=1)
    np.testing.assert_allclose(mean, np.asarray(chain_rules()).mean(0), rtol=1e-12)


def discrete_bound(process, data, mask_id):
    """The bound of every x_0: all t, all x_t that it can become."""
    K = process.K
    T = process.T
    x0, xt = every_pair(data, K)
    if mask_id is not None:
        possible = ((xt == x0) | (xt == mask_id)).all(1)
        x0 = x0[possible]
        xt = xt[possible]
    x0 = jnp.asarray(x0)
    xt = jnp.asarray(xt)

    @jax.jit
    def total(process):
        def step(t):
            log_q = jnp.take_along_axis(process.log_q_probs(x0, t), xt[..., None], axis=-1)[..., 0].sum(1)
            ts = jnp.full(len(x0), t)
            kl = d3pm.posterior_kl(process, network(xt, K, mask_id), x0, xt, ts, belief="leave_one_out")
            term = jnp.where(log_q > -jnp.inf, jnp.exp(log_q) * kl.sum(1), 0.0)
            return term, jnp.exp(log_q).reshape(data**L, -1).sum(1)

        terms, q_of_all = jax.lax.map(step, jnp.arange(1, T + 1))
        by_x0 = terms.sum(0).reshape(data**L, -1).sum(1)
        return by_x0 + d3pm.prior_kl(process, jnp.asarray(states(data))).sum(1), q_of_all

    bound, q_of_all = total(process)
    np.testing.assert_allclose(q_of_all, 1, rtol=1e-12)  # no x_t is left out
    return np.asarray(bound)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("objective", "K", "mask_id"),
    [
        (configs.ContinuousAbsorbing(configs.Polynomial(2.0)), 4, 3),
        (configs.ContinuousUniform(configs.Cosine(0.0, 1.0)), 3, None),
    ],
)
def test_an_objective_is_the_limit_of_the_bound_of_many_steps(objective, K, mask_id):
    """The bound of T steps misses it by c / T, and extrapolated from three T by less than 1e-7."""
    power = 4 if mask_id is None else 1
    limit = expectation(objective, K, 3, mask_id, nodes=200, power=power)
    bounds = []
    for T in (256, 512, 1024):
        beta = objective.alpha.build(T)
        if mask_id is None:
            process = d3pm.uniform(beta, K)
        else:
            process = d3pm.absorbing(beta, K, mask_id)
        bounds.append(discrete_bound(process, 3, mask_id))
    gaps = np.array(bounds) - limit
    assert np.all(np.abs(gaps[:-1] - 2 * gaps[1:]).max(1) < 0.02 * np.abs(gaps[:-1]).max(1))
    once = 2 * np.array(bounds[1:]) - bounds[:-1]
    twice = (4 * once[1:] - once[:-1]) / 3
    assert np.abs(twice[-1] - limit).max() < 1e-7


def test_a_training_step_in_continuous_time_minimises_the_objective_and_reports_the_bound():
    """A network that says nothing, at times of 1..T = 128: the bound is log 3 nats, in bits/dim log2 3."""
    loss = configs.ContinuousAbsorbing(configs.Polynomial(2.0))
    spread = configs.RealTimes()
    process = d3pm.absorbing(d3pm.polynomial(128, 2.0), 4, 3)
    loss.check_process(process)
    times = []

    def predict(params, xt, time, key=None):
        times.append(time)
        return d3pm.forbid(jnp.broadcast_to(params, (*xt.shape, 4)), 3)

    update = make_step(loss, spread, optax.sgd(0.0), predict, 0.9)
    x0 = jnp.zeros((20_000, 4), jnp.int32)
    state = init_state(jnp.zeros(4), optax.sgd(0.0))
    _, metrics = update(state, process, {"x": x0}, jax.random.key(0))
    np.testing.assert_allclose(metrics["loss"], np.log(3), rtol=0.02)
    np.testing.assert_allclose(metrics["kl"] * 128, metrics["loss"], rtol=1e-9)
    assert times[0].dtype == jnp.float64
    time, _ = spread.draw(jax.random.key(0), None, 1000, 128)
    assert time.min() > 0
    assert 127 < time.max() <= 128


def test_times_that_are_drawn_more_often_count_less():
    loss = configs.ContinuousUniform()
    process = d3pm.uniform(d3pm.reciprocal(8), 3)
    args = process, jnp.zeros((2, 4, 3)), jnp.zeros((2, 4), jnp.int32), jnp.ones((2, 4), jnp.int32)
    t = jnp.asarray([3.0, 3.0])
    once, half = loss.terms(*args, t, jnp.asarray([1 / 8, 1 / 4])).loss
    np.testing.assert_allclose(once, 2 * half, rtol=1e-12)


@pytest.mark.parametrize(
    "process",
    [
        lambda: d3pm.absorbing(d3pm.reciprocal(8), 4, 2),  # another mask
        lambda: d3pm.absorbing(d3pm.polynomial(8, 2.0), 4, 3),  # another schedule
        lambda: d3pm.uniform(d3pm.reciprocal(8), 4),
    ],
)
def test_another_process_than_that_of_the_objective_is_refused(process):
    with pytest.raises(ValueError, match=r"ContinuousAbsorbing .* does not fit this process: .* at t = "):
        configs.ContinuousAbsorbing().check_process(process())


def test_early_times_are_drawn_more_often_by_a_power_and_their_density_is_told():
    t, p_t = configs.RealTimes(2.0).draw(jax.random.key(0), None, 1000, 8)
    np.testing.assert_allclose(p_t, 1 / (2 * np.sqrt(8 * t)), rtol=1e-12)
    assert np.mean(t < 2) == pytest.approx(0.5, abs=0.002)  # u < 1/2
    np.testing.assert_allclose(np.mean(t / p_t), 8**2 / 2, rtol=1e-3)  # the integral of t over (0, 8]


def test_gidd_counts_the_bound_by_its_own_weights_and_minimises_others_by_name():
    """At times of density 2 / T: kl is a T-th of the bound, the loss half of what its weight says."""
    process = d3pm.interpolating(8, 4, 3, 0.2)
    logits = d3pm.forbid(jnp.asarray(LOGITS[:2]), 3)
    x0, xt = jnp.asarray([[0, 1, 2], [0, 1, 2]]), jnp.asarray([[0, 3, 1], [3, 1, 2]])
    t, p_t = jnp.asarray([1.0, 6.0]), jnp.asarray([2 / 8, 2 / 8])

    @jax.jit
    def by_weight():
        losses = gidd.gidd_nelbo(logits, x0, xt, t / 8, 3, 0.2, 1.0)
        names = losses._fields
        terms = [configs.GIDD(0.2, weights=n).terms(process, logits, x0, xt, t, p_t) for n in names]
        return losses, terms

    losses, every_term = by_weight()
    for loss, terms in zip(losses, every_term, strict=True):
        np.testing.assert_allclose(terms.loss, loss / 2, rtol=1e-12)
        np.testing.assert_allclose(terms.kl, losses.bound / 8, rtol=1e-12)


@pytest.mark.parametrize(
    "process",
    [
        lambda: d3pm.interpolating(8, 4, 2, 0.2),  # another mask
        lambda: d3pm.interpolating(8, 4, 3, 0.3),
        lambda: d3pm.absorbing(d3pm.reciprocal(8), 4, 3),
        lambda: d3pm.autoregressive(8, 4, 3),
        lambda: d3pm.by_place([d3pm.uniform(d3pm.reciprocal(8), 3)] * 2),
    ],
)
def test_another_process_than_that_of_gidd_is_refused(process):
    configs.GIDD(0.2).check_process(d3pm.interpolating(8, 4, 3, 0.2))
    with pytest.raises(ValueError, match=r"GIDD\(.* does not fit this process: take process = Interpolating"):
        configs.GIDD(0.2).check_process(process())


@pytest.mark.parametrize(
    ("part", "message"),
    [
        (lambda: configs.GIDD(1.0), "p_uniform = 1.0: it must be a finite number in [0, 1)"),
        (lambda: configs.GIDD(0.2, 3.0), "gamma = 3.0: it must be a finite number above 0, at most 2"),
        (lambda: configs.Interpolating(4, 8, 3, 0.2, 2.5), "gamma = 2.5: it must be a finite number above 0"),
        (lambda: configs.RealTimes(0.0), "power = 0.0: it must be a finite number above 0"),
    ],
)
def test_numbers_that_gidd_has_no_noise_for_are_refused_in_a_line(part, message):
    with pytest.raises(ValueError, match=re.escape(message)) as caught:
        check_fields("", part())
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("T", [1, 2, 10])
def test_uniform_scores_end_a_step_before_alpha_does_and_begin_with_a_prior(T):
    """Fixed scores, whose integral up to time 1 is infinite; with one step nothing but the prior is left."""
    rng = np.random.default_rng(T)
    fixed = jnp.asarray(rng.normal(size=3))
    x0 = jnp.asarray(rng.integers(0, 3, (4, 2)))
    u = jnp.asarray(rng.random((4, 2)))
    t = jnp.asarray([0.1, 0.4, 0.7, 1.0]) * T
    process = d3pm.uniform(d3pm.reciprocal(T), 3)
    objective = configs.ScoreEntropy()

    def network(x, time):
        return d3pm.heads.log_scores(jnp.broadcast_to(fixed, (*x.shape, 3)), x)

    terms = objective.compute(process, network, x0, StepNoise(t, jnp.full(4, 1 / T), u), None)
    end = 1 - 1 / T
    xt = objective.draw(process, x0, end * t, u)
    loss = score_entropy.uniform_score_entropy(linear, network(xt, t), x0, xt, end * t / T)
    q = (1 - end) * np.eye(3) + end / 3
    prior = special.xlogy(q, 3 * q).sum(1)[np.asarray(x0)]
    np.testing.assert_allclose(terms.loss, end * loss + prior, rtol=1e-12)
    np.testing.assert_allclose(terms.kl * T, end * loss + prior, rtol=1e-12)
