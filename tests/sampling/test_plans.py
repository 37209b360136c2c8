"""What samplers, their slots and their plans refuse: one line that names the value and what would work."""

import dataclasses
import re

import jax
import jax.numpy as jnp
import jaxtyping
import numpy as np
import pytest

import d3pm_jax as d3pm
from d3pm_jax import sampling
from d3pm_jax.processes import Process
from d3pm_jax.sampling import (
    Denoiser,
    Known,
    PartWay,
    Row,
    Sampler,
    Shaping,
    correctors as c,
    make_plan,
    named,
    places,
    transitions as tr,
)
from d3pm_jax.sampling.speculative import Speculative
from tests.sampling.cases import CASES

K = 4
T = 6
L = 4
ABSORBING = d3pm.absorbing(d3pm.reciprocal(T), K, K - 1)
UNIFORM = d3pm.uniform(d3pm.reciprocal(T), K)
DENSE = d3pm.dense(np.full((T, K, K), 1 / K))
MASKED = d3pm.masked(d3pm.uniform(d3pm.reciprocal(T), K - 1), d3pm.reciprocal(T))
INTERPOLATING = d3pm.interpolating(T, K, K - 1, 0.2)
DOWN = tuple(Row(t, t, t - 1) for t in range(T, 0, -1))

# What makes a slot that cannot be, and what the message says.
SLOTS = {
    "c = 1.5: it must be a finite number in [0, 1]": lambda: named.ddim(1.5),
    "kappa = -0.1: it must be a finite number in [0, 1]": lambda: named.psi(-0.1),
    "kappa = nan: it must be a finite number in [0, 1]": lambda: named.psi(float("nan")),
    "eta = 2.0: it must be a finite number in [0, 1]": lambda: named.remdm_cap(2.0),
    "eta = -1.0: it must be a finite number in [0, 1]": lambda: named.remdm_rescale(-1.0),
    "rows = 2: it must be a whole number in 3..": lambda: named.remdm_loop(rows=2),
    "alpha = 1.2: it must be a finite number in [0, 1]": lambda: named.remdm_loop(alpha=1.2),
    "held = 1.5: it must be a finite number in [0, 1]": lambda: tr.WhileHeld(1.5),
    "rows = 0: it must be a whole number in 1..": lambda: named.maskgit(0),
    "temperature = -1.0: it must be a finite number of at least 0": lambda: named.maskgit(4, -1.0),
    "threshold = 0.0: it must be a number above 0, or infinity": lambda: named.fast_dllm_threshold(0.0),
    "threshold = nan: it must be a number above 0": lambda: named.fast_dllm_threshold(float("nan")),
    "noise = -1.0: it must be a finite number of at least 0": lambda: named.margin(-1.0),
    "eta = -0.1: it must be a finite number of at least 0": lambda: named.p2(eta=-0.1),
    "drafts = 0: it must be": lambda: named.speculative(0),
    "the order of drafts is drawn before them, but LeastEntropy() looks at the law: order by": (
        lambda: Speculative(order=places.LeastEntropy())
    ),
    "factor = -1.0: it must be a number above 0, or infinity": lambda: named.fast_dllm_factor(-1.0),
    "bound = -0.1: it must be a number of at least 0, or infinity": lambda: named.entropy_bound(-0.1),
    "bound = nan: it must be a number of at least 0, or infinity": lambda: named.entropy_bound(float("nan")),
    "block = 0: it must be a whole number in 1..": lambda: named.blocks(0),
    "moves = 0: it must be a whole number in 1..": lambda: named.gibbs(0),
    "moves = -1: it must be a whole number in 1..": lambda: named.predictor_corrector(-1),
    "h = 0.0: it must be a finite number above 0": lambda: named.predictor_corrector(1, 0.0),
    "top_p = 0.0: it must be a finite number above 0, at most 1": lambda: Shaping(top_p=0.0),
    "top_p = 1.1: it must be a finite number above 0, at most 1": lambda: Shaping(top_p=1.1),
    "top_p_below = nan: it must be a finite number above 0": lambda: Shaping(top_p_below=float("nan")),
    "temperature = 0.0: it must be a finite number above 0": lambda: Shaping(temperature=0.0),
    "top_k = 0: it must be a whole number in 1..": lambda: Shaping(top_k=0),
    "Threshold counts probabilities, but the order is RandomOrder()": lambda: places.Reveal(
        count=places.Threshold()
    ),
    "Factor counts probabilities, but the order is DrawnProbability(temperature=1.0)": lambda: places.Reveal(
        places.DrawnProbability(1.0), places.Factor()
    ),
    "EntropyBound counts entropies, but the order is LargestProbability()": lambda: places.Reveal(
        places.LargestProbability(), places.EntropyBound()
    ),
    "a corrector of rates leaps as the sampler does, but Keep does not": lambda: Sampler(
        c.Corrected(c.RateCorrector(), tr.Keep())
    ).check(UNIFORM),
    "passes = 0: it must be a whole number in 1..": lambda: named.repaint(0),
    "passes = 2: a place that was revealed is never noised again": lambda: Sampler(places.Reveal(), passes=2),
    "passes = 3: a block is drawn given clean ones before it": lambda: Sampler(block=2, passes=3),
    "noises_known = True: a place that was revealed": lambda: Sampler(places.Reveal(), noises_known=True),
    "noises_known = True: a block is drawn": lambda: Sampler(block=2, noises_known=True),
}


@pytest.mark.parametrize("message", SLOTS)
def test_a_slot_says_in_one_line_what_it_cannot_be(message):
    with pytest.raises((TypeError, ValueError)) as caught:
        SLOTS[message]()
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


# As a user makes them, without the checks of types that tests have: a class, its fields, and the message.
TYPES = [
    (tr.Keep, {"c": True}, "c = True: it must be a finite number in [0, 1]"),
    (tr.Mixture, {"kappa": "half"}, "kappa = 'half': it must be a finite number in [0, 1]"),
    (tr.Remask, {"schedule": 0.1}, "schedule is 0.1, expected a Sigma"),
    (tr.RemaskLoop, {"rows": 12.5}, "rows = 12.5: it must be a whole number in 3.."),
    (places.Cosine, {"rows": True}, "rows = True: it must be a whole number"),
    (places.FirstHitting, {"schedule": "linear"}, "schedule is 'linear', expected a function"),
    (c.Gibbs, {"moves": np.float64(1)}, "moves = np.float64(1.0): it must be a whole number"),
    (Shaping, {"top_k": 2.0}, "top_k = 2.0: it must be a whole number in 1.."),
    (Shaping, {"forbid": 3}, "forbid is 3, expected whole numbers: pass a tuple of ints"),
    (Sampler, {"block": 1.5}, "block = 1.5: it must be a whole number in 1.."),
    (Sampler, {"passes": 2.0}, "passes = 2.0: it must be a whole number in 1.."),
    (Sampler, {"noises_known": 1}, "noises_known is 1, expected"),
    (Sampler, {"step": "bayes"}, "step is 'bayes', expected a Step"),
    (c.Corrected, {"corrector": tr.Bayes()}, "expected a Corrector"),
    # A corrector moves x at a noise level, but revealed places are at none.
    (c.Corrected, {"corrector": c.Gibbs(), "between": places.Reveal()}, "expected a LawStep"),
]


def make_unchecked(slot_type, **fields):
    """A slot as its dataclass makes it, from fields of any type."""
    slot = object.__new__(slot_type)
    for field in dataclasses.fields(slot_type):
        object.__setattr__(slot, field.name, fields.get(field.name, field.default))
    slot.__post_init__()
    return slot


@pytest.mark.parametrize(("slot_type", "fields", "message"), TYPES)
def test_a_field_of_another_type_is_refused(slot_type, fields, message):
    expected = ValueError if "it must be" in message else TypeError
    with pytest.raises(expected) as caught:
        make_unchecked(slot_type, **fields)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_numbers_of_numpy_are_numbers():
    assert make_unchecked(tr.Keep, c=np.float32(0.5)) == tr.Keep(0.5)
    assert make_unchecked(c.Gibbs, moves=np.int64(2)) == c.Gibbs(2)
    assert make_unchecked(places.EntropyBound, bound=np.inf) == places.EntropyBound(float("inf"))
    assert make_unchecked(Shaping, forbid=[np.int32(3)]) == Shaping(forbid=(3,))
    assert hash(make_unchecked(Sampler, block=np.int16(2))) == hash(named.blocks(2))


FOR_MIXING = "needs a process that keeps x_0 or draws from pi (uniform, absorbing, marginal), not"
FOR_MASKS = "needs an absorbing process with an extra mask:"
REVEALING = (
    "first_hitting",
    "random_order",
    "least_entropy",
    "margin",
    "speculative",
    "maskgit",
    "llada",
    "p2",
    "fast_dllm_threshold",
    "fast_dllm_factor",
    "entropy_bound",
)
REMASKING = ("remdm_cap", "remdm_rescale", "remdm_confidence", "remdm_loop")
BY_PI = ("ddim", "tau_leaping", "euler", "tweedie", "predictor_corrector")
REFUSED = [
    *((name, p, FOR_MASKS) for name in REVEALING for p in (UNIFORM, DENSE, MASKED)),
    *((f"remdm_{x}", p, FOR_MASKS) for x in ("cap", "rescale", "confidence") for p in (UNIFORM, MASKED)),
    ("remdm_loop", UNIFORM, FOR_MASKS),
    ("blocks", UNIFORM, FOR_MASKS),
    *((name, p, FOR_MIXING) for name in BY_PI for p in (DENSE, INTERPOLATING)),
    *((name, INTERPOLATING, FOR_MASKS) for name in (*REVEALING, *REMASKING, "blocks")),
    *((name, MASKED, FOR_MIXING) for name in ("ddim", "tweedie", "predictor_corrector")),
    *((name, d3pm.autoregressive(L, K, K - 1), "elements each on its own") for name in ("gibbs",)),
]


def test_every_named_sampler_takes_the_noise_of_gidd_or_refuses_it():
    refused = {name for name, process, _ in REFUSED if process is INTERPOLATING}
    taken = {name for name, case in CASES.items() if "interpolating" in case.names}
    assert refused | taken == set(named.SAMPLERS)
    assert not refused & taken


@pytest.mark.parametrize(("name", "process", "message"), REFUSED)
def test_a_process_that_a_sampler_is_not_for_is_refused(name, process, message):
    with pytest.raises(ValueError, match=re.escape(message)) as caught:
        make_plan(named.SAMPLERS[name](), process, (L,))
    assert "\n" not in str(caught.value)


def network(x, t):
    return d3pm.forbid(jnp.zeros((*x.shape, K)), K - 1)


def run(sampler: Sampler, process: Process = ABSORBING, shape=(2, L), **arguments):
    def noise(row, stream):
        return jnp.full(shape, 0.5)

    xT = jnp.full(shape, K - 1)
    return sampling.run(Denoiser(process, network), xT, noise, sampler, **arguments)


def draw(sampler: Sampler = Sampler(), shape=(2, L), **arguments):
    denoiser = Denoiser(ABSORBING, network)
    return sampling.sample(jax.random.key(0), denoiser, shape, sampler, **arguments)


def edit(sampler: Sampler, strength: float):
    return draw(sampler, start=PartWay(jnp.zeros((2, L), jnp.int32), strength))


def examples(*shape, x0=0):
    """Places that are known, all of them."""
    return Known(jnp.full(shape, x0, jnp.int32), jnp.ones(shape, bool))


HELD = (Row(2, T, 2), Row(1, 2, 2))
UP = (Row(3, T, 2), Row(2, 2, 3), Row(1, 3, 0))
CALLS = {
    "the plan has no rows: its last row must go to 0": lambda: run(Sampler(), plan=()),
    "the plan ends at s = 1: its last row must go to 0": lambda: run(Sampler(), plan=[Row(1, 2, 1)]),
    "the plan ends at s = 2: its last row must go to 0": lambda: run(named.ddim(), plan=HELD),
    "row 1 begins at 1, but row 2 ended at 5": lambda: run(named.ddim(), plan=[Row(2, T, 5), Row(1, 1, 0)]),
    "must be numbered 2, .., 1": lambda: run(named.ddim(), plan=[Row(1, T, 5), Row(2, 5, 0)]),
    "row 2 goes from 7 to 5: steps are 1..6": lambda: run(named.ddim(), plan=[Row(2, 7, 5), Row(1, 5, 0)]),
    "but Bayes takes one step at a time: respace": lambda: run(Sampler(), plan=[Row(1, T, 0)]),
    "but Mixture takes one step at a time: respace": lambda: run(named.psi(), plan=[Row(1, T, 0)]),
    "but Poisson takes one step at a time: respace": lambda: run(named.tau_leaping(), plan=[Row(1, T, 0)]),
    "row 2, which goes back up from 2 to 4, needs": lambda: run(
        Sampler(), DENSE, plan=[Row(4, 4, 3), Row(3, 3, 2), Row(2, 2, 4), Row(1, 4, 0)]
    ),
    "row 2 goes from 0 to 7: steps are 1..6": lambda: run(
        named.ddim(), plan=[Row(3, T, 0), Row(2, 0, 7), Row(1, 7, 0)]
    ),
    "strength = 0.0: it must be a finite number above 0, at most 1": lambda: edit(Sampler(), 0.0),
    "strength = 1.5: it must be a finite number above 0, at most 1": lambda: edit(Sampler(), 1.5),
    "strength = nan: it must be a finite number": lambda: edit(Sampler(), float("nan")),
    "block = 2: a block is drawn while all after it are masked": lambda: edit(named.blocks(2), 0.5),
    "FirstHitting begins where all places are masked": lambda: edit(named.first_hitting(), 0.5),
    "block = 3 does not divide the 4 places": lambda: run(named.blocks(3)),
    "block = 8 does not divide the 4 places of an example": lambda: run(named.blocks(8), plan=DOWN),
    "the plan goes through the blocks [-1], and the sampler through [0, 1]": lambda: run(
        named.blocks(2), plan=DOWN
    ),
    "block 0 ends at s = 5, in row 2": lambda: run(
        Sampler(tr.Keep(), block=2), plan=[Row(2, T, 5, 0), Row(1, T, 0, 1)]
    ),
    "the plan has 2 rows that are not those of make_plan, which are 4": lambda: run(
        named.random_order(), plan=[Row(2, T, 0), Row(1, T, 0)]
    ),
    "plan is 3, expected rows of whole numbers": lambda: run(Sampler(), plan=3),
    "known is of dtype bool, shape (2, 4), expected a Known": lambda: run(
        Sampler(), known=jnp.zeros((2, L), bool)
    ),
    "belief = 'posterior': it must be 'd3pm' or": lambda: Denoiser(ABSORBING, network, "posterior"),  # pyright: ignore
    "known.x0 contains 4, outside 0..3": lambda: draw(known=examples(2, L, x0=4)),
    "start.x0 contains -1, outside 0..3": lambda: draw(start=PartWay(examples(2, L, x0=-1).x0, 0.5)),
    "known.mask has dtype int32, expected booleans": lambda: draw(
        known=Known(jnp.zeros((2, L), jnp.int32), jnp.ones((2, L), jnp.int32))
    ),
    "known.x0 has shape (1, 4), but shape = (2, 4): pass one of each example": lambda: draw(
        known=examples(1, L)
    ),
    "start.x0 has shape (1, 4), but shape = (2, 4): pass one of each example": lambda: draw(
        start=PartWay(examples(1, L).x0, 0.5)
    ),
    "known.x0 has shape (2, 3), expected [2, 4] as in x": lambda: run(Sampler(), known=examples(2, 3)),
    "record = [7]": lambda: run(Sampler(), record=[7]),
    "forbid = (4,): pass some categories of 0..3": lambda: run(Sampler(shaping=Shaping(forbid=(4,)))),
    "forbid = (0, 1, 2, 3): pass some categories": lambda: run(Sampler(shaping=Shaping(forbid=(0, 1, 2, 3)))),
    "rows = 30: 45% of them go down from 6 to step 1": lambda: run(named.remdm_loop(rows=30)),
    "pass plan = make_plan(sampler, process, shape)": lambda: jax.jit(
        lambda process: run(named.remdm_loop(rows=4), process)
    )(ABSORBING),
    "an example of shape (0,) has no places": lambda: run(named.random_order(), shape=(2, 0)),
    "shape = (): it must be (B, *S)": lambda: draw(shape=()),
}


@pytest.mark.parametrize("message", CALLS)
def test_a_call_says_in_one_line_what_is_wrong(message, monkeypatch):
    # As users make them, without the checks of types that tests have.
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)
    with pytest.raises((TypeError, ValueError)) as caught:
        CALLS[message]()
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
