"""Closed and fused forms against Bayes' rule at every odd point, and what memory they take."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import d3pm_jax as d3pm
from d3pm_jax import losses
from d3pm_jax.losses import variational
from tests.families import FAMILIES
from tests.losses.values import definition, fused, value_and_gradient
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


@jax.jit
def marginals(process, logits, x0, t):
    fast = losses.marginal_kl(process, logits, x0, t)
    return fast, variational.marginal_kl_definition(process, logits, x0, t)


# What `make test` has of the others: each kind of fast form once, and so all of them under "official"; and
# what is the same program as one of these.
BELIEFS = {
    "marginal": "leave_one_out",
    "uniform": "denoiser",
    "reset": "denoiser",
    "masked to the end": "leave_one_out",
    "gaussian": "denoiser",
}
# Forms by parts treat beliefs alike, whatever they are of: "masked" and "gaussian" stand for this one. Of two
# categories "denoiser" computes all that "leave_one_out" does.
STOOD_FOR = {
    ("masked gaussian", "leave_one_out"),
    ("masked gaussian", "denoiser"),
    ("two", "leave_one_out"),
}


def loss_cases():
    for name in PROCESSES:
        if name not in ("two", "masked gaussian"):
            yield pytest.param(name, "d3pm")
    yield pytest.param("two", "d3pm", marks=pytest.mark.slow)
    yield pytest.param("masked gaussian", "d3pm", marks=pytest.mark.slow)
    yield pytest.param("marginal", "official")
    for name in ("masked", "gaussian"):
        yield pytest.param(name, "official", marks=pytest.mark.slow)
    for name in PROCESSES:
        for belief in ("leave_one_out", "denoiser"):
            if (name, belief) in STOOD_FOR:
                continue
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


NARROW = (("marginal", "float32"),)  # bfloat16 beside PyTorch, in parity_tests
NARROW_TOO = (
    *(("uniform", "float32"), ("gaussian", "float32"), ("masked", "float32")),
    *(("marginal", "bfloat16"), ("masked", "bfloat16")),
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


# Every belief of one process, and every process with the belief that takes most.
VOCABULARY = [("uniform", "leave_one_out"), ("uniform", "denoiser"), ("extra mask", "denoiser")]
VOCABULARY += [("masked", "denoiser")]


@pytest.mark.optimised
@pytest.mark.parametrize(
    ("name", "belief"),
    [("uniform", "d3pm"), *(pytest.param(*case, marks=pytest.mark.slow) for case in VOCABULARY)],
)
def test_the_loss_at_vocabulary_scale_takes_less_memory_than_its_logits(name, belief):
    K = 50_000
    process = FAMILIES[name](K, 1000)
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


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        *(("masked", (0, 3)), ("gaussian", (0, 3)), ("gaussian", (3, 0))),
        pytest.param("masked", (3, 0), marks=pytest.mark.slow),
    ],
)
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
}


@pytest.mark.parametrize("name", ["masked uniform", pytest.param("gaussian", marks=pytest.mark.slow)])
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
