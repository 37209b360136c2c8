"""The law of x_s that a classifier guides: by its definition, by enumeration, and what it costs in calls."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from d3pm_jax.sampling import guidance
from tests.sampling import rules
from tests.sampling.cases import make_process
from tests.sampling.rules import K, T

L = 3
NAMES = ("uniform", "marginal", "absorbing", "masked", "gaussian")
STATES = rules.all_states(L)  # [K^L, L]
CLEAR = 1e-2  # far above rounding

pytestmark = [pytest.mark.usefixtures("x64"), pytest.mark.filterwarnings("ignore:x_T still depends")]


@functools.cache
def laws_of_rows() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """p(x_s | x_t) of every process, step t and state, with x_t and t: [N, L, K], [N, L] and [N]."""
    laws = []
    for name in NAMES:
        world = rules.make_world(name)
        _, beliefs, _ = rules.exact_beliefs(world, rules.data_law(world, L), L)
        for t in range(1, T + 1):
            laws.append(rules.bayes(world, beliefs[t], STATES, t))
    t = np.tile(np.repeat(np.arange(1, T + 1), len(STATES)), len(NAMES))
    return np.concatenate(laws), np.tile(STATES, (len(NAMES) * T, 1)), t


def guided_by(log_prob, gamma, exact):
    """The law of the library, [N, L, K]."""
    laws, x, t = laws_of_rows()
    guided = guidance.by_classifier(lambda x, time: jnp.zeros((*x.shape, K)), log_prob, gamma, exact)

    # The process says what its times and its K are: they are the same of all.
    @jax.jit
    def guide(process, log_law, x, t):
        return guided.guide([log_law], process, x, t, t - 1)

    with np.errstate(divide="ignore"):
        log_law = jnp.asarray(np.log(laws))
    return np.exp(guide(make_process("uniform"), log_law, jnp.asarray(x), jnp.asarray(t, jnp.int32)))


def defined(likelihood, gamma):
    """p(x_s = k at a place | x_t) p(y | x_t with k there)^gamma, normalised; likelihood is [T + 1, K^L].

    It is 0 where nothing is possible: x_t cannot be, or the class is ruled out whatever is there.
    """
    laws, x, t = laws_of_rows()
    tilted = np.zeros_like(laws)
    for place in range(L):
        for k in range(K):
            changed = x.copy()
            changed[:, place] = k
            factor = likelihood[t - 1, rules.number_of(changed)] ** gamma
            tilted[:, place, k] = laws[:, place, k] * factor
    total = tilted.sum(-1, keepdims=True)
    return tilted / np.where(total > 0, total, 1)


RANDOM = np.random.default_rng(7)
TABLE = RANDOM.uniform(0.05, 0.95, (T + 1, K**L))  # p(y | x, t)
WEIGHTS = RANDOM.normal(size=(T + 1, L, K))
SCORES = np.stack([WEIGHTS[:, place, STATES[:, place]] for place in range(L)]).sum(0)  # [T + 1, K^L]


def linear(one_hots, time):
    """log p(y | x) = -10 + sum_l w[l, x_l]."""
    return jnp.einsum("blk,blk->b", one_hots, jnp.asarray(WEIGHTS)[time]) - 10


def linear_in_each(one_hots, time):
    """log p(y | x) from a table of all states: linear in the one-hots of an element while the others stay."""
    log_p = jnp.log(jnp.asarray(TABLE))[time].reshape(-1, K, K, K)
    return jnp.einsum("bi,bj,bk,bijk->b", *jnp.moveaxis(one_hots, 1, 0), log_p)


def curved(one_hots, time):
    """log p(y | x) = log sigmoid(sum_l w[l, x_l])."""
    return jax.nn.log_sigmoid(jnp.einsum("blk,blk->b", one_hots, jnp.asarray(WEIGHTS)[time]))


def with_impossible(one_hots, time):
    """p(y | x) = 0 for all x that begin with 0."""
    return jnp.where(one_hots[:, 0, 0] == 1, -jnp.inf, linear_in_each(one_hots, time))


CLASSIFIERS = {
    linear: np.exp(SCORES - 10),
    linear_in_each: TABLE,
    curved: 1 / (1 + np.exp(-SCORES)),
}


@pytest.mark.parametrize("log_prob", CLASSIFIERS)
def test_the_exact_law_is_its_definition_and_the_first_order_where_the_classifier_is_linear(log_prob):
    gamma = 1.7
    expected = defined(CLASSIFIERS[log_prob], gamma)
    np.testing.assert_allclose(guided_by(log_prob, gamma, exact=True), expected, rtol=1e-12, atol=1e-15)
    first_order = guided_by(log_prob, gamma, exact=False)
    np.testing.assert_allclose(first_order.sum(-1), expected.sum(-1), rtol=1e-12)
    if log_prob is curved:
        assert np.abs(first_order - expected).max() > CLEAR
    else:
        np.testing.assert_allclose(first_order, expected, rtol=1e-12, atol=1e-15)


def test_what_the_class_rules_out_is_never_drawn():
    likelihood = TABLE * (STATES[:, 0] != 0)
    actual = guided_by(with_impossible, 2.0, exact=True)
    np.testing.assert_allclose(actual, defined(likelihood, 2.0), rtol=1e-12, atol=1e-15)
    assert not actual[:, 0, 0].any()


@pytest.mark.parametrize("name", NAMES)
def test_of_one_element_an_exact_classifier_gives_the_law_of_the_data_with_the_label(name):
    """gamma = 1: p(x_s | x_t) p(y | x_s) is p(x_s | x_t, y) up to a factor, as x_t adds nothing to x_s."""
    world = rules.make_world(name)
    joint = np.random.default_rng(3).dirichlet(np.ones(2 * K)).reshape(2, K)  # [y, x_0]
    joint *= np.isin(np.arange(K), world.data)
    joint /= joint.sum()
    p0 = joint.sum(0)
    marginals = p0 @ world.Qbar  # [T + 1, x_t]
    with np.errstate(invalid="ignore"):
        likelihood = np.nan_to_num(joint[1] @ world.Qbar / marginals, nan=0.5)  # p(y = 1 | x_t), [T + 1, K]
    log_likelihood = jnp.log(jnp.asarray(likelihood))
    changes = jax.jit(
        lambda x, time: guidance.all_changes(
            lambda one_hots, time: log_likelihood[time, one_hots[:, 0].argmax(-1)], x, time, K
        )
    )
    law = joint[1] @ world.Qbar[T] / joint[1].sum()  # q(x_T | y), where the chain begins
    x = np.arange(K)[:, None]
    _, beliefs, _ = rules.exact_beliefs(world, p0, 1)
    for t in range(T, 0, -1):
        row = rules.bayes(world, beliefs[t], x, t)[:, 0]  # [x_t, x_s]
        with np.errstate(divide="ignore"):
            log_row = jnp.log(jnp.asarray(row))[:, None]
        tilted = guidance.tilt_logits(
            log_row, changes(jnp.asarray(x), jnp.full(K, t - 1, jnp.int32)), gamma=1.0
        )
        law = law @ np.exp(np.asarray(tilted))[:, 0]
    np.testing.assert_allclose(law, joint[1] / joint[1].sum(), rtol=1e-9, atol=1e-12)


def test_a_row_costs_one_pass_back_or_every_change_of_every_element():
    batches = []

    def counted(one_hots, time):
        batches.append(one_hots.shape)
        return linear(one_hots, time)

    B = 2
    x = jnp.zeros((B, L), jnp.int32)
    time = jnp.zeros(B, jnp.int32)
    program = jax.make_jaxpr(lambda x: guidance.first_order_changes(counted, x, time, K))(x)
    assert batches == [(B, L, K)]
    assert "scan" not in str(program)
    batches.clear()
    program = jax.make_jaxpr(lambda x: guidance.all_changes(counted, x, time, K))(x)
    # An element at a time, so that no more than K times the batch is in memory: B L K examples in all.
    assert batches == [(K * B, L, K)]
    (scan,) = [equation for equation in program.eqns if equation.primitive.name == "scan"]
    assert scan.params["length"] == L
