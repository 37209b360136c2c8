"""Enumerated laws of samplers that reveal places, of a network that is inconsistent and sees the time."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import d3pm_jax as d3pm
from d3pm_jax import sampling
from d3pm_jax.sampler_laws import enumerate_sampler
from d3pm_jax.sampling import Denoiser, LawStep, Sampler, named
from d3pm_jax.sampling.correctors import Corrected, Gibbs
from d3pm_jax.sampling.places import LeftToRight, One, RandomOrder, Reveal
from d3pm_jax.sampling.shaping import Shaping
from d3pm_jax.sampling.speculative import Speculative
from d3pm_jax.sampling.transitions import LeastConfident, Remask, Stratified

L = 3
K = 4  # three categories and a mask
TABLE = np.random.default_rng(0).normal(size=(L + 1, K**L, L, K)) * 1.5
POWERS = K ** np.arange(L)[::-1]

pytestmark = pytest.mark.usefixtures("x64")


def network(x, time):
    return d3pm.forbid(jnp.asarray(TABLE)[time, x @ jnp.asarray(POWERS)], K - 1)


def shaped_network(x, time):
    """What `SHAPING` makes of the network at masks, in NumPy; a place that is visible stays what it is."""
    logits = TABLE[..., : K - 1]
    second = np.sort(logits, axis=-1)[..., -2:-1]
    kept = np.where(logits >= second, 2 * logits, -np.inf)
    table = np.pad(kept, ((0, 0), (0, 0), (0, 0), (0, 1)), constant_values=-np.inf)
    at_masks = jnp.asarray(table)[time, x @ jnp.asarray(POWERS)]
    return jnp.where((x == K - 1)[..., None], at_masks, network(x, time))


SHAPING = Shaping(temperature=0.5, top_k=2)


def enumerate_law(sampler, network=network):
    process = d3pm.absorbing(d3pm.reciprocal(L), K, K - 1)
    return enumerate_sampler(sampler, process, L, network)


@pytest.mark.parametrize(
    "sampler",
    [
        named.blocks(),
        named.random_order(),
        *(
            pytest.param(sampler, marks=pytest.mark.slow)
            for sampler in (
                named.gibbs(),
                named.predictor_corrector(),
                named.remdm_confidence(),
                named.stratified(),
                named.maskgit(2),
                named.entropy_bound(0.5),
                named.p2(2, 0.0),
                named.speculative(2),
            )
        ),
    ],
    ids=repr,
)
def test_a_shaped_network_is_enumerated_as_if_it_said_so_itself(sampler):
    shaped = dataclasses.replace(sampler, shaping=SHAPING)
    law = enumerate_law(shaped).law
    np.testing.assert_allclose(law, enumerate_law(sampler, shaped_network).law, atol=1e-12)
    np.testing.assert_allclose(law.sum(), 1, rtol=1e-12)


@dataclasses.dataclass(frozen=True)
class OwnStep(LawStep):
    def law(self, view, answer):
        return answer.log_denoiser


@dataclasses.dataclass(frozen=True)
class OwnCount(One):
    pass


@pytest.mark.parametrize(
    ("sampler", "said"),
    [
        (named.repaint(2), "passes = 2 cannot be enumerated"),
        (Sampler(Reveal(), block=1), "blocks of Reveal cannot"),
        (Sampler(Speculative(2), block=1), "blocks of Speculative cannot"),
        (Sampler(Corrected(Gibbs()), block=1), "blocks of Corrected cannot"),
        (Sampler(Stratified(), block=1), "blocks of Stratified cannot"),
        (Sampler(Remask(LeastConfident()), block=1), "blocks of Remask cannot"),
        (Sampler(Corrected(Gibbs(), Stratified())), "a corrector between rows of Stratified"),
        (Sampler(Corrected(Gibbs(), Remask(LeastConfident()))), "a corrector between rows of Remask"),
        (Sampler(OwnStep()), "OwnStep cannot be enumerated"),
        (Sampler(Corrected(Gibbs(), OwnStep())), "OwnStep cannot be enumerated"),
        (Sampler(Reveal(RandomOrder(), OwnCount())), "OwnCount cannot be enumerated"),
        (Sampler(block=2), "block = 2 does not divide"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_is_not_enumerated_is_refused_at_the_door(sampler, said):
    with pytest.raises(ValueError, match=said) as refused:
        enumerate_law(sampler)
    assert "\n" not in str(refused.value)


@pytest.mark.slow
def test_drafts_have_the_law_of_one_place_a_call():
    for order in (RandomOrder(), LeftToRight()):
        expected = enumerate_law(Sampler(Reveal(order))).law
        for drafts in (1, 2, 3, 4):
            checked = Sampler(Speculative(drafts, order))
            np.testing.assert_allclose(enumerate_law(checked).law, expected, atol=1e-12)


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
