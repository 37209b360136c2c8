"""Laws that are known, against sums over all states in NumPy, and their networks against Bayes' rule."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import d3pm_jax as d3pm
from d3pm_jax import oracles, sampling

K = 3
L = 5
STATES = np.array(list(itertools.product(range(K), repeat=L)))  # [K^L, L]
EVERY = jnp.asarray(STATES, jnp.int32)
PARENTS = np.array([0, 0, 1, 0])


def make_oracles():
    """Returns an oracle of each kind, and its probabilities by its definition, [K^L]."""
    rng = np.random.default_rng(0)
    start = rng.dirichlet(np.ones(K))
    step = rng.dirichlet(np.ones(K), K)
    step[0] = [0, 0.3, 0.7]  # what is never
    steps = rng.dirichlet(np.ones(K), (L - 1, K))
    weights = rng.dirichlet(np.ones(4))
    parts = rng.dirichlet(np.ones(K), (4, L))
    parts[0, 0] = [0, 0, 1]
    states = STATES.T
    table = rng.dirichlet(np.ones(K**L))
    of_chain = start[states[0]] * np.prod([step[states[i], states[i + 1]] for i in range(L - 1)], axis=0)
    of_tree = start[states[0]] * np.prod(
        [steps[i][states[parent], states[i + 1]] for i, parent in enumerate(PARENTS)], axis=0
    )
    of_mixture = sum(
        w * np.prod([part[i][states[i]] for i in range(L)], axis=0)
        for w, part in zip(weights, parts, strict=True)
    )
    return {
        "chain": (oracles.markov_chain(start, step, L), of_chain),
        "tree": (oracles.tree(PARENTS, start, steps), of_tree),
        "mixture": (oracles.product_mixture(weights, parts), of_mixture),
        "table": (oracles.table(table.reshape((K,) * L)), table),
    }


def sum_over_states(p, evidence, leave_out):
    """Returns p(x_0 at a place | the evidence of the others, or of all) [B, L, K], state by state."""
    beliefs = np.zeros(evidence.shape)
    for b, place in np.ndindex(*evidence.shape[:2]):
        weight = p.copy()
        for other in range(L):
            if not (leave_out and other == place):
                weight = weight * evidence[b, other, STATES[:, other]]
        beliefs[b, place] = np.bincount(STATES[:, place], weight, minlength=K)
    total = beliefs.sum(axis=-1, keepdims=True)
    return np.divide(beliefs, total, out=np.zeros_like(beliefs), where=total > 0)


@jax.jit
def ask(oracle, log_evidence, x, is_masked):
    return {
        "log_prob": oracle.log_prob(EVERY),
        "leave_one_out": oracle.leave_one_out(log_evidence),
        "denoiser": oracle.denoiser(log_evidence),
        "fill_in": oracle.fill_in(x, is_masked),
    }


@pytest.mark.parametrize("kind", ["chain", "tree", "mixture", "table"])
def test_oracles_equal_sums_over_all_states(kind, x64):
    rng = np.random.default_rng(1)
    oracle, p = make_oracles()[kind]
    evidence = np.where(rng.random((8, L, K)) < 0.3, 0.0, rng.random((8, L, K)))
    x = rng.integers(0, K, (8, L))
    is_masked = rng.random((8, L)) < [[0.0]] * 1 + [[0.6]] * 6 + [[1.0]]
    with np.errstate(divide="ignore"):
        said = ask(oracle, np.log(evidence), x.astype(np.int32), is_masked)
    visible = np.where(is_masked[..., None], 1.0, np.eye(K)[x])
    for name, expected in (
        ("log_prob", p),
        ("leave_one_out", sum_over_states(p, evidence, leave_out=True)),
        ("denoiser", sum_over_states(p, evidence, leave_out=False)),
        ("fill_in", sum_over_states(p, visible, leave_out=True)),
    ):
        actual = np.exp(said[name])
        if name == "fill_in":
            # Of what is never visible together nothing is promised.
            actual = np.where(expected.sum(axis=-1, keepdims=True) > 0, actual, 0.0)
        np.testing.assert_allclose(actual, expected, rtol=1e-12, atol=1e-15, err_msg=name)
    np.testing.assert_allclose(p.sum(), 1, rtol=1e-12)


@pytest.mark.parametrize("kind", ["chain", "tree", "mixture", "table"])
def test_draws_are_of_the_law_and_the_same_however_many_they_are(kind):
    oracle, p = make_oracles()[kind]
    num = 100_000
    x = np.asarray(jax.jit(lambda oracle, key: oracle.draw(key, num))(oracle, jax.random.key(2)))
    counts = np.bincount(x @ K ** np.arange(L - 1, -1, -1), minlength=K**L)
    assert counts[p == 0].sum() == 0
    held = p > 0
    chi_square = np.sum((counts[held] - num * p[held]) ** 2 / (num * p[held]))
    degrees = held.sum() - 1
    assert abs(chi_square - degrees) < 5 * np.sqrt(2 * degrees)
    np.testing.assert_array_equal(oracle.draw(jax.random.key(2), 7), x[:7])


def make_processes():
    """Returns processes of few steps, one of each form of evidence, masks among them."""
    beta = d3pm.reciprocal(4)
    uniform = d3pm.uniform(beta, K)
    return {
        "absorbing": d3pm.absorbing(beta, K + 1, mask_id=K),
        "uniform": uniform,
        "mask on top": d3pm.masked(d3pm.uniform(np.array([0.1, 0.2, 0.3, 0.4]), K), beta),
        "gaussian": d3pm.gaussian(np.array([0.1, 0.3, 0.5, 0.9]), K),
    }


@jax.jit
def ask_network(oracle, process, xt, t):
    return oracles.network(oracle, process)(xt, process.time[t])


@jax.jit
def draw_and_tabulate(process, x0, t, u):
    return process.draw_q(x0, t, u), process.Qbar(t)


@pytest.mark.filterwarnings("ignore:x_T still depends on x_0")
def test_a_network_of_an_oracle_is_the_conditional_of_the_joint_law(x64):
    """Of x_0 and x_t by the matrices of the process; respaced or not."""
    oracle, p = make_oracles()["tree"]
    rng = np.random.default_rng(3)
    for process in make_processes().values():
        x0 = STATES[rng.choice(len(p), 4, p=p)]
        t = np.array([1, 2, 4, 4])
        xt, Qbar = draw_and_tabulate(process, x0.astype(np.int32), t, rng.random(x0.shape))
        evidence = np.asarray(Qbar)[np.arange(4)[:, None], :K, np.asarray(xt)]  # [B, L, K]
        expected = sum_over_states(p, evidence, leave_out=True)
        said = ask_network(oracle, process, xt, t)
        np.testing.assert_allclose(np.exp(said[..., :K]), expected, rtol=1e-11, atol=1e-14)
        assert np.all(np.asarray(said[..., K:]) == -np.inf)

        # A network is told the step of the process as it was, whichever of the two it was made of.
        if process.K == K:
            respaced = d3pm.respace(process, (2, 4))
            in_respaced = ask_network(oracle, respaced, xt[1:], t[1:] // 2)
            np.testing.assert_allclose(np.exp(in_respaced), expected[1:], rtol=1e-11, atol=1e-14)


def test_powers_and_sums_along_a_long_chain_agree_in_float32():
    """256 places of 27 categories: powers of the matrix stand for all evidence between two visible places."""
    rng = np.random.default_rng(4)
    step = rng.dirichlet(np.full(27, 0.2), 27) * 0.99 + 0.01 / 27
    start = np.linalg.matrix_power(step, 500)[0]
    chain = oracles.markov_chain(start / start.sum(), step, 256)
    assert len(chain.log_powers) < 128  # the others are as the last
    x = chain.draw(jax.random.key(5), 3)
    is_masked = jnp.asarray(rng.random((3, 256)) < [[0.5], [0.99], [1.0]])
    by_powers = jax.jit(oracles.MarkovChain.fill_in)(chain, x, is_masked)
    by_sums = jax.jit(oracles.Oracle.fill_in)(chain, x, is_masked)
    np.testing.assert_allclose(np.exp(by_powers), np.exp(by_sums), rtol=2e-4, atol=1e-6)


def test_a_matrix_with_too_many_powers_has_none(x64):
    step = np.roll(np.eye(300), 1, axis=1)  # it goes round, and never settles
    chain = oracles.markov_chain(np.full(300, 1 / 300), step, 1000)
    assert chain.log_powers is None
    x = jnp.full((1, 1000), 7, jnp.int32)
    said = chain.fill_in(x, jnp.arange(1000)[None] > 0)
    np.testing.assert_array_equal(jnp.argmax(said[0], axis=-1)[1:], (7 + np.arange(1, 1000)) % 300)


def test_small_probabilities_are_0_in_all_that_an_oracle_says():
    p = np.array([[1 - 1e-30, 1e-30], [0.5, 0.5]])
    start = np.array([1.0, 0.0])
    evidence = jnp.asarray([[[0.0, -jnp.inf], [0.0, 0.0]]])

    @jax.jit
    def say_all(oracle):
        x = jnp.asarray([[0, 1]], jnp.int32)
        believed = oracle.fill_in(x, jnp.asarray([[False, True]]))
        return oracle.log_prob(x)[0], believed[0, 1, 1], oracle.leave_one_out(evidence)[0, 1, 1]

    for oracle in (
        oracles.markov_chain(start, p, 2),
        oracles.tree([0], start, p[None]),
        oracles.product_mixture([1.0], np.stack([start, p[0]])[None]),
    ):
        assert say_all(oracle) == (-jnp.inf, -jnp.inf, -jnp.inf)


def test_a_chain_along_one_place_and_a_tree_without_branches():
    p = np.array([0.25, 0.75])
    chain = oracles.markov_chain(p, np.full((2, 2), 0.5), 1)
    tree = oracles.tree(np.zeros(0, int), p, np.zeros((0, 2, 2)))
    nothing = jnp.zeros((2, 1), bool)
    x = jnp.zeros((2, 1), jnp.int32)
    for oracle in (chain, tree):
        np.testing.assert_allclose(oracle.fill_in(x, nothing), np.log([[p], [p]]), rtol=1e-6)
        assert oracle.draw(jax.random.key(0), 3).shape == (3, 1)
        np.testing.assert_allclose(oracle.log_prob(x), np.log([0.25, 0.25]), rtol=1e-6)


@pytest.mark.filterwarnings("ignore:x_T still depends on x_0")
def test_an_oracle_draws_its_own_law_as_a_network():
    """An exact network that fills in one place a call draws what the oracle does: here all of its pairs."""
    oracle, p = make_oracles()["chain"]
    process = make_processes()["absorbing"]

    @jax.jit
    def draw(oracle, process, key):
        denoiser = sampling.Denoiser(process, oracles.network(oracle, process), "leave_one_out")
        return sampling.sample(key, denoiser, (30_000, L), sampling.named.random_order()).x0

    x = np.asarray(draw(oracle, process, jax.random.key(6)))
    counts = np.bincount(x @ K ** np.arange(L - 1, -1, -1), minlength=K**L)
    assert counts[p == 0].sum() == 0
    assert 0.5 * np.abs(counts / len(x) - p).sum() < 0.04  # of as many draws of the law itself some 0.02


UNIFORM = np.full((2, 2), 0.5)
REFUSED = [
    (lambda: oracles.markov_chain(np.ones(2), UNIFORM, 3), "start must be 2 probabilities that sum to 1"),
    (lambda: oracles.markov_chain(np.ones(2) / 2, np.ones((2, 3)) / 3, 3), r"step has shape \(2, 3\)"),
    (lambda: oracles.markov_chain(np.ones(2) / 2, UNIFORM * 2, 3), r"step\[0\] must be 2 probabilities"),
    (lambda: oracles.markov_chain(np.ones(2) / 2, UNIFORM, 0), "length = 0"),
    (lambda: oracles.markov_chain(np.ones(2) / 2, 0.5, 3), r"step has shape \(\), expected \[K, K\]"),
    (lambda: oracles.markov_chain(0.5, UNIFORM, 3), "start must be 2 probabilities"),
    (lambda: oracles.tree([0], 1.0, UNIFORM[None]), r"root has shape \(\), expected \[K\]"),
    (lambda: oracles.tree([[0]], np.ones(2) / 2, UNIFORM[None]), r"parents has shape \(1, 1\)"),
    (lambda: oracles.tree(0, np.ones(2) / 2, UNIFORM[None]), r"parents has shape \(\)"),
    (lambda: oracles.tree([0], np.ones(2) / 2, 0.5), r"steps has shape \(\)"),
    (lambda: oracles.product_mixture(1.0, UNIFORM[None]), "weights must be 1 probabilities"),
    (lambda: oracles.table(1.0), r"p has shape \(\)"),
    (
        lambda: oracles.tree(np.array([1]), np.ones(2) / 2, UNIFORM[None]),
        r"parents\[0\] = 1 is no place before",
    ),
    (lambda: oracles.tree(np.array([0, 0]), np.ones(2) / 2, UNIFORM[None]), r"steps has shape \(1, 2, 2\)"),
    (lambda: oracles.product_mixture(np.ones(1), UNIFORM), r"p has shape \(2, 2\), expected \[M, L, K\]"),
    (lambda: oracles.product_mixture(np.ones(2), UNIFORM[None]), "weights must be 1 probabilities"),
    (lambda: oracles.table(np.full((2, 3), 1 / 6)), r"p has shape \(2, 3\)"),
    (lambda: oracles.table(np.full((2,) * 21, 2.0**-21)), "at most 2"),
    (lambda: oracles.table(UNIFORM), r"p must be 4 probabilities that sum to 1"),
    (
        lambda: oracles.network(oracles.table(UNIFORM / 2), d3pm.uniform(d3pm.cosine(4), 3)),
        "process.K = 3, and the oracle has K = 2",
    ),
    (
        lambda: oracles.network(oracles.table(UNIFORM / 2), d3pm.absorbing(d3pm.reciprocal(4), 3, mask_id=0)),
        "needs mask_id = 2",
    ),
    (
        lambda: oracles.table(UNIFORM / 2).log_prob(np.array([[0, 2]])),
        r"x contains 2, outside 0..1: the oracle has K = 2",
    ),
    (
        lambda: oracles.table(UNIFORM / 2).log_prob(np.array([[0, 1, 1]])),
        r"x has shape \(1, 3\), expected \[B, 2\] as in the oracle",
    ),
    (lambda: oracles.table(UNIFORM / 2).leave_one_out(np.zeros((1, 2, 3))), "log_evidence has shape"),
    (lambda: oracles.table(UNIFORM / 2).denoiser(np.full((1, 2, 2), np.nan)), "log_evidence contains nan"),
]


@pytest.mark.parametrize(("build", "said"), REFUSED)
def test_what_is_no_law_or_does_not_fit_it_is_refused(build, said):
    with pytest.raises(ValueError, match=said) as error:
        build()
    assert "\n" not in str(error.value)


def test_what_is_masked_may_hold_any_number_and_what_is_not_may_not():
    oracle = oracles.table(UNIFORM / 2)
    x = jnp.asarray([[2, 1], [1, 2]], jnp.int32)
    said = oracle.fill_in(x, x == 2)
    np.testing.assert_allclose(said, np.log(np.full((2, 2, 2), 0.5)), rtol=1e-6)
    with pytest.raises(ValueError, match=r"x, where it is not masked, contains 2, outside 0\.\.1"):
        oracle.fill_in(x, jnp.zeros((2, 2), bool))
