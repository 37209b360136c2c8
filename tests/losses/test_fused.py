"""Closed and fused forms against Bayes' rule at every odd point, and what memory they take."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import d3pm_jax as d3pm
from d3pm_jax import beliefs, losses
from d3pm_jax.cpu import tiles
from d3pm_jax.losses import fused_by_parts, fused_dense, variational
from tests.processes.odd import PROCESSES, T

pytestmark = pytest.mark.filterwarnings("ignore:x_T still depends")


SCALES = np.array([2.0, 1e4])


def arguments(K, dtype):
    """Every pair (x_0, x_t) at every t with logits of each scale; -inf, one-hot and empty rows among them."""
    rng = np.random.default_rng(0)
    axes = np.meshgrid(np.arange(1, T + 1), range(K), range(K), range(2), indexing="ij")
    t, x0, xt, scale = [x.reshape(T, -1) for x in axes]
    logits = rng.normal(size=(*t.shape, K)) * SCALES[scale][..., None]
    logits[rng.random(logits.shape) < 0.1] = -np.inf
    logits[:, 0] = -np.inf
    logits[:, 2] = np.where(np.arange(K) == 1, 0.0, -np.inf)
    return (
        jnp.asarray(logits, dtype),
        jnp.asarray(x0, jnp.int32),
        jnp.asarray(xt, jnp.int32),
        jnp.asarray(t[:, 0], jnp.int32),
    )


def assert_close(actual, expected, unit, scale=SCALES):
    """To a few units of the logits' size; row i has scale[i % 2]. The last axis is K."""
    for i in range(2):
        tolerance = unit * max(10.0, scale[i])
        np.testing.assert_allclose(actual[..., i::2, :], expected[..., i::2, :], rtol=unit, atol=tolerance)


def fused(process, logits, x0, xt, t, belief):
    return variational.dispatch_kl_and_ce(process, logits, x0, xt, t, belief)


def definition(process, logits, x0, xt, t, belief):
    kl = variational.posterior_kl_definition(process, logits, x0, xt, t, belief)
    if belief == "leave_one_out":
        logits = beliefs.to_denoiser(process, logits, xt, t)
    return kl, losses.cross_entropy(process, logits, x0)


@partial(jax.jit, static_argnames=("terms", "belief"))
def value_and_gradient(terms, process, logits, x0, xt, t, belief="d3pm"):
    """kl and ce, and the gradient of a weighted sum of the finite ones."""
    weights = np.random.default_rng(1).normal(size=(2, *logits.shape[:-1]))

    def total(x):
        values = jnp.stack(terms(process, x, x0, xt, t, belief))
        weighted = jnp.asarray(weights, values.dtype) * values
        return jnp.sum(jnp.where(jnp.isfinite(values), weighted, 0.0)), values

    (_, values), gradient = jax.value_and_grad(total, has_aux=True)(logits)
    return values, gradient


@jax.jit
def marginals(process, logits, x0, t):
    fast = losses.marginal_kl(process, logits, x0, t)
    return fast, variational.marginal_kl_definition(process, logits, x0, t)


# What `make test` has of the others: each kind of fast form once, and so all of them under "official".
BELIEFS = {
    "marginal": "leave_one_out",
    "uniform": "denoiser",
    "masked": "leave_one_out",
    "gaussian": "denoiser",
}


def loss_cases():
    for name in PROCESSES:
        if name != "two":
            yield pytest.param(name, "d3pm")
    yield pytest.param("two", "d3pm", marks=pytest.mark.slow)
    yield pytest.param("marginal", "official")
    for name in ("masked", "gaussian"):
        yield pytest.param(name, "official", marks=pytest.mark.slow)
    for name in PROCESSES:
        for belief in ("leave_one_out", "denoiser"):
            if BELIEFS.get(name) == belief:
                yield pytest.param(name, belief)
            else:
                yield pytest.param(name, belief, marks=pytest.mark.slow)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize(("name", "belief"), list(loss_cases()))
def test_losses_are_those_of_the_definition(name, belief):
    process = PROCESSES[name]()
    logits, x0, xt, t = arguments(process.K, jnp.float64)
    values, gradient = value_and_gradient(fused, process, logits, x0, xt, t, belief)
    expected, expected_gradient = value_and_gradient(definition, process, logits, x0, xt, t, belief)
    assert_close(values[..., None], expected[..., None], 1e-13)
    assert_close(gradient, expected_gradient, 1e-14)
    assert not np.isnan(values).any()
    kl, expected = marginals(process, logits, x0, t - 1)
    assert_close(kl[..., None], expected[..., None], 1e-13)


NARROW = (("marginal", "float32"), ("gaussian", "float32"))  # bfloat16 beside PyTorch, in parity_tests
NARROW_TOO = (
    *(("uniform", "float32"), ("masked", "float32")),
    *(("uniform", "bfloat16"), ("marginal", "bfloat16"), ("masked", "bfloat16")),
)


@pytest.mark.optimised
@pytest.mark.parametrize(
    ("name", "dtype"), [*NARROW, *(pytest.param(*case, marks=pytest.mark.slow) for case in NARROW_TOO)]
)
def test_narrow_logits_give_the_float64_value(name, dtype):
    """With the tables of each type: +inf at the same places, elsewhere to the rounding of a logit."""
    logits = arguments(PROCESSES[name]().K, dtype)[0]
    values, gradient = losses_and_gradient(name, logits)
    with jax.enable_x64(True):
        # It does not matter here, and the program of the test above is used again.
        jax.config.update("jax_disable_most_optimizations", True)
        expected, expected_gradient = losses_and_gradient(name, jnp.asarray(np.float64(logits)))
    assert values.dtype == np.float32
    assert_close(values[..., None], expected[..., None], 3e-7)
    assert np.isfinite(gradient).all()
    # The gradient is rounded to the type of the logits.
    unit = 2e-7 if dtype == "float32" else 2.0**-8
    assert_close(np.float64(gradient), expected_gradient, unit, scale=(1.0, 1e4))


def losses_and_gradient(name, logits):
    process = PROCESSES[name]()
    _, x0, xt, t = arguments(process.K, jnp.float32)
    values, gradient = value_and_gradient(fused, process, logits, x0, xt, t)
    return np.asarray(values), np.asarray(gradient)


def test_finite_logits_of_a_mixing_process_never_cost_infinity_where_the_move_is_possible():
    process = d3pm.uniform(d3pm.cosine(1000), 256)
    logits = jnp.full((8, 256), 1e4).at[:, 7].set(-1e4)
    xt = jnp.array([7, 8] * 4)
    t = jnp.array([1, 1, 2, 2, 500, 500, 1000, 1000])
    (kl, ce), _ = value_and_gradient(fused, process, logits, jnp.full(8, 7), xt, t)
    assert np.isfinite(kl).all()
    np.testing.assert_allclose(ce, 2e4 + np.log(255))


def test_the_fused_form_of_dense_processes_is_the_definition_and_steps_aside_where_floats_end():
    process = d3pm.gaussian(d3pm.linear(100, 1e-3, 0.2), 64)
    rng = np.random.default_rng(0)
    x0 = jnp.asarray(rng.integers(0, 64, (4, 50)), jnp.int32)
    t = jnp.array([1, 2, 30, 100])
    u = jnp.asarray(rng.random((4, 50)), jnp.float32)
    normal = jnp.asarray(3 * rng.normal(size=(4, 50, 64)), jnp.float32)

    @jax.jit
    def sums_and_gradients(process, x):
        xt = d3pm.q_sample(process, x0, t, u)

        def differentiate(kl):
            return jax.value_and_grad(lambda x: kl(process, x, x0, xt, t).sum())(x)

        is_used = ~jnp.isnan(fused_dense.kl_from_weights(process, x, x0, xt, t)).any()
        return is_used, differentiate(d3pm.posterior_kl), differentiate(variational.posterior_kl_definition)

    for x, holds in ((normal, True), (normal * 1e3, False)):
        is_used, fast, expected = sums_and_gradients(process, x)
        assert is_used == holds
        np.testing.assert_allclose(fast[0], expected[0], rtol=1e-5)
        np.testing.assert_allclose(fast[1], expected[1], atol=2e-6)


def test_the_parts_with_an_element_where_floats_end_have_the_definition_and_no_others(monkeypatch):
    """100 is added to it, to tell them apart: 7 elements from one on; of each example of a vmap alone."""
    K = 14
    shape = (2, 4, 30)
    process = d3pm.gaussian(d3pm.linear(100, 1e-3, 0.2), K)
    monkeypatch.setattr(tiles, "FLOATS", 4 * 28 * K)
    monkeypatch.setattr(fused_by_parts, "ROWS", 1)
    definition = variational.posterior_kl_definition
    monkeypatch.setattr(fused_dense, "posterior_kl_definition", lambda *args: definition(*args) + 100)
    rng = np.random.default_rng(0)
    t = jnp.array([[1, 2, 30, 100], [5, 6, 7, 8]])
    x0 = jnp.asarray(rng.integers(0, K, shape))
    logits = 3 * rng.normal(size=(*shape, K)).astype(np.float32)
    xt = jnp.where(rng.random(shape) < 0.5, x0, jnp.clip(x0 + 1, 0, K - 1))
    unsafe = np.zeros((2, 1, 30))
    tolerance = np.full((*shape, 1), 2e-6)
    for example, element, part in ((0, (1, 9), np.s_[9:16]), (1, (0, 29), np.s_[23:])):
        logits[example, *element] *= 1e3
        unsafe[example, :, part] = 1
        tolerance[example, *element] = 2e-4  # the rounding of its logits

    def evaluate(kl, process, logits, lift):
        def with_gradient(x, *integers):
            value, pull = jax.vjp(lambda x: kl(process, x, *integers), x)
            return value, pull(jnp.ones_like(value))[0]

        value, gradient = lift(jax.jit(with_gradient), (logits, x0, xt, t))
        return np.asarray(value), np.asarray(gradient)

    def in_turn(f, args):
        return jax.tree.map(lambda *x: np.stack(x), *map(f, *args))

    def widen(x):
        if x.dtype == jnp.float32:
            return jnp.asarray(np.float64(x))
        return x

    with jax.enable_x64(True):  # of the same tables
        wide = jax.tree.map(widen, process)
        expected, expected_gradient = evaluate(definition, wide, np.float64(logits), in_turn)
    for lift in (in_turn, lambda f, args: jax.jit(jax.vmap(f))(*args)):
        kl, gradient = evaluate(d3pm.posterior_kl, process, logits, lift)
        np.testing.assert_allclose(kl, expected + 100 * unsafe, rtol=1e-5, atol=1e-6)
        assert (np.abs(gradient - expected_gradient) < tolerance).all()


VOCABULARY = {
    "uniform": lambda K: d3pm.uniform(d3pm.cosine(1000), K),
    "absorbing": lambda K: d3pm.absorbing(d3pm.reciprocal(1000), K, K - 1),
    "masked": lambda K: d3pm.masked(d3pm.uniform(d3pm.cosine(1000), K - 1), d3pm.reciprocal(1000)),
}


def vocabulary_cases():
    for name in VOCABULARY:
        for belief in ("d3pm", "leave_one_out", "denoiser"):
            if (name, belief) == ("uniform", "d3pm"):
                yield pytest.param(name, belief)
            else:
                yield pytest.param(name, belief, marks=pytest.mark.slow)


@pytest.mark.optimised
@pytest.mark.parametrize(("name", "belief"), list(vocabulary_cases()))
def test_the_loss_at_vocabulary_scale_takes_less_memory_than_its_logits(name, belief):
    K = 50_000
    process = VOCABULARY[name](K)
    x = jax.ShapeDtypeStruct((8, 64), jnp.int32)
    logits = jax.ShapeDtypeStruct((8, 64, K), jnp.float32)

    def loss(logits, process, x0, xt, t):
        return d3pm.hybrid(process, logits, x0, xt, t, 0.01, belief=belief).loss.mean()

    program = jax.jit(jax.value_and_grad(loss)).lower(
        logits, process, x, x, jax.ShapeDtypeStruct((8,), jnp.int32)
    )
    temporaries = program.compile().memory_analysis().temp_size_in_bytes
    print(f"{name}, {belief}: {temporaries / 1e6:.1f} MB")
    assert temporaries < 0.5 * 4 * 8 * 64 * K


def test_an_infinite_loss_has_gradient_zero_for_masked_processes_too():
    process = PROCESSES["masked gaussian"]()
    logits = jnp.zeros((1, 7)).at[0, 0].set(-jnp.inf)
    x0 = jnp.array([0])
    xt = jnp.array([6])
    t = jnp.array(1)
    value, gradient = jax.jit(jax.value_and_grad(lambda x: d3pm.posterior_kl(process, x, x0, xt, t).sum()))(
        logits
    )
    assert value == np.inf
    np.testing.assert_array_equal(gradient, 0.0)


def test_an_impossible_pair_costs_nothing_under_either_rule():
    process = d3pm.absorbing(np.array([1.0, 0.5]), 3, 2)
    for belief in ("d3pm", "official"):
        kl = d3pm.posterior_kl(
            process, jnp.zeros((1, 3)), jnp.array([0]), jnp.array([0]), jnp.array(1), belief
        )
        np.testing.assert_array_equal(kl, 0.0)


@pytest.mark.parametrize(("name", "shape"), [("masked", (0, 3)), ("gaussian", (0, 3)), ("masked", (3, 0))])
def test_nothing_at_all_is_a_batch_too(name, shape):
    process = PROCESSES[name]()
    x = jnp.zeros(shape, jnp.int32)
    t = jnp.array(1)
    u = jnp.zeros(shape)
    logits = jnp.zeros((*shape, process.K))

    @jax.jit
    def run(logits):
        gradient = jax.grad(lambda y: d3pm.hybrid(process, y, x, x, t, 0.1).loss.sum())(logits)
        return gradient, d3pm.p_sample(process, logits, x, t, u), process.draw_q(x, t, u)

    assert [y.shape for y in run(logits)] == [logits.shape, shape, shape]


BETA = d3pm.linear(200, 1e-3, 0.2)
WIDE = {
    "gaussian": lambda: d3pm.gaussian(BETA, 128),
    "masked uniform": lambda: d3pm.masked(d3pm.uniform(BETA, 256), BETA),
    "uniform": lambda: d3pm.uniform(BETA, 256),
}


@pytest.mark.parametrize(
    "name", ["gaussian", "masked uniform", pytest.param("uniform", marks=pytest.mark.slow)]
)
def test_narrow_integers_are_the_same_categories(name):
    process = WIDE[name]()
    u = jnp.array([[0.2, 0.7]])
    logits = jnp.asarray(np.random.default_rng(0).normal(size=(1, 2, process.K)), jnp.float32)

    @jax.jit
    def run(process, logits, *integers):
        return [(process.draw_q(x, t, u), *d3pm.hybrid(process, logits, x, x, t, 0.1)) for x, t in integers]

    narrow = (jnp.asarray([[0, 100]], "int8"), jnp.asarray([100], "int8"))
    wide = (jnp.asarray([[0, 100]], "int32"), jnp.asarray([100], "int32"))
    for a, b in zip(*run(process, logits, narrow, wide), strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("name", ["uniform", "absorbing", "marginal"])
def test_logits_that_are_not_numbers_do_not_become_a_certain_error(name):
    process = PROCESSES[name]()
    logits = jnp.zeros((3, process.K)).at[0, 1].set(jnp.nan).at[1, 1].set(jnp.inf)
    x0 = jnp.array([2, 2, 2])
    xt = jnp.array([3, 3, 3])
    (kl, ce), _ = value_and_gradient(fused, process, logits, x0, xt, jnp.array([5, 5, 5]))
    np.testing.assert_array_equal(np.isnan(kl), [True, True, False])
    np.testing.assert_array_equal(np.isnan(ce), [True, True, False])
