"""Guidance: chains draw the integers of its definition, from the same noise, in NumPy and float64."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from d3pm_jax import sampling
from d3pm_jax.sampling import Denoiser, Sampler, Shaping, guidance, make_plan, named, transitions
from d3pm_jax.sampling.correctors import Corrected, Gibbs
from tests.sampling import rules
from tests.sampling.cases import make_process
from tests.sampling.rules import K, T

L = 2  # places, where elements are alike
EXAMPLES = 200

pytestmark = [pytest.mark.usefixtures("x64"), pytest.mark.filterwarnings("ignore:x_T still depends")]


def count_places(name: str) -> int:
    return len(rules.SIZES) if name.endswith(rules.BY_PLACE) else L


@functools.cache
def make_beliefs(name: str) -> np.ndarray:
    """Random leave-one-out beliefs, with the condition and without, by t and x_t, [2, T + 1, K^L, L, K]."""
    world = rules.make_world(name)
    L = count_places(name)
    beliefs = np.random.default_rng(1).dirichlet(np.ones(world.K), (2, T + 1, world.K**L, L))
    beliefs = beliefs * world.is_data
    # A category that one of the two rules out, at a state that it is possible from.
    beliefs[0, :, -1, 0, 0] = 0
    return beliefs / beliefs.sum(-1, keepdims=True)


@functools.cache
def make_likelihoods() -> np.ndarray:
    """log p(y | x) of a class at each level, by t and x, [T + 1, K^L]."""
    return np.log(np.random.default_rng(2).uniform(0.02, 0.98, (T + 1, K**L)))


def normalised(p: np.ndarray) -> np.ndarray:
    return p / p.sum(-1, keepdims=True)


def combined(p: np.ndarray, null: np.ndarray, gamma: float) -> np.ndarray:
    """p^gamma null^(1 - gamma), normalised; 0 where either is."""
    is_possible = (p > 0) & (null > 0)
    product = np.where(is_possible, p, 1) ** gamma * np.where(is_possible, null, 1) ** (1 - gamma)
    return normalised(np.where(is_possible, product, 0))


def simulate(name: str, law_of, u: np.ndarray) -> list[np.ndarray]:
    """x at each number of rows left, T first; law_of(x, t) is the law of a row."""
    world = rules.make_world(name)
    x = rules.draw(np.broadcast_to(world.prior, (EXAMPLES, count_places(name), world.K)), u[0])
    states = [x]
    for t in range(T, 0, -1):
        x = rules.draw(law_of(x, t), u[t])
        states.append(x)
    return states


def number_of(x, K=K):
    return x @ jnp.asarray(K ** np.arange(x.shape[-1])[::-1])


def run(name: str, sampler, make_called, u: np.ndarray):
    """The chain of the library, under jit; make_called() makes what the sampler calls."""
    process = make_process(name)
    world = rules.make_world(name)
    L = count_places(name)
    xT = rules.draw(np.broadcast_to(world.prior, (EXAMPLES, L, world.K)), u[0])
    plan = make_plan(sampler, process, (L,))

    @jax.jit
    def chain(process, xT, u):
        denoiser = Denoiser(process, make_called(), "leave_one_out")
        record = list(range(T, -1, -1))
        return sampling.run(denoiser, xT, lambda row, stream: u[row], sampler, plan=plan, record=record)

    return chain(process, jnp.asarray(xT), jnp.asarray(u))


@functools.cache
def make_noise(L: int = L) -> np.ndarray:
    return np.random.default_rng(3).random((T + 1, EXAMPLES, L))


def make_network(name: str):
    """A network that says for each example what the belief of its number, 0 or 1, is."""
    logits = jnp.log(jnp.asarray(make_beliefs(name)))
    return lambda x, time, belief: logits[belief, time, number_of(x, logits.shape[-1])]


def make_free(name: str, gamma: float, on: guidance.Place, late: int | None):
    inputs = jnp.zeros(EXAMPLES, int)
    return lambda: guidance.classifier_free(make_network(name), inputs, inputs + 1, gamma, on=on, late=late)


@pytest.mark.parametrize(
    ("name", "on", "gamma", "late"),
    [
        ("marginal", "x_s", 3.0, None),
        ("marginal", "x_s", -1.0, 2),
        ("gaussian", "x_s", 0.5, None),
        ("absorbing", "x_0", 3.0, 2),
        ("gaussian", "x_0", 3.0, None),
        ("absorbing", "x_s", 3.0, None),
        ("marginal", "x_s", 0.0, 2),
        *(
            pytest.param(f"{family}{rules.BY_PLACE}", on, 3.0, 2, marks=pytest.mark.slow)
            for family in ("marginal", "absorbing")
            for on in ("x_0", "x_s")
        ),
    ],
)
def test_guidance_without_a_classifier_draws_from_its_definition(name, on, gamma, late):
    world = rules.make_world(name)
    beliefs, u = make_beliefs(name), make_noise(count_places(name))

    def law_of(x, t):
        of_condition, of_null = beliefs[:, t, rules.number_of(x, world.K)]
        gamma_now = gamma if late is None or t <= late else 1.0
        if on == "x_0":
            belief = of_condition if gamma_now == 1 else combined(of_condition, of_null, gamma_now)
            return rules.bayes(world, belief, x, t)
        # With gamma = 0 it is the null law, with all that the condition rules out.
        p, null = (rules.bayes(world, belief, x, t) for belief in (of_condition, of_null))
        return {1: p, 0: null}.get(gamma_now, combined(p, null, gamma_now))

    chain = run(name, Sampler(), make_free(name, gamma, on, late), u)
    np.testing.assert_array_equal(chain.states, simulate(name, law_of, u))
    assert chain.failed_at == 0
    np.testing.assert_array_equal(chain.calls, 2 * T)
    assert chain.program_calls == T


@pytest.mark.parametrize(("gamma", "belief"), [(1.0, 0), (0.0, 1)])
def test_gamma_of_1_and_0_are_the_network_itself_with_one_call(gamma, belief):
    u = make_noise()
    guided = make_free("marginal", gamma, "x_s", None)
    chain = run("marginal", Sampler(), guided, u)
    network = make_network("marginal")
    plain = run("marginal", Sampler(), lambda: lambda x, t: network(x, t, jnp.full(EXAMPLES, belief)), u)
    np.testing.assert_array_equal(chain.states, plain.states)
    np.testing.assert_array_equal(chain.calls, plain.calls)


# ---- By a classifier ----


def table_of_likelihoods(one_hots, time):
    """log p(y | x), linear in the one-hots of each element."""
    log_p = jnp.asarray(make_likelihoods())[time].reshape(-1, K, K)
    return jnp.einsum("bi,bj,bij->b", one_hots[:, 0], one_hots[:, 1], log_p)


WEIGHTS = np.random.default_rng(5).normal(size=(T + 1, L, K))


def curved_likelihoods(one_hots, time):
    """log sigmoid(w . h), which is not linear."""
    return jax.nn.log_sigmoid(jnp.einsum("blk,blk->b", one_hots, jnp.asarray(WEIGHTS)[time]))


def changes(log_p: np.ndarray, x: np.ndarray) -> np.ndarray:
    """log p(y | x with an element changed), [B, L, K], from a table by state."""
    result = np.empty((*x.shape, K))
    for place in range(L):
        for k in range(K):
            changed = x.copy()
            changed[:, place] = k
            result[:, place, k] = log_p[rules.number_of(changed)]
    return result


def first_order(x: np.ndarray, s: int) -> np.ndarray:
    """The value and the derivative of log sigmoid at x, by hand."""
    w = WEIGHTS[s]
    at_x = np.stack([w[place, x[:, place]] for place in range(L)], axis=-1)
    score = at_x.sum(-1)
    slope = 1 / (1 + np.exp(score))
    return -np.log1p(np.exp(-score))[:, None, None] + slope[:, None, None] * (w - at_x[..., None])


@pytest.mark.parametrize(
    ("name", "log_prob", "gamma", "exact"),
    [
        ("marginal", table_of_likelihoods, 2.0, True),
        ("marginal", table_of_likelihoods, 2.0, False),
        ("absorbing", table_of_likelihoods, -0.5, True),
        ("gaussian", curved_likelihoods, 1.5, False),
    ],
)
def test_a_classifier_multiplies_the_law_of_each_element(name, log_prob, gamma, exact):
    world = rules.make_world(name)
    belief, u = make_beliefs(name)[1], make_noise()

    def law_of(x, t):
        law = rules.bayes(world, belief[t, rules.number_of(x)], x, t)
        if log_prob is curved_likelihoods:
            log_p = first_order(x, t - 1)
        else:
            log_p = changes(make_likelihoods()[t - 1], x)
        return normalised(law * np.exp(gamma * log_p))

    def make_called():
        with np.errstate(divide="ignore"):
            logits = jnp.asarray(np.log(belief))
        return guidance.by_classifier(lambda x, t: logits[t, number_of(x)], log_prob, gamma, exact)

    chain = run(name, Sampler(), make_called, u)
    np.testing.assert_array_equal(chain.states, simulate(name, law_of, u))
    np.testing.assert_array_equal(chain.calls, T)


def test_a_network_that_is_guided_on_x_0_may_be_guided_by_a_classifier_too():
    def both_of(log_prob, on="x_0"):
        return lambda: guidance.by_classifier(make_free("marginal", 3.0, on, None)(), log_prob)

    u = make_noise()
    free = run("marginal", Sampler(), make_free("marginal", 3.0, "x_0", None), u)
    unmoved = run("marginal", Sampler(), both_of(lambda one_hots, time: jnp.zeros(len(one_hots))), u)
    np.testing.assert_array_equal(unmoved.states, free.states)
    np.testing.assert_array_equal(unmoved.calls, 2 * T)
    with pytest.raises(TypeError, match="ClassifierFree guides the law of x_s, and is no network"):
        run("marginal", Sampler(), both_of(curved_likelihoods, on="x_s"), u)


def test_logits_of_few_digits_are_combined_in_more():
    rng = np.random.default_rng(4)
    logits, null_logits = jnp.asarray(rng.normal(size=(2, 9, K)) * 5, jnp.bfloat16)
    few = guidance.combine_logits(logits, null_logits, 2.1)
    many = guidance.combine_logits(logits.astype(float), null_logits.astype(float), 2.1)
    np.testing.assert_allclose(few, many, atol=1e-5)


# ---- What cannot be guided ----


@pytest.mark.parametrize(
    ("sampler", "message"),
    [
        (named.maskgit(rows=2), "revealed places take x_0: guide x_0, or leave it out"),
        (Sampler(Corrected(Gibbs())), "a corrector moves by another: guide x_0"),
        (Sampler(transitions.Stratified()), "Stratified moves by a clock: guide x_0"),
        (
            Sampler(shaping=Shaping(top_p=0.9)),
            "guidance of x_s needs what top_k and top_p cut off: guide x_0",
        ),
    ],
)
def test_samplers_without_a_law_of_x_s_say_so(sampler, message):
    with pytest.raises(ValueError, match=message):
        run("absorbing", sampler, make_free("absorbing", 2.0, "x_s", None), make_noise())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"gamma": float("nan")}, "gamma"),
        ({"gamma": float("inf")}, "gamma"),
        ({"on": "x"}, "on = 'x': it must be 'x_s' or 'x_0'"),
        ({"late": -1}, r"late = -1, outside 0\.\.2147483647"),
        ({"inputs": 1, "null": 2}, r"inputs has shape \(\), expected \[B, \*S\]"),
        (
            {"null": np.zeros(3, int)},
            r"null has shape \(3,\), expected \[2\] as in inputs",
        ),
    ],
)
def test_arguments_that_cannot_be_used_are_named(change, message):
    labels = np.zeros(2, int)
    arguments = {"network": make_network("marginal"), "inputs": labels, "null": labels, "gamma": 2.0} | change
    with pytest.raises(ValueError, match=message):
        guidance.classifier_free(**arguments)
