"""Bounds hold as often as they say, and figures are what loops over samples give."""

from itertools import pairwise

import numpy as np
import pytest
from scipy import stats

from d3pm_jax.judge import figures, verdicts
from d3pm_jax.judge.targets import Target, list_states, number_states, sum_pairs
from d3pm_jax.judge.verdicts import Samples

K, L = 3, 4
STATES = list_states(K, L)
LEVEL = 1e-3


def make_target(law):
    """A target of a law [81] that no network belongs to."""
    log_law = np.log(law)
    return Target(
        name="law",
        K=K,
        length=L,
        noise="mask",
        leave_one_out=lambda x, alpha: None,
        draw=lambda key, num: None,
        log_prob=lambda x: log_law[number_states(x, K)],
        pairs=sum_pairs(law, K, L),
        law=law,
    )


LAW = np.random.default_rng(0).dirichlet(np.full(K**L, 2.0))
TARGET = make_target(LAW)
OTHER = np.random.default_rng(1).dirichlet(np.full(K**L, 2.0))


def draw_halves(law, num, rng):
    return Samples(STATES, rng.multinomial(num // 2, law)), draw_calls(law, num, rng)


def draw_calls(law, num, rng, repeats=1):
    """Half of the samples, in 15 calls; in a call each is drawn so often."""
    return [Samples(STATES, repeats * rng.multinomial(num // 30 // repeats, law)) for _ in range(15)]


def bound(law, num, rng, level=LEVEL):
    halves = draw_halves(law, num, rng)
    return verdicts.bound_below(halves, TARGET, Samples(STATES, LAW), lambda: iter(()), level)


def test_probabilities_are_bounded_as_clopper_and_pearson_do():
    for held, num in ((0, 20), (7, 20), (20, 20), (351, 1000)):
        interval = stats.binomtest(held, num).proportion_ci(1 - 2 * LEVEL, method="exact")
        np.testing.assert_allclose(verdicts.bound_probability(held, num, LEVEL), interval, rtol=1e-9)


def test_right_samplers_are_seldom_said_to_have_another_law():
    """At a level of 0.3, where 100 runs tell: at most so often, and not never."""
    rng = np.random.default_rng(2)
    alarms = sum(bound(LAW, 2000, rng, level=0.3)[0] > 0 for _ in range(100))
    assert 0 < alarms <= stats.binom.isf(0.005, 100, 0.3)


def test_right_samplers_whose_calls_repeat_themselves_are_seldom_said_to_have_another_law():
    """Each state of a call ten times: 1,000 samples say as much as 100."""
    rng = np.random.default_rng(6)
    alarms = 0
    for _ in range(100):
        first = Samples(STATES, 10 * rng.multinomial(150, LAW))
        halves = first, draw_calls(LAW, 3000, rng, repeats=10)
        below, _ = verdicts.bound_below(halves, TARGET, Samples(STATES, LAW), lambda: iter(()), LEVEL)
        alarms += below > 0
    assert alarms <= 1


@pytest.mark.parametrize("part", [0.05, 0.3, 1.0])
def test_bounds_enclose_the_total_variation(part):
    """Of a mixture of the true law with another one, whose total variation is known."""
    rng = np.random.default_rng(3)
    law = (1 - part) * LAW + part * OTHER
    distance = figures.tv(law, LAW)
    num = 100_000
    below, _ = bound(law, num, rng)
    # What the choice of states gets wrong, and the bound of their frequency, hardly grow with the distance.
    assert max(0.0, distance - 0.02) < below <= distance
    calls = [figures.count(rng.choice(STATES, num // 30, p=law), TARGET, np.array([4.0])) for _ in range(30)]
    above, of = verdicts.bound_above(calls, TARGET, LEVEL)
    assert of == "the law"
    assert distance <= above < distance + 0.04


def test_laws_that_cannot_be_enumerated_are_told_by_events_of_a_sample():
    """Steps of another chain, and samples that are too likely; exact samples are not told apart."""
    rng = np.random.default_rng(4)
    target = TARGET._replace(law=None)
    likely = LAW**1.3 / np.sum(LAW**1.3)

    def draw(law, num):
        x = rng.choice(STATES, num, p=law)
        return Samples(x, np.ones(num, int))

    def find(law):
        halves = draw(law, 5000), [draw(law, 5000)]
        return verdicts.bound_below(
            halves, target, draw(LAW, 5000), lambda: iter([draw(LAW, 40_000).x]), LEVEL
        )

    assert find(LAW) == (0.0, "")
    assert 0 < find(OTHER)[0] <= figures.tv(OTHER, LAW)
    below, event = find(likely)
    assert 0 < below <= figures.tv(likely, LAW)
    assert event.startswith("-log p")


def test_figures_are_those_of_loops_over_samples():
    rng = np.random.default_rng(5)
    x = rng.choice(STATES, 50, p=OTHER)
    edges = np.quantile(-np.log(LAW), [0.2, 0.5, 0.8])
    parts = [figures.count(part, TARGET, edges) for part in np.split(x, 10)]
    shares = np.bincount(np.searchsorted(edges, -np.log(LAW)), LAW, minlength=4)
    values, errors = figures.with_errors(
        parts, lambda counts: figures.compute_figures(counts, TARGET, shares)
    )

    steps = [(a, b) for row in x for a, b in pairwise(row)]
    total = 0.0
    divergence = 0.0
    entropy = 0.0
    for a in range(K):
        row = [b for first, b in steps if first == a]
        sampled = np.array([row.count(b) for b in range(K)]) / len(row)
        true = TARGET.pairs[0][a] / TARGET.pairs[0][a].sum()
        weight = len(row) / len(steps)
        total += weight * abs(sampled - true).sum() / 2
        smooth, smooth_true = ((p + 1e-4) / (1 + 3e-4) for p in (sampled, true))
        divergence += weight * np.sum(smooth * np.log(smooth / smooth_true))
        entropy -= weight * np.sum(sampled[sampled > 0] * np.log(sampled[sampled > 0]))
    assert values["transitions_tv"] == pytest.approx(total)
    assert values["transitions_kl"] == pytest.approx(divergence)
    assert values["entropy_rate"] == pytest.approx(entropy)
    nats = -np.log(LAW[number_states(x, K)])
    assert values["nats"] == pytest.approx(nats.mean())
    # Leaving out one call of five samples each in turn is the standard error of a mean of ten.
    assert errors["nats"] == pytest.approx(nats.reshape(10, 5).mean(axis=1).std(ddof=1) / np.sqrt(10))
    differences = [np.mean(nats <= c) - LAW[-np.log(LAW) <= c].sum() for c in edges]
    assert values["nats_ks"] == pytest.approx(max(map(abs, differences)))
    share = np.zeros(K**L)
    np.add.at(share, number_states(x, K), 1 / 50)
    assert values["tv"] == pytest.approx(abs(share - LAW).sum() / 2)
    far = np.zeros((K, K))
    for row in x:
        far[row[0], row[2]] += 1 / 100
        far[row[1], row[3]] += 1 / 100
    law = LAW.reshape((K,) * L)
    true_far = (law.sum(axis=(1, 3)) + law.sum(axis=(0, 2))) / 2
    assert values["pairs_2_tv"] == pytest.approx(abs(far - true_far).sum() / 2)
    repeats = [5 - len(np.unique(part, axis=0)) for part in np.split(x, 10)]
    assert values["repeated"] == pytest.approx(sum(repeats) / 50)


def test_words_claim_no_more_than_the_bounds():
    assert verdicts.describe_bounds(0.0289, 0.9, "the law", 10) == "another law: TV at least 0.028"
    said = verdicts.describe_bounds(0.0, 0.0281, "the law", 10)
    assert said == "not told apart at n = 10: TV of the law at most 0.029"
    courses = {
        (0.3, 0.1, 0.0): "approaches it with calls",
        (0.3, 0.0, 0.1): "another law with some numbers of calls",
        (0.1, 0.3, 0.0): "another law with some numbers of calls",
        (0.37, 0.094, 0.009): "another law, nearer with more calls",
        (0.3, 0.15): "another law",
        (0.3, 0.1, 0.09): "another law",
        (0.1, 0.3): "another law",
        (0.0, 0.0): "not told apart",
        (0.3,): "another law",
    }
    assert {bounds: verdicts.describe_course(bounds) for bounds in courses} == courses
