"""Exact likelihoods of a run in many orders, their mixtures, and certificates, against enumeration."""

import dataclasses
import functools
import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import d3pm_jax as d3pm
from d3pm_jax import enumeration, runs
from d3pm_jax.config import (
    MLP,
    Absorbing,
    Arrays,
    Config,
    ContinuousUniform,
    RealTimes,
    Reciprocal,
    Train,
    Uniform,
)
from d3pm_jax.data import Description
from d3pm_jax.errors import UserError
from d3pm_jax.evaluation import bound
from d3pm_jax.program.measure import certificate, filling
from d3pm_jax.program.measure.examples import evaluate
from tests import tiny

SHAPE = (3, 2)
D = 6
ORDERS = list(itertools.permutations(range(D)))
EXAMPLES = np.indices((2,) * D, np.int32).reshape(D, -1).T.reshape(-1, *SHAPE)  # all 64


def open_run(folder, shape, **fields):
    """A run of random weights on bits, which without other fields fills in masks and sees no time."""
    settings = {
        "process": Absorbing(3, 4, Reciprocal(), 2),
        "model": MLP(width=8, num_layers=1, see_time=False),
        "train": Train(steps=10),
    }
    config = Config(data=Arrays("train.npy", "test.npy", 2), **{**settings, **fields})
    tiny.write_run(folder, config, description=Description(shape, 2))
    opened = runs.open(folder, batch_size=64)
    # Weights of the tests are small: larger ones make orders differ.
    state = dataclasses.replace(opened.parts.state, ema=jax.tree.map(lambda x: 8 * x, opened.params))
    return dataclasses.replace(opened, parts=opened.parts.with_state(state))


def compute_in_every_order(run, shape):
    """-log p of all 2^D examples in all D! orders, [D!, 2^D], from one call of the network on all masks."""
    D = math.prod(shape)
    partial = np.indices((3,) * D, np.int32).reshape(D, -1).T  # [3^D, D], 2 is the mask
    logits = run.predict(partial.reshape(-1, *shape), np.ones(len(partial), int))
    logits = np.asarray(logits, np.float64).reshape(len(partial), D, 3)[..., :2]
    log_p = logits - np.logaddexp.reduce(logits, -1, keepdims=True)
    flat = enumeration.list_examples((D,), 2)
    nats = np.zeros((math.factorial(D), len(flat)))
    for m, order in enumerate(itertools.permutations(range(D))):
        visible = np.full_like(flat, 2)
        for place in order:
            rows = visible @ 3 ** np.arange(D)[::-1]
            nats[m] -= log_p[rows, place, flat[:, place]]
            visible[:, place] = flat[:, place]
    return nats


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return open_run(tmp_path_factory.mktemp("exact") / "run", SHAPE)


@pytest.fixture(scope="module")
def nats_of_orders(run):
    return compute_in_every_order(run, SHAPE)  # [720, 64]


def number_of(order):
    """Which of ORDERS fills in by these numbers [*S]."""
    return ORDERS.index(tuple(np.argsort(order.ravel())))


def summary(nats, D=D):
    """The figures of nats [N] in a record."""
    return {
        "bits_per_dim": pytest.approx(nats.mean() / D / np.log(2), abs=1e-5),
        "standard_error": pytest.approx(nats.std(ddof=1) / math.sqrt(len(nats)) / D / np.log(2), abs=1e-5),
        "nats": pytest.approx(nats.mean(), abs=1e-5),
        "nats_standard_error": pytest.approx(nats.std(ddof=1) / math.sqrt(len(nats)), abs=1e-5),
    }


def mix(nats):
    return math.log(len(nats)) - np.logaddexp.reduce(-nats)


FEW = EXAMPLES[[3, 17, 40, 41, 63]]
NUMBERS = [3, 17, 40, 41, 63]


def drawn(draw, rows, M=3, x=EXAMPLES):
    """Which of ORDERS each of M draws of an order, of numbers 1..M, has for each example, [M, N]."""
    numbers = [np.broadcast_to(draw(rows, SHAPE, m), x.shape) for m in range(1, M + 1)]
    return np.array([[number_of(order) for order in orders] for orders in numbers])


def test_4_bits_have_the_figures_of_their_24_orders(tmp_path):
    run = open_run(tmp_path / "run", (4,))
    nats = compute_in_every_order(run, (4,))  # [24, 16]
    x = enumeration.list_examples((4,), 2)
    rows = certificate.compute_certificate(run.parts, {"x": x}, draws=2, batch_size=16)["rows"]
    rows = {row["name"]: row for row in rows}
    orders = [bound.random_order(0)(jnp.arange(16), (4,), m) for m in (1, 2)]
    of_orders = list(itertools.permutations(range(4)))
    numbers = [[of_orders.index(tuple(np.argsort(x))) for x in order] for order in orders]
    drawn = np.take_along_axis(nats, np.array(numbers), axis=0)  # [2, 16]
    for name, expected in (
        ("left to right", nats[0]),
        ("mean over 2 orders", drawn.mean(0)),
        ("mixture of 2 orders", mix(drawn)),
        ("all orders", mix(nats)),
    ):
        assert {key: rows[name][key] for key in summary(expected)} == summary(expected, 4)
        assert rows[name]["difference"] == pytest.approx((expected - mix(drawn)).mean(), abs=1e-5)

    # The mixture of two orders that are common, and what is left when the first element is given.
    common = nats[[row[0] for row in numbers]]  # [2, 16]
    found = run.compute_likelihood({"x": x}, batch_size=16, orders=runs.Orders(2))["orders"]
    assert {key: found["gain"][key] for key in summary(x)} == summary(common.mean(0) - mix(common), 4)
    given = np.arange(4) == 0
    log_law = -mix(nats).reshape(2, 8)
    by_bayes = log_law - np.logaddexp.reduce(log_law, axis=1, keepdims=True)
    np.testing.assert_allclose(run.bayes_conditional(x, given), by_bayes.ravel(), atol=1e-5)
    of_first = -nats[:6].reshape(6, 2, 8)  # in the orders that begin with it
    of_rest = of_first - np.logaddexp.reduce(of_first, axis=2, keepdims=True)
    expected = -mix(-of_rest.reshape(6, 16))
    np.testing.assert_allclose(run.log_prob(x, given, "all", batch_size=16), expected, atol=1e-5)


def test_examples_that_are_none_are_refused_in_a_line(run):
    for examples, words in (
        ({"y": FEW}, r'examples = dict: pass a dict with "x" \[N, \*S\], as run.read_batch'),
        ({"x": FEW[:0]}, 'examples has N = 0 examples: pass a dict with "x"'),
    ):
        for measure in (
            functools.partial(certificate.compute_certificate, run.parts),
            run.compute_likelihood,
            run.log_prob,
            functools.partial(run.bayes_conditional, given=FEW[0] > 0),
        ):
            with pytest.raises(UserError, match=words):
                measure(examples)


@pytest.mark.slow
def test_paths_and_bounds_of_a_network_that_sees_time_are_those_of_its_chain(tmp_path):
    fields = {"loss": ContinuousUniform(Reciprocal()), "timesteps": RealTimes()}
    model = MLP(width=8, num_layers=1)
    run = open_run(tmp_path / "run", (2,), process=Uniform(2, 100, Reciprocal()), model=model, **fields)
    x = np.repeat([[0, 1]], 4000, axis=0).astype(np.int32)
    result = certificate.compute_certificate(run.parts, {"x": x}, draws=1, batch_size=4000)
    rows = {row["name"]: row for row in result["rows"]}
    measure = functools.partial(evaluate, run.parts, examples={"x": x}, batch_size=4000)
    path_nats = certificate._compute_paths(run.parts, measure, 1, 0).nats
    weight = np.exp(rows["all paths"]["nats"] - path_nats)  # of a path, whose mean is 1
    assert abs(weight.mean() - 1) < 4 * weight.std() / math.sqrt(len(x)) < 0.1

    def check_same(a, b):
        errors = [rows[name]["nats_standard_error"] for name in (a, b)]
        assert abs(rows[a]["nats"] - rows[b]["nats"]) < 4 * math.hypot(*errors) < 0.1

    check_same("bound of 1 paths", "bound, 100 steps")
    check_same("bound, continuous time", "bound, 100 steps")


@pytest.mark.slow
def test_a_certificate_has_the_likelihoods_that_it_names(run, nats_of_orders):
    result = certificate.compute_certificate(run.parts, {"x": FEW}, draws=3, batch_size=5)
    rows = {row["name"]: row for row in result["rows"]}
    of_few = nats_of_orders[:, NUMBERS]
    orders = drawn(bound.random_order(0), jnp.arange(5), x=FEW)
    nats = np.take_along_axis(of_few, orders, axis=0)  # [3, 5]
    all_paths = enumeration.chain_law(
        lambda xt, time: run.predict(xt, time), run.process, SHAPE, "leave_one_out"
    )
    examples = enumeration.list_examples(SHAPE, 3)
    numbers = [int(np.flatnonzero((examples == x).all((1, 2)))[0]) for x in FEW]
    expected = {
        "left to right": of_few[0],
        "mean over 3 orders": nats.mean(0),
        "mixture of 3 orders": mix(nats),
        "all orders": mix(of_few),
        "all paths": -np.asarray(all_paths)[numbers],
    }
    assert list(rows) == ["bound, 4 steps", "bound, continuous time", *expected]
    for name, values in expected.items():
        assert {key: rows[name][key] for key in summary(values)} == summary(values)
        expected_pair = summary(values - mix(nats))
        assert rows[name]["difference"] == expected_pair["nats"]
        assert rows[name]["difference_error"] == expected_pair["nats_standard_error"]
    assert result["reference"] == "mixture of 3 orders"
    assert result["notes"] == []
    evaluated = run.evaluate_on(FEW, batch_size=5)
    assert rows["bound, 4 steps"]["nats"] == pytest.approx(evaluated["nats"])
    assert rows["left to right"]["law"] == "-log p of filling in from left to right, exact"
    assert rows["all paths"]["law"] == "-log p of ancestral sampling in 4 steps, exact"


@pytest.mark.slow
def test_the_mixture_of_orders_is_that_of_their_laws(run, nats_of_orders):
    batch = {"x": EXAMPLES}
    index = jnp.arange(len(EXAMPLES))
    for orders, draw, rows in (
        (runs.Orders(3), bound.random_order(0), index[:1]),
        (runs.Orders(3, own=True), bound.random_order(0), index),
        (runs.Orders(3, by_block=True), bound.random_blocks(0), index[:1]),
    ):
        found = run.compute_likelihood(batch, batch_size=64, orders=orders)["orders"]
        numbers = drawn(draw, rows)
        nats = np.take_along_axis(nats_of_orders, numbers, axis=0)  # [3, 64]
        for name, expected in (
            ("mean", nats.mean(0)),
            ("mixture", mix(nats)),
            ("gain", nats.mean(0) - mix(nats)),
        ):
            assert {key: found[name][key] for key in summary(expected)} == summary(expected)
        # The errors over examples contain those over orders of their own.
        error = None if orders.own else pytest.approx(nats.mean(1).std(ddof=1) / math.sqrt(3), rel=1e-4)
        assert found["mean"]["nats_draws_error"] == error
        weights = np.exp(-nats)
        assert found["effective"] == pytest.approx(
            (weights.sum(0) ** 2 / (weights**2).sum(0)).mean(), rel=1e-4
        )
        if orders.by_block:
            assert all(place // 2 == ORDERS[m[0]][0] // 2 for m in numbers for place in ORDERS[m[0]][:2])
    found = run.compute_likelihood(batch, batch_size=64, orders="all")["orders"]
    assert found == {
        "num": "all",
        "law": "-log p of the mixture of all orders, exact",
        "mixture": summary(mix(nats_of_orders)),
    }


@pytest.mark.slow
def test_errors_over_draws_are_those_of_other_draws():
    M, N = 12, 30
    rng = np.random.default_rng(0)
    of_examples = rng.normal(size=(1, N)) + 40

    def draw():
        """Nats of examples in orders of different likelihoods."""
        shared = rng.normal(size=(M, 1)) * 0.3
        return of_examples + rng.normal(size=(M, N)) * 0.3 + shared

    summaries = [bound.summarize_mixture(draw(), 4, common=True) for _ in range(300)]
    for name in ("mean", "mixture", "gain"):
        spread = np.std([x[name]["nats"] for x in summaries], ddof=1)
        errors = [x[name]["nats_draws_error"] for x in summaries]
        assert np.mean(errors) == pytest.approx(spread, rel=0.2)


def test_orders_that_cannot_be_taken_are_refused_in_a_line(run):
    for orders in (16, "every", np.zeros((2, 6))):
        with pytest.raises(UserError, match=r'orders = .*: it must be runs.Orders\(num\), "all" or None'):
            run.compute_likelihood({"x": EXAMPLES}, orders=orders)
    with pytest.raises(UserError, match="num = 0: it must be"):
        runs.Orders(0)
    with pytest.raises(UserError, match="examples of shape \\[6\\] have no blocks"):
        filling.check_blocks((6,))
    with pytest.raises(
        UserError, match="all orders are of at most 16 elements, and the whole example has 17"
    ):
        filling.check_all_orders((17,))


@pytest.mark.slow
def test_the_continuous_bound_is_the_mean_over_all_orders(run, nats_of_orders):
    x = np.repeat(FEW[:1], 20_000, axis=0)
    measure = functools.partial(evaluate, run.parts, examples={"x": x}, batch_size=20_000)
    row = certificate._compute_bounds(run.parts, measure, 0)[1]
    error = row.nats.std() / math.sqrt(len(x))
    assert abs(row.nats.mean() - nats_of_orders[:, NUMBERS[0]].mean()) < 4 * error < 0.1


def ranks(m):
    """The numbers [*S] by which one of ORDERS fills in."""
    return (np.argsort(ORDERS[m]) / D).reshape(SHAPE)


def test_log_p_is_that_of_the_orders_that_are_passed(run, nats_of_orders):
    of_few = nats_of_orders[:, NUMBERS]
    two = np.stack([ranks(100), ranks(333)])
    for orders, expected in (
        (None, of_few[0]),
        (two, mix(of_few[[100, 333]])),
        (two[:1] ** 3, of_few[100]),
    ):
        found = run.log_prob(FEW, orders=orders, batch_size=5)
        np.testing.assert_allclose(found, -expected, atol=1e-5)
    for orders, words in (
        (np.zeros(SHAPE), r"orders holds 0.0..0.0, or a number twice: pass .*without ties"),
        (two + 1, "orders holds 1.0..1.8"),
        (two[0] * np.nan, "orders holds nan..nan"),
        (np.reshape(ORDERS[5], SHAPE), r"orders is .*int.*np.argsort\(places\).reshape\(3, 2\) / 6"),
        (two[:0], r"orders is .*\(0, 3, 2\): pass runs.Orders"),
        (two[:, :2], r"orders is of .*\(2, 2, 2\): pass runs.Orders"),
        (two > 2, "orders is .*bool.*: pass runs.Orders"),
        ("left", "orders is .*: pass runs.Orders"),
        (runs, "orders is .*: pass runs.Orders"),
        (16, "orders is .*: pass runs.Orders"),
    ):
        with pytest.raises(UserError, match=words):
            run.log_prob(FEW, orders=orders)
    for given in (np.zeros(SHAPE), np.zeros(6, bool), "left"):
        with pytest.raises(UserError, match=r"given is .*: pass booleans \[3, 2\], or \[5, 3, 2\]"):
            run.log_prob(FEW, given=given)


@pytest.mark.slow
def test_what_is_given_has_three_answers(run, nats_of_orders):
    given = np.zeros((5, D), bool)
    given[:, [1, 4]] = True
    given[2] = [True, False, False, True, True, True]
    given[3] = False
    given[4] = True
    flat = EXAMPLES.reshape(-1, D)
    law = mix(nats_of_orders)
    expected = {"one": [], "infilling": [], "bayes": []}
    for i, number in enumerate(NUMBERS):
        agrees = (flat == flat[number])[:, given[i]].all(1)
        num_given = given[i].sum()
        begins = [m for m, order in enumerate(ORDERS) if given[i][list(order[:num_given])].all()]

        def conditional(nats, agrees=agrees, number=number):
            return -nats[number] - np.logaddexp.reduce(-nats[agrees])

        # Of all orders that begin with what is given, the first of ORDERS has the rest from left to right.
        of_orders = np.array([conditional(nats_of_orders[m]) for m in begins])
        expected["one"].append(of_orders[0])
        expected["infilling"].append(-mix(-of_orders))
        expected["bayes"].append(conditional(law))
    shape = given.reshape(FEW.shape)
    for name, orders in (("one", None), ("infilling", "all")):
        found = run.log_prob(FEW, shape, orders, batch_size=5)
        np.testing.assert_allclose(found, expected[name], atol=2e-5)
    np.testing.assert_allclose(run.bayes_conditional(FEW, shape), expected["bayes"], atol=2e-5)
    np.testing.assert_allclose(run.log_prob(FEW, shape[0])[0], expected["one"][0], atol=1e-5)
    assert abs(np.subtract(expected["infilling"], expected["bayes"])).max() > 0.01
    in_all = run.log_prob(FEW, orders="all", batch_size=5)
    np.testing.assert_allclose(in_all, -law[NUMBERS], atol=1e-5)
    # A mixture of orders that are common to all examples is a law.
    assert np.exp(run.log_prob(EXAMPLES, orders=runs.Orders(3))).sum() == pytest.approx(1, abs=1e-5)


def fill_in_bits(weights, xt):
    """A small network of 12 bits that sees no time, in the type of its weights."""
    inside, outside = weights
    hidden = jnp.tanh(jax.nn.one_hot(xt, 3, dtype=inside.dtype).reshape(len(xt), -1) @ inside)
    return d3pm.forbid((hidden @ outside).reshape(*xt.shape, 3), 2)


@pytest.mark.slow
def test_all_orders_of_12_bits_are_the_enumerated_law(x64):
    rng = np.random.default_rng(0)
    weights = rng.normal(size=(36, 16)), rng.normal(size=(16, 36))
    fill_in = functools.partial(fill_in_bits, tuple(map(jnp.asarray, weights)))
    law = enumeration.fill_in_law(fill_in, (12,), 2, 2)
    assert np.exp(law).sum() == pytest.approx(1, abs=1e-9)
    x = enumeration.list_examples((12,), 2)[::512]
    nats = d3pm.orders.all_orders(fill_in, jnp.asarray(x), 2)
    np.testing.assert_allclose(nats, -law[::512], rtol=0, atol=1e-9)


@pytest.mark.slow
def test_a_certificate_of_12_bits_has_the_truth_as_far_as_float32_goes(tmp_path):
    run = open_run(tmp_path / "run", (12,))
    law = enumeration.fill_in_law(lambda xt: run.predict(xt, np.ones(len(xt), int)), (12,), 2, 2)
    x = enumeration.list_examples((12,), 2)[::512]
    rows = certificate.compute_certificate(run.parts, {"x": x}, draws=1)["rows"]
    assert rows[-1]["name"] == "all orders"
    assert rows[-1]["nats"] == pytest.approx(-law[::512].mean(), abs=2e-5)


@pytest.mark.slow
def test_the_paired_error_is_that_of_other_examples(nats_of_orders):
    rng = np.random.default_rng(0)
    nats = nats_of_orders[rng.integers(0, 720, 4)]  # [4, 64]
    gain = bound.summarize_mixture(nats, D, common=True)["gain"]
    of_examples = nats.mean(0) - mix(nats)
    resampled = of_examples[rng.integers(0, 64, (4000, 64))].mean(1)
    assert gain["nats"] == pytest.approx(of_examples.mean(), abs=1e-5)
    assert gain["nats_standard_error"] == pytest.approx(resampled.std(), rel=0.05)
    assert gain["nats_standard_error"] < nats.mean(0).std() / 8
