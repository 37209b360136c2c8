"""Enumerated laws of samplers that reveal places, of a network that is inconsistent and sees the time."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import d3pm_jax as d3pm
from d3pm_jax import sampling
from d3pm_jax.judge.enumerated import enumerate_sampler
from d3pm_jax.sampling import Denoiser, Sampler, named
from d3pm_jax.sampling.places import LeftToRight, Reveal
from d3pm_jax.sampling.speculative import Speculative

L = 3
K = 4  # three categories and a mask
TABLE = np.random.default_rng(0).normal(size=(L + 1, K**L, L, K)) * 1.5
POWERS = K ** np.arange(L)[::-1]

pytestmark = pytest.mark.usefixtures("x64")


def network(x, time):
    return d3pm.forbid(jnp.asarray(TABLE)[time, x @ jnp.asarray(POWERS)], K - 1)


def enumerate_law(sampler):
    process = d3pm.absorbing(d3pm.reciprocal(L), K, K - 1)
    return enumerate_sampler(sampler, process, L, network)


@pytest.mark.slow
def test_drafts_have_the_law_of_one_place_a_call():
    for drafts in (1, 2, 3, 4):
        for checked, one in (
            (named.speculative(drafts), named.random_order()),
            (Sampler(Speculative(drafts, LeftToRight())), Sampler(Reveal(LeftToRight()))),
        ):
            np.testing.assert_allclose(enumerate_law(checked).law, enumerate_law(one).law, atol=1e-12)


@pytest.mark.slow
@pytest.mark.parametrize(
    "sampler",
    [
        named.margin(0.0),
        named.margin(0.5),
        named.llada(2),
        named.p2(4, 1.3),
        named.p2(2, 0.0),
        named.speculative(3),
        named.maskgit(2),
    ],
)
def test_samples_are_of_the_enumerated_law(sampler):
    """Within 5 standard errors for each of 27 outcomes."""
    N = 20_000
    enumerated = enumerate_law(sampler)
    process = d3pm.absorbing(d3pm.reciprocal(L), K, K - 1)

    @jax.jit
    def draw(process, key):
        return sampling.sample(key, Denoiser(process, network, "leave_one_out"), (N, L), sampler)

    chain = draw(process, jax.random.key(0))
    counts = np.bincount(np.asarray(chain.x0) @ (3 ** np.arange(L)[::-1]), minlength=27)
    law = enumerated.law
    np.testing.assert_allclose(law.sum(), 1, rtol=1e-12)
    assert np.all(np.abs(counts / N - law) <= 5 * np.sqrt(law * (1 - law) / N) + 1e-9)
    calls = np.asarray(chain.calls)
    assert abs(calls.mean() - enumerated.calls) <= 5 * calls.std() / N**0.5 + 1e-9
