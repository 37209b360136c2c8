"""Objectives of networks that fill in masks, enumerated in float64: K = 3, L = 2, every x_0 and every x_t."""

import itertools
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import d3pm_jax as d3pm
from d3pm_jax import blocks, config as configs, sampling
from d3pm_jax.timesteps import StepNoise

K = 3
L = 2
MASK = K
pytestmark = pytest.mark.usefixtures("x64")
STATES = np.array(list(itertools.product(range(K), repeat=L)))
TABLE = np.random.default_rng(5).dirichlet(np.ones(K**L))  # p(x_0)
VECTORS = np.random.default_rng(6).normal(size=(4, K + 1, 6))
WEIGHTS = np.random.default_rng(7).normal(size=(6, K + 1))
PROCESS = d3pm.absorbing(d3pm.reciprocal(1), K + 1, mask_id=MASK)  # T = 1: t is time


def attended_of(x, layout):
    """Which place of an example each place is, and which places each attends to: all without a layout."""
    if layout is None:
        return jnp.arange(x.shape[1]), jnp.ones((x.shape[1],) * 2, bool)
    return layout.places, layout.attended


def exact(x, time, layout=None):
    """log p(x_0 at a place | what it attends to that is no mask)."""
    places, attended = attended_of(x, layout)
    agrees = (jnp.asarray(STATES).T[places][None] == x[..., None]) | (x[..., None] == MASK)  # [N, n, states]
    possible = (agrees[:, None] | ~attended[None, :, :, None]).all(2)  # [N, n, states]
    is_category = jax.nn.one_hot(jnp.asarray(STATES).T[places], K + 1)  # [n, states, K + 1]
    return jnp.log(jnp.einsum("nps,psk->npk", possible * jnp.asarray(TABLE)[None, None], is_category))


def inexact(x, time, layout=None):
    """Any function of what a place attends to."""
    places, attended = attended_of(x, layout)
    seen = jnp.einsum("pq,nqe->npe", attended * 1.0, jnp.asarray(VECTORS)[places[None], x])
    return d3pm.forbid(jnp.tanh(seen) @ jnp.asarray(WEIGHTS), MASK)


@partial(jax.jit, static_argnums=(0, 1))
def mean_over_time(objective, network):
    """The mean of the objective over times in (0, 1] and all x_t, of every x_0, [9].

    Of a polynomial of time between two times at which a block begins anew: Gauss and Legendre's nodes.
    """
    s, w = np.polynomial.legendre.leggauss(4)
    starts = np.arange(L) / L
    time = (starts[:, None] + (s + 1) / (2 * L)).reshape(-1)
    share = np.tile(w / (2 * L), L)
    masked = np.array(list(itertools.product([False, True], repeat=L)))
    grid = np.meshgrid(np.arange(len(time)), np.arange(len(STATES)), np.arange(len(masked)), indexing="ij")
    i, x0, j = (x.reshape(-1) for x in grid)
    noise = StepNoise(jnp.asarray(time[i]), jnp.ones(len(i)), jnp.where(masked[j], 0.0, 1 - 1e-12))
    terms = objective.compute(PROCESS, network, jnp.asarray(STATES)[x0], noise, None)
    block = getattr(objective, "block", L)
    own = jnp.repeat(blocks.block_times(noise.t, L // block), block, axis=1)
    # Of a block all that is in it counts, and the mean over what is in others is taken too.
    q = jnp.prod(jnp.where(masked[j], own, 1 - own), axis=1)
    terms = (share[i] * q * terms.loss.sum(1)).reshape(len(time), len(STATES), -1)
    return terms.sum((0, 2))


@pytest.mark.parametrize("block", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_exact_beliefs_make_the_bound_of_blocks_the_likelihood_of_every_example(block):
    nats = mean_over_time(configs.Blocks(block=block), exact)
    np.testing.assert_allclose(nats, -np.log(TABLE), rtol=1e-12)


@pytest.mark.slow
def test_blocks_of_one_place_are_the_chain_rule_and_one_of_all_is_the_bound_without():
    x0 = jnp.asarray(STATES)
    order = jnp.broadcast_to(jnp.arange(L) / L, x0.shape)
    network = blocks.fill_blocks(inexact, 1)
    chain = d3pm.chain_rule(lambda xt: network(xt, None), x0, order, MASK).sum(1)
    np.testing.assert_allclose(mean_over_time(configs.Blocks(block=1), inexact), chain, rtol=1e-12)
    plain = mean_over_time(configs.ContinuousAbsorbing(), inexact)
    np.testing.assert_allclose(mean_over_time(configs.Blocks(block=2), inexact), plain, rtol=1e-12)
    assert np.abs(plain - chain).max() > 1e-2


@pytest.mark.slow
def test_any_order_is_the_absorbing_bound_in_the_mean():
    """Over the numbers of masks, which real times choose, and the orders of u; padding changes no other."""
    n, u = (np.array(x) for x in zip(*itertools.product((0.2, 0.9), ([0.1, 0.6], [0.7, 0.3])), strict=True))
    x0 = jnp.asarray(np.repeat(STATES, len(n), axis=0))
    t = jnp.asarray(np.tile(n, len(STATES)))
    noise = StepNoise(t, jnp.ones(len(t)), jnp.asarray(np.tile(u, (len(STATES), 1))))
    objective = configs.AnyOrder()
    terms = objective.compute(PROCESS, inexact, x0, noise, None)
    plain = mean_over_time(configs.ContinuousAbsorbing(), inexact)
    np.testing.assert_allclose(terms.loss.sum(1).reshape(-1, len(n)).mean(1), plain, rtol=1e-12)

    # Of one place that counts the mask is always there, and its weight 1.
    weight = jnp.tile(jnp.asarray([[1.0, 0.0]]), (len(t), 1))
    terms = objective.compute(PROCESS, inexact, x0, noise, weight)
    logits = inexact(x0.at[:, 0].set(MASK), None)
    ce = -np.take_along_axis(np.asarray(d3pm.log_normalize(logits)), np.asarray(x0)[..., None], -1)[..., 0]
    np.testing.assert_allclose(terms.loss, ce * np.array([1.0, 0.0]), rtol=1e-12)


@pytest.mark.slow
def test_training_at_some_times_has_weights_of_its_own_and_no_bound():
    """At times 0.45 and 0.7 of (0.2, 0.7] 1 / t of the masked, and 1 where low is above 0.5; 0 elsewhere."""
    is_masked = np.array([[True, False], [True, True]])
    noise = StepNoise(jnp.asarray([0.5, 1.0]), jnp.ones(2), jnp.where(is_masked, 0.0, 0.9))
    x0 = jnp.asarray(STATES[[1, 5]])
    layout = blocks.block_layout(L, 2)
    xt = jnp.where(is_masked, MASK, x0)
    logits = inexact(jnp.concatenate([xt, x0], axis=1), None, layout)[:, :L]
    ce = -np.take_along_axis(np.asarray(d3pm.log_normalize(logits)), STATES[[1, 5]][..., None], -1)[..., 0]
    for low, high, weights in ((0.2, 0.7, 1 / np.array([0.45, 0.7])), (0.6, 1.0, np.ones(2))):
        objective = configs.Blocks(block=2, low=low, high=high)
        terms = objective.compute(PROCESS, inexact, x0, noise, None)
        np.testing.assert_allclose(terms.loss, is_masked * weights[:, None] * ce, rtol=1e-12)
        assert objective.of_bound() == configs.Blocks(block=2)


@pytest.mark.slow
def test_samples_of_blocks_have_the_law_that_is_enumerated_block_after_block():
    """Two blocks of two places, two steps each, of a network that is not exact; counts of 20,000 chains."""
    n = 20_000
    process = d3pm.absorbing(d3pm.reciprocal(2), K + 1, mask_id=MASK)
    objective = configs.Blocks(block=2)
    network = objective.without_layout(inexact)

    @partial(jax.jit, static_argnums=1)
    def law_of_block(past, start):
        def denoise(xt, time):
            x = jnp.full((len(xt), 4), MASK).at[:, :start].set(past[None, :start])
            return network(x.at[:, start : start + 2].set(xt), time)[:, start : start + 2]

        log_law = d3pm.enumeration.chain_law(denoise, process, (2,), "leave_one_out")
        return jnp.exp(log_law).reshape(K + 1, K + 1)[:K, :K].reshape(-1)  # without masks

    first = law_of_block(jnp.full(4, MASK), 0)
    pasts = jnp.asarray(np.pad(STATES, [(0, 0), (0, 2)]))
    law = np.asarray(first)[:, None] * np.stack([law_of_block(past, 2) for past in pasts])
    np.testing.assert_allclose(law.sum(), 1, rtol=1e-12)

    denoiser = objective.make_denoiser(process, network)
    draw = jax.jit(lambda key: sampling.sample(key, denoiser, (n, 4), objective.default_sampler()).x0)
    counts = np.bincount(np.asarray(draw(jax.random.key(0))) @ K ** np.arange(3, -1, -1), minlength=K**4) / n
    assert np.abs((counts - law.reshape(-1)) / np.sqrt(law.reshape(-1) / n)).max() < 4.5


@pytest.mark.slow
def test_the_generalised_kl_of_exact_beliefs_is_a_bound_that_is_not_tight():
    """By 0.51 of 1.77 nats for this table, a number from NumPy; times are u^4 / (u^4 + (1 - u)^4)."""
    u, w = np.polynomial.legendre.leggauss(60)
    u = (u + 1) / 2
    both = u**4 + (1 - u) ** 4
    time = u**4 / both
    share = w / 2 * 4 * u**3 * (1 - u) ** 3 / both**2  # w d time / d u
    process = d3pm.uniform(d3pm.reciprocal(1), K)
    objective = configs.GeneralizedKL()

    @jax.jit
    def nats_at(time):
        q = (1 - time) * jnp.eye(K) + time / K
        q = q[STATES[:, None], STATES[None]].prod(-1)  # [x_0, x_t]
        joint = jnp.asarray(TABLE)[:, None] * q
        denoiser = jnp.einsum("sx,slk->xlk", joint / joint.sum(0)[None], jax.nn.one_hot(STATES, K))
        x0, xt = (x.reshape(-1) for x in np.indices(q.shape))
        ones = jnp.ones(len(x0))
        x = jnp.asarray(STATES)
        terms = objective.terms(process, jnp.log(denoiser)[xt], x[x0], x[xt], time * ones, ones)
        return (q * terms.loss.sum(1).reshape(q.shape)).sum(1)

    nats = np.asarray(jax.lax.map(nats_at, jnp.asarray(time))).T @ share
    assert (nats > -np.log(TABLE)).all()
    np.testing.assert_allclose(TABLE @ (nats + np.log(TABLE)), 0.5129959021102516, rtol=1e-9)


REFUSED = {
    "low = 0.5 is not below high = 0.5": lambda: configs.Blocks(low=0.5, high=0.5).check(),
    "block = 4 does not divide length = 6": lambda: configs.Blocks().network_layout((6,)),
    r"loss = Blocks is for sequences \[L\], and examples are \[8, 8, 1\]": lambda: (
        configs.Blocks().network_layout((8, 8, 1))
    ),
    "sampler.block = None, and loss = Blocks": lambda: configs.Blocks().check_sampler(sampling.Sampler()),
    "sampler.block = 3, and loss = Blocks": lambda: configs.Blocks().check_sampler(sampling.Sampler(block=3)),
    "a known place is in a later block": lambda: configs.Blocks(block=2).check_known(
        np.array([True, False, True, False])
    ),
    "needs an absorbing process": lambda: configs.AnyOrder().check_process(
        d3pm.uniform(d3pm.reciprocal(2), 3)
    ),
    "draws some times more often, and each block has its own": lambda: configs.Blocks().check_beside(
        configs.Head(), configs.RealTimes(power=2.0)
    ),
    "AnyOrder needs real times": lambda: configs.AnyOrder().check_beside(
        configs.Head(), configs.LowDiscrepancy()
    ),
}


@pytest.mark.parametrize("words", REFUSED)
def test_what_cannot_be_is_refused_in_a_line(words):
    with pytest.raises(ValueError, match=words) as error:
        REFUSED[words]()
    assert "\n" not in str(error.value)


def test_first_places_may_be_known():
    objective = configs.Blocks(block=2)
    objective.check_known(np.array([[True, True, True, False], [False, True, False, False]]))
    objective.check_sampler(sampling.Sampler(block=1))
