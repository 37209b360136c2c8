"""Exact likelihoods of a run in many orders, their mixtures, and certificates, against enumeration."""

import dataclasses
import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from d3pm_jax import runs
from d3pm_jax.config import MLP, Absorbing, Arrays, Config, Reciprocal, Train
from d3pm_jax.data import Description
from d3pm_jax.errors import UserError
from d3pm_jax.evaluation import bound
from d3pm_jax.program.measure import filling
from tests import tiny

SHAPE = (3, 2)
D = 6
ORDERS = list(itertools.permutations(range(D)))
EXAMPLES = np.indices((2,) * D, np.int32).reshape(D, -1).T.reshape(-1, *SHAPE)  # all 64


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run of random weights on 6 bits, which fills in masks and sees no time."""
    folder = tmp_path_factory.mktemp("exact")
    config = Config(
        data=Arrays("train.npy", "test.npy", 2),
        process=Absorbing(3, 4, Reciprocal(), 2),
        model=MLP(width=8, num_layers=1, see_time=False),
        train=Train(steps=10),
    )
    tiny.write_run(folder / "run", config, description=Description(SHAPE, 2))
    opened = runs.open(folder / "run", batch_size=64)
    # Weights of the tests are small: larger ones make orders differ.
    state = dataclasses.replace(opened.parts.state, ema=jax.tree.map(lambda x: 8 * x, opened.params))
    return dataclasses.replace(opened, parts=opened.parts.with_state(state))


@pytest.fixture(scope="module")
def nats_of_orders(run):
    """-log p of all 64 examples in all 720 orders, [720, 64], from one call of the network on all masks."""
    partial = np.indices((3,) * D, np.int32).reshape(D, -1).T  # [729, 6], 2 is the mask
    logits = run.predict(partial.reshape(-1, *SHAPE), np.ones(len(partial), int))
    logits = np.asarray(logits, np.float64).reshape(len(partial), D, 3)[..., :2]
    log_p = logits - np.logaddexp.reduce(logits, -1, keepdims=True)
    nats = np.zeros((len(ORDERS), len(EXAMPLES)))
    flat = EXAMPLES.reshape(-1, D)
    for m, order in enumerate(ORDERS):
        visible = np.full_like(flat, 2)
        for place in order:
            rows = visible @ 3 ** np.arange(D)[::-1]
            nats[m] -= log_p[rows, place, flat[:, place]]
            visible[:, place] = flat[:, place]
    return nats


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


def test_the_mixture_of_orders_is_that_of_their_laws(run, nats_of_orders):
    batch = {"x": EXAMPLES}
    index = jnp.arange(len(EXAMPLES))
    for orders, draw, rows in (
        (runs.Orders(3), bound.random_order(0), index[:1]),
        (runs.Orders(3, own=True), bound.random_order(0), index),
        (runs.Orders(3, by_block=True), bound.random_blocks(0), index[:1]),
    ):
        found = run.compute_likelihood(batch, batch_size=64, orders=orders)["orders"]
        drawn = [np.broadcast_to(draw(rows, SHAPE, m), EXAMPLES.shape) for m in range(3)]
        nats = np.array([[nats_of_orders[number_of(order), i] for i, order in enumerate(m)] for m in drawn])
        for name, expected in (
            ("mean", nats.mean(0)),
            ("mixture", mix(nats)),
            ("gain", nats.mean(0) - mix(nats)),
        ):
            assert {key: found[name][key] for key in summary(expected)} == summary(expected)
        of_draws = nats if orders.own else nats.mean(1, keepdims=True)
        variance = of_draws.var(0, ddof=1).sum() / 3 / of_draws.shape[1] ** 2
        assert found["mean"]["nats_draws_error"] == pytest.approx(math.sqrt(variance), rel=1e-4)
        weights = np.exp(-nats)
        assert found["effective"] == pytest.approx(
            (weights.sum(0) ** 2 / (weights**2).sum(0)).mean(), rel=1e-4
        )
        if orders.by_block:
            assert all(set(np.argsort(m[0].ravel())[:2] // 2) in ({0}, {1}, {2}) for m in drawn)
    found = run.compute_likelihood(batch, batch_size=64, orders="all")["orders"]
    assert found == {
        "num": "all",
        "law": "-log p of the mixture of all orders, exact",
        "mixture": summary(mix(nats_of_orders)),
    }


@pytest.mark.slow
@pytest.mark.parametrize("common", [True, False])
def test_errors_over_draws_are_those_of_other_draws(common):
    M, N = 12, 30
    rng = np.random.default_rng(0)
    of_examples = rng.normal(size=(1, N)) + 40

    def draw():
        """Nats of examples in orders of different likelihoods, and of different ones for each example."""
        shared = rng.normal(size=(M, 1)) * 0.3
        return of_examples + rng.normal(size=(M, N)) * 0.3 + (shared if common else 0)

    summaries = [bound.summarize_mixture(draw(), 4, common) for _ in range(300)]
    for name in ("mean", "mixture", "gain"):
        spread = np.std([x[name]["nats"] for x in summaries], ddof=1)
        errors = [x[name]["nats_draws_error"] for x in summaries]
        assert np.mean(errors) == pytest.approx(spread, rel=0.2)
        bits = summaries[0][name]["draws_error"]
        assert bits == pytest.approx(errors[0] / 4 / math.log(2))


def test_orders_that_cannot_be_taken_are_refused_in_a_line(run):
    for orders in (16, "every", np.zeros((2, 6))):
        with pytest.raises(UserError, match=r'orders = .*: it must be runs.Orders\(num\), "all" or None'):
            run.compute_likelihood({"x": EXAMPLES}, orders=orders)
    with pytest.raises(UserError, match="num = 0: it must be"):
        runs.Orders(0)
    with pytest.raises(UserError, match="examples of shape \\[6\\] have no blocks"):
        filling.check_blocks((6,))
    with pytest.raises(UserError, match="all orders are of at most 16 elements, and an example has 17"):
        filling.check_all_orders((17,))
