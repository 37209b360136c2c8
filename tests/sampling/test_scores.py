"""Networks of log scores: what their steps draw from, and what they are refused for."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import d3pm_jax as d3pm
from d3pm_jax.sampling import (
    Answer,
    Sampler,
    Scores,
    Shaping,
    correctors,
    guidance,
    named,
    sample,
    transitions,
)
from d3pm_jax.sampling.denoiser import ScoreAnswer
from tests.sampling import rules
from tests.sampling.cases import make_process
from tests.sampling.test_laws import make_rows
from tests.sampling.views import make_view

pytestmark = [pytest.mark.usefixtures("x64"), pytest.mark.filterwarnings("ignore:x_T still depends")]
STEPS = (transitions.Tweedie(), transitions.Euler(), transitions.Poisson())


@functools.partial(jax.jit, static_argnames="of_scores")
def take_laws(process, answers, x, t, of_scores):
    """The law of each step, of logits of x_0 or of log scores."""
    view = make_view(process, answers, "leave_one_out", x, t, t - 1, lambda stream: x, {})
    answer = Answer(process, answers, "leave_one_out", x, t, answers)
    if of_scores:
        answer = ScoreAnswer(process, answers, "leave_one_out", x, t, answers)
    return [jnp.exp(step.law(view, answer)) for step in STEPS]


def find_scores(world, leave_one_out, x, t):
    """p_t(y) / p_t(x_t), and of masks that over the ratio of the law that is certain of y."""
    if world.name == "absorbing":
        return leave_one_out
    return rules.ratios(world, leave_one_out, x, t)


@pytest.mark.parametrize("name", ["uniform", "absorbing"])
def test_steps_of_the_scores_of_a_belief_are_those_of_the_belief(name):
    """At every x_t, and from where alpha is 0 too if there are masks."""
    world = rules.make_world(name)
    rows = make_rows(name)
    belief = np.concatenate([rows.predicted[rows.t == t] for t in range(1, rules.T + 1)])
    scores = np.concatenate(
        [
            find_scores(world, rows.predicted[rows.t == t], rows.x[rows.t == t], t)
            for t in range(1, rules.T + 1)
        ]
    )
    process = make_process(name)
    x, t = jnp.asarray(rows.x), jnp.asarray(rows.t, jnp.int32)
    with np.errstate(divide="ignore"):
        right = take_laws(process, jnp.asarray(np.log(belief)), x, t, of_scores=False)
        actual = take_laws(process, jnp.asarray(np.log(scores)), x, t, of_scores=True)
    says_something = rows.t < (rules.T if name == "uniform" else rules.T + 1)
    for step, law, of_belief in zip(STEPS, actual, right, strict=True):
        np.testing.assert_allclose(
            law[says_something], of_belief[says_something], atol=1e-12, err_msg=str(step)
        )


def test_what_inexact_scores_make_negative_counts_as_0():
    """Tweedie's formula from dense matrices in NumPy, uniform noise, from each t to each s."""
    rng = np.random.default_rng(0)
    Q = rules.make_world("uniform").Q
    cases = [(t, s, k) for t in range(1, rules.T) for s in range(t + 1) for k in range(rules.K)]
    scores = np.exp(2 * rng.normal(size=(len(cases), rules.K)))
    laws, negative = [], 0
    for (t, s, k), score in zip(cases, scores, strict=True):
        score[k] = 1.0
        M = functools.reduce(np.matmul, Q[s + 1 : t + 1], np.eye(rules.K))
        weight = M[:, k] * (score @ np.linalg.inv(M))
        negative += np.sum(weight < 0)
        laws.append(np.maximum(weight, 0) / np.maximum(weight, 0).sum())
    assert negative > 10
    t, s, x = (jnp.asarray(column, jnp.int32) for column in np.array(cases).T)
    tweedie = jax.jit(d3pm.sampling.laws.tweedie_logits)
    actual = tweedie(make_process("uniform"), jnp.asarray(np.log(scores)), x, t, s)
    np.testing.assert_allclose(jnp.exp(actual), laws, atol=1e-12)

    # Scores of 16 bits are added up in the type of the process.
    short = jnp.asarray(np.log(scores), jnp.bfloat16)
    pair = [tweedie(make_process("uniform"), log_s, x, t, s) for log_s in (short, short.astype(float))]
    np.testing.assert_allclose(*jnp.exp(jnp.asarray(pair)), atol=1e-12)


@pytest.mark.parametrize("sampler", [named.tweedie(), named.euler()], ids=["tweedie", "euler"])
def test_no_mask_is_left_however_small_or_large_the_scores_are(sampler):
    process = d3pm.absorbing(d3pm.reciprocal(4), 4, 3)
    by_place = jnp.asarray(np.array([-30.0, 0.0, 30.0])[:, None] + [0.0, 1.0, 2.0, 50.0])
    scores = Scores(process, lambda xt, time: jnp.broadcast_to(by_place, (*xt.shape, 4)))
    chain = sample(jax.random.key(0), scores, (50, 3), sampler)
    assert np.all(chain.failed_at == 0)
    assert set(np.unique(chain.x0)) == {0, 1, 2}


PROCESS = d3pm.absorbing(d3pm.reciprocal(4), 4, 3)


def zeros(xt, time, inputs=None):
    return jnp.zeros((*xt.shape, 4))


@pytest.mark.parametrize(
    ("sampler", "words"),
    [
        (Sampler(), r"^Bayes needs logits of x_0, and the network gives log scores: take `tweedie`"),
        (named.ddim(), "^Keep needs logits of x_0"),
        (named.random_order(), "^Reveal needs logits of x_0"),
        (named.gibbs(), "^Corrected needs logits of x_0"),
        (named.predictor_corrector(), "^Corrected needs logits of x_0"),
        (Sampler(transitions.Tweedie(), Shaping(top_p=0.9)), "shapes logits of x_0, and the network gives"),
        (Sampler(correctors.Corrected(correctors.Gibbs(), transitions.Euler())), "^Corrected needs logits"),
    ],
)
def test_what_takes_logits_of_x_0_is_refused_before_it_runs(sampler, words):
    with pytest.raises(ValueError, match=words):
        sample(jax.random.key(0), Scores(PROCESS, zeros), (2, 3), sampler)


def test_scores_are_asked_for_no_logits_and_no_guidance_of_x_0():
    scores = Scores(PROCESS, zeros)
    x = jnp.full((2, 3), 3)
    with pytest.raises(TypeError, match="log scores, which are no logits of x_0"):
        d3pm.estimate_bound(jax.random.key(0), scores, PROCESS, x - 1, jnp.arange(2), belief="leave_one_out")
    with pytest.raises(TypeError, match="log scores, which are no logits of x_0"):
        scores.answer(zeros(x, None), x, jnp.ones(2, jnp.int32)).log_denoiser  # noqa: B018
    labels = jnp.zeros(2, jnp.int32)
    guided = guidance.classifier_free(zeros, labels, labels, 2.0, on="x_0")
    with pytest.raises(ValueError, match="ClassifierFreeX0 guides x_0, and the network gives log scores"):
        Scores(PROCESS, guided)
    with pytest.raises(ValueError, match="needs a process that keeps x_0 or draws from pi"):
        Scores(d3pm.masked(d3pm.uniform(d3pm.reciprocal(4), 3), d3pm.reciprocal(4)), zeros)


@pytest.mark.slow
def test_guidance_of_x_s_draws_from_the_laws_that_scores_make():
    labels = jnp.zeros(50, jnp.int32)

    def network(xt, time, label):
        return jnp.broadcast_to(jnp.where(label[:, None, None] == 0, 0.0, jnp.arange(4.0)), (*xt.shape, 4))

    guided = guidance.classifier_free(network, labels, labels + 1, 2.0, on="x_s")
    chain = sample(jax.random.key(0), Scores(PROCESS, guided), (50, 3), named.tweedie())
    assert np.all(chain.x0 < 3)
    assert np.mean(chain.x0 == 0) > np.mean(chain.x0 == 2)
