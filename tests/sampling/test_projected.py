"""Samplers of a `Projection`: the same integers as those of logits in memory, from the same noise."""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import d3pm_jax as d3pm
from d3pm_jax import projection, sampling
from d3pm_jax.sampling import (
    Denoiser,
    Known,
    LawStep,
    Sampler,
    Scores,
    Shaping,
    drawing,
    guidance,
    named,
    places,
)
from d3pm_jax.sampling.correctors import Corrected, Gibbs
from d3pm_jax.sampling.transitions import Bayes, Keep, OwnReverse
from tests.lowering.values import largest_value
from tests.sampling.cases import CASES, make_process
from tests.sampling.rules import BETA, GAMMA, T

SHAPE = (3, 5)
WIDTH = 6
K = 7
PROCESSES = {
    "absorbing": d3pm.absorbing(BETA, K, K - 1),
    "uniform": d3pm.uniform(BETA, K),
    "masked": d3pm.masked(d3pm.uniform(BETA, K - 1), GAMMA),
}
BELIEFS: dict[str, Any] = {"absorbing": "denoiser", "uniform": "leave_one_out", "masked": "official"}
SHAPING = Shaping(temperature=0.8, forbid=(1,), top_k=3, top_p=0.9)
KNOWN = Known(np.zeros(SHAPE, np.int32), np.arange(15).reshape(SHAPE) % 4 == 0)

pytestmark = pytest.mark.filterwarnings("ignore:x_T still depends")


@pytest.fixture(autouse=True)
def few_places(monkeypatch):
    """Four rounds of four of the fifteen places, the last of which begins earlier."""
    monkeypatch.setattr(projection, "PLACES_ON_CPU", 4)
    monkeypatch.setattr(projection, "PLACES", 4)


def finish(output, xt):
    return d3pm.residual(output, xt)


class Networks:
    """A network of places that look at each other, as one that projects and as one of logits."""

    def __init__(self, K=K, finish=finish):
        rng = np.random.default_rng(3)
        shapes = (K, WIDTH), (WIDTH, K), (K,)
        self.embedding, self.kernel, self.bias = (jnp.asarray(rng.normal(size=s), float) for s in shapes)
        self.finish = finish

    def projected(self, x, time) -> Any:
        h = self.embedding[x]
        h = jnp.tanh(h + h.mean(axis=1, keepdims=True) + time[:, None, None] / T)
        return projection.Projection(h, self.kernel, self.bias, x, self.finish)

    def plain(self, x, time):
        return projection.all_logits(self.projected(x, time))


def draw(denoiser, sampler, shape=SHAPE, **options):
    return sampling.sample(jax.random.key(1), denoiser, shape, sampler, **options)


def check_draws(name, sampler, networks=None, make=None, **options):
    """A sampler draws the same, and something."""
    process = PROCESSES[name]
    networks = networks or Networks()
    make = make or functools.partial(Denoiser, belief=BELIEFS[name])
    expected, found = (
        draw(make(process, network), sampler, record=(1,), **options)
        for network in (networks.plain, networks.projected)
    )
    assert expected.failed_at == 0
    assert len(np.unique(expected.x0)) > 1
    for field in ("x0", "states", "failed_at", "calls", "program_calls"):
        np.testing.assert_array_equal(getattr(found, field), getattr(expected, field), err_msg=field)


FAST = [("ancestral", "uniform"), ("remdm_confidence", "absorbing"), ("maskgit", "absorbing")]


OTHERS = [("ancestral", "absorbing"), ("ancestral", "masked")]
for i, (sampler, case) in enumerate(CASES.items()):
    names = [name for name in PROCESSES if name in case.names]
    one = (sampler, names[i % len(names)])  # of the processes that it is for, in turn
    if one not in FAST + OTHERS:
        OTHERS.append(one)


def test_every_named_sampler_takes_a_projection():
    assert CASES.keys() == named.SAMPLERS.keys()
    for make in named.SAMPLERS.values():
        assert make().user_of_all_logits == ""


@pytest.mark.parametrize(("sampler", "name"), FAST)
def test_draws_are_those_of_logits_in_memory(sampler, name):
    check_draws(name, CASES[sampler].sampler)


@pytest.mark.slow
@pytest.mark.parametrize(("sampler", "name"), OTHERS)
def test_draws_of_the_other_samplers(sampler, name):
    check_draws(name, CASES[sampler].sampler)


def with_shaping(sampler):
    return dataclasses.replace(sampler, shaping=SHAPING)


def test_draws_with_shaping_and_known_places():
    check_draws("absorbing", with_shaping(named.fast_dllm_threshold(0.5)), known=KNOWN)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "sampler"),
    [
        ("absorbing", with_shaping(named.remdm_cap(0.3))),
        ("absorbing", with_shaping(named.blocks(5))),
        ("absorbing", Sampler(places.Reveal(places.LargestProbability(), places.Factor(1.5)), block=5)),
        ("uniform", with_shaping(named.psi(0.6))),
        ("uniform", with_shaping(named.predictor_corrector(2))),
        ("masked", with_shaping(named.gibbs())),
        ("masked", with_shaping(named.repaint(2, noises_known=True))),
    ],
)
def test_draws_of_other_samplers_with_shaping_and_known_places(name, sampler):
    check_draws(name, sampler, known=KNOWN)


@dataclasses.dataclass(frozen=True)
class Surest(places.Order):
    by_rows = True

    def score(self, candidates):
        return candidates.measures.largest - candidates.measures.entropy


@dataclasses.dataclass(frozen=True)
class Half(LawStep):
    by_rows = True

    def law(self, view, answer):
        log_p = d3pm.p_logits(view.process, answer.logits / 2, view.x, view.t, answer.belief)
        return jnp.where((view.s < view.t).reshape(-1, *(1,) * view.x.ndim), log_p, 0.0)


@dataclasses.dataclass(frozen=True)
class ByTable(LawStep):
    """Remembers a number of each step, as many as there are examples, and a tree."""

    by_rows = True

    def start(self, view):
        return {"table": jnp.arange(3.0), "counts": {"rows": jnp.zeros((), jnp.int32)}}

    def law(self, view, answer):
        log_p = d3pm.p_logits(view.process, answer.logits, view.x, view.t, answer.belief)
        factor = 1 + view.memory["table"][view.t % 3]
        return jax.nn.log_softmax(log_p * factor.reshape(-1, *(1,) * view.x.ndim))

    def remember(self, view, answer, x):
        return view.memory | {"counts": {"rows": view.memory["counts"]["rows"] + 1}}


@pytest.mark.parametrize(
    ("name", "step"),
    [
        ("absorbing", places.Reveal(Surest())),
        ("uniform", ByTable()),
        pytest.param("uniform", Half(), marks=pytest.mark.slow),
    ],
)
def test_draws_of_parts_of_a_users_own_that_go_by_rows(name, step):
    check_draws(name, Sampler(step))


@pytest.mark.parametrize("sampler", [Sampler(places.Reveal()), Sampler(places.FirstHitting())])
def test_no_law_is_measured_for_a_random_order(sampler, monkeypatch):
    def fail(log_p, drawn):
        raise AssertionError("measured")

    monkeypatch.setattr(drawing, "measure", fail)
    denoiser = Denoiser(PROCESSES["absorbing"], Networks().projected, "denoiser")
    jax.eval_shape(lambda: draw(denoiser, sampler).x0)
    with pytest.raises(AssertionError, match="measured"):
        jax.eval_shape(lambda: draw(denoiser, Sampler(places.Reveal(places.LeastEntropy()))).x0)


def log_scores(output, xt):
    return d3pm.heads.absorbing_log_scores(output, xt)


@pytest.mark.parametrize("sampler", [named.tweedie(), pytest.param(named.euler(), marks=pytest.mark.slow)])
def test_draws_by_log_scores(sampler):
    check_draws("absorbing", sampler, Networks(K, log_scores), Scores)


@pytest.mark.parametrize(
    "shape", [with_shaping, pytest.param(lambda sampler: sampler, marks=pytest.mark.slow)]
)
def test_rows_hold_no_array_of_all_logits(shape):
    """In the programs of all devices; K is so large that nothing else is of that size."""
    large = 211
    processes = {
        "absorbing": d3pm.absorbing(BETA, large, large - 1),
        "uniform": d3pm.uniform(BETA, large),
    }
    limit = np.prod(SHAPE) * large
    networks = Networks(large)
    for sampler, case in CASES.items():
        name = "absorbing" if "absorbing" in case.names else "uniform"
        run = functools.partial(draw, Denoiser(processes[name], networks.projected), shape(case.sampler))
        assert largest_value(run) < limit, sampler
    plain = functools.partial(draw, Denoiser(processes["uniform"], networks.plain), Sampler())
    assert largest_value(plain) >= limit


# ---- What is refused ----


@dataclasses.dataclass(frozen=True)
class OwnLaw(LawStep):
    def law(self, view, answer):
        return d3pm.p_logits(view.process, answer.logits, view.x, view.t, answer.belief)


@dataclasses.dataclass(frozen=True)
class OwnKeep(Keep):
    """Derives from a step that goes by rows, and may look at all places."""

    def law(self, view, answer):
        return super().law(view, answer) + 0 * answer.log_denoiser.mean()


@dataclasses.dataclass(frozen=True)
class OwnOrder(places.Order):
    def score(self, candidates):
        return candidates.log_p[..., 0]


@dataclasses.dataclass(frozen=True)
class WrongOrder(OwnOrder):
    by_rows = True


@dataclasses.dataclass(frozen=True)
class WrongCorrector(Gibbs):
    by_rows = True

    def move(self, view, step):
        return jnp.argmax(view.ask(view.x, view.t).log_denoiser, axis=-1).astype(jnp.int32)


NEEDS = "needs all logits in memory, and the network gives a Projection"


@pytest.mark.parametrize(
    ("sampler", "user"),
    [
        (Sampler(OwnLaw()), "OwnLaw"),
        (Sampler(OwnKeep()), "OwnKeep"),
        (Sampler(Corrected(Gibbs(), OwnLaw())), "OwnLaw"),
        (Sampler(OwnReverse(d3pm.p_logits)), "OwnReverse"),
        (Sampler(places.Reveal(OwnOrder())), "OwnOrder"),
        (Sampler(places.Reveal(WrongOrder())), "Candidates.log_p"),
        (Sampler(Corrected(WrongCorrector(), Bayes())), "what reads an answer other than by `by_rows`"),
    ],
)
def test_parts_of_a_users_own_that_need_all_logits_are_refused(sampler, user):
    with pytest.raises(
        ValueError, match=rf"^{user} {NEEDS}.*: take another one, or let .*no-projected\)(\n|$)"
    ):
        draw(Denoiser(PROCESSES["absorbing"], Networks().projected), sampler)


def test_guidance_and_steering_are_refused():
    process = PROCESSES["uniform"]
    network = Networks().projected
    with pytest.raises(ValueError, match=f"^steering {NEEDS}"):
        sampling.steer(jax.random.key(0), lambda x: x.sum(1) * 1.0, 2, Denoiser(process, network), SHAPE)
    labels = jnp.zeros(3, jnp.int32)
    for on in ("x_s", "x_0"):
        guided = guidance.classifier_free(lambda x, time, label: network(x, time), labels, labels, 2.0, on)
        with pytest.raises(ValueError, match=f"^guidance {NEEDS}"):
            draw(Denoiser(process, guided), Sampler())
    guided = guidance.by_classifier(network, lambda x, time: x[:, 0, 0])
    with pytest.raises(ValueError, match=f"^guidance {NEEDS}"):
        draw(Denoiser(process, guided), Sampler())


def test_processes_that_go_by_the_place_are_refused():
    for process, refused in (
        (d3pm.autoregressive(5, 4, 3), "Autoregressive"),
        (make_process("absorbing by place"), "ByPlace"),
    ):
        shape = (3, 5) if process.places == () else (3, *process.places)
        with pytest.raises(ValueError, match=f"^{refused} goes by the place, .*: let the network return"):
            draw(Denoiser(process, Networks(process.K).projected), Sampler(), shape)
    with pytest.raises(
        ValueError, match=r"has shape \(3, 5, 4\), expected \[3, 5, 7\] as in xt and the process"
    ):
        draw(Denoiser(PROCESSES["uniform"], Networks(4).projected), Sampler())


def test_whoever_watches_gets_all_logits():
    process = PROCESSES["uniform"]
    networks = Networks()
    noise = sampling.per_example(jax.random.key(0), jnp.arange(3), (5,))
    x = jnp.zeros(SHAPE, jnp.int32)
    seen = [
        sampling.run(Denoiser(process, network), x, noise, watch=lambda seen: seen.logits).seen
        for network in (networks.plain, networks.projected)
    ]
    assert seen[0].shape == (T, *SHAPE, process.K)
    np.testing.assert_allclose(seen[1], seen[0], rtol=1e-6)


def test_an_answer_that_no_sampler_shaped_is_read_some_places_at_a_time():
    process = PROCESSES["uniform"]
    networks = Networks()
    x = jnp.arange(15, dtype=jnp.int32).reshape(3, 5) % process.K
    t = jnp.asarray([1, 2, 3], jnp.int32)
    laws = []
    for network in (networks.plain, networks.projected):
        (answer,) = Denoiser(process, network, "leave_one_out").ask_each(x, t, process.time[t])
        laws.append(answer.by_rows(lambda answer, x: answer.log_denoiser[..., 0] + x, x))
    np.testing.assert_allclose(*laws, rtol=1e-5)
