"""Draws by a kernel of rows, interpreted: the integers of a CPU, for rows of any length and any logits."""

import re
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

import d3pm_jax as d3pm
from d3pm_jax import beliefs, posteriors
from d3pm_jax.numerics import double_float, inverse_cdf, sliced_rows
from d3pm_jax.processes import dense_reverse, mixing_reverse
from d3pm_jax.sampling.transitions import Bayes, OwnReverse
from tests.numerics.row_forms import interpret, through_xla

# A kernel takes XLA gigabytes to compile for a CPU without its optimisations: `make slow` has them all.
pytestmark = [pytest.mark.filterwarnings("ignore:x_T still depends"), pytest.mark.optimised]

N = 20
T = 10


def make_logits(K):
    """Rows of all kinds: of -inf, of one category, of NaN in part, of -inf in part, of +inf."""
    logits = np.random.default_rng(K).normal(size=(N, K)) * 3
    logits[0] = -np.inf
    logits[1] = -np.inf
    logits[1, K - 1] = -3
    logits[2, K - 1] = np.nan
    logits[3, ::2] = -np.inf
    logits[4, 0] = np.inf
    return jnp.asarray(logits, jnp.float32)


def make_noise():
    words = np.random.default_rng(1).random((2, N))
    words[:, 5:8] = 0
    words[:, 8:11] = 1 - 2.0**-23
    return jnp.asarray(words, jnp.float32)


@pytest.fixture(autouse=True)
def hold_sums(monkeypatch):
    # XLA compiles the kernel for a CPU here, and would make the additions anew for all that reads them.
    monkeypatch.setattr(sliced_rows.SlicesInMemory, "hold", staticmethod(lax.optimization_barrier))


@pytest.mark.parametrize(
    "K", [3] + [pytest.param(K, marks=pytest.mark.slow) for K in (2, 17, 27, 33, 256, 257)]
)
def test_a_kernel_draws_the_same_integers(K):
    logits = make_logits(K)
    noise = double_float.noise_from_words(*make_noise())
    drawn = jax.jit(lambda *x: interpret(inverse_cdf._draw_row, None, x[0], x[1:]))(logits, *noise)
    expected = jax.jit(inverse_cdf._draw_by_parts)(logits, *noise)
    np.testing.assert_array_equal(drawn, expected)
    assert list(np.flatnonzero(expected < 0)) == [0, 2, 4]


@pytest.mark.slow
def test_chunks_of_a_long_row_draw_the_same_integers(monkeypatch):
    monkeypatch.setattr(sliced_rows, "CHUNK", 256)
    monkeypatch.setattr(inverse_cdf, "CHUNK", 256)
    test_a_kernel_draws_the_same_integers(600)


@pytest.mark.slow
@pytest.mark.parametrize("K", [27, 256])
def test_a_million_draws_are_the_same_integers(K):
    by_xla = jax.jit(lambda *x: through_xla(inverse_cdf._draw_row, None, x[0], x[1:]))
    by_parts = jax.jit(inverse_cdf._draw_by_parts)
    rng = np.random.default_rng(0)
    for scale in np.linspace(0.1, 8, 25):
        logits = jnp.asarray(rng.normal(size=(40, 1000, K)) * scale, jnp.float32)
        noise = double_float.noise_from_words(*jnp.asarray(rng.random((2, 40, 1000)), jnp.float32))
        np.testing.assert_array_equal(by_xla(logits, *noise), by_parts(logits, *noise))


def make_process(kind, K):
    if kind.startswith("masked "):
        return d3pm.masked(make_process(kind.removeprefix("masked "), K - 1), d3pm.reciprocal(T))
    if kind == "uniform":
        return d3pm.uniform(d3pm.cosine(T), K)
    if kind == "absorbing":
        return d3pm.absorbing(d3pm.reciprocal(T), K, K - 1)
    return d3pm.marginal(d3pm.cosine(T), np.arange(K) / (K * (K - 1) / 2))


QUICK = ("uniform", "denoiser", 3)
KINDS = [
    ("uniform", "denoiser"),
    ("absorbing", "official"),
    ("marginal", "d3pm"),
    ("masked uniform", "denoiser"),
    ("masked marginal", "d3pm"),
]
SLOW = [(*kind, K) for kind in KINDS for K in (3, 33) if (*kind, K) != QUICK]


@pytest.mark.parametrize(
    ("kind", "belief", "K"), [QUICK] + [pytest.param(*case, marks=pytest.mark.slow) for case in SLOW]
)
def test_a_kernel_takes_the_same_reverse_step(kind, belief, K, monkeypatch):
    monkeypatch.setattr(mixing_reverse, "map_rows", interpret)
    process = make_process(kind, K)
    rng = np.random.default_rng(0)
    t = jnp.asarray(rng.integers(1, 4, N), jnp.int32)
    xt = jnp.asarray(rng.integers(1, K, N), jnp.int32)
    u, u_low = make_noise()
    by_rows = jax.jit(partial(mixing_reverse.draw_by_rows, belief=belief))
    drawn = by_rows(process, make_logits(K), xt, t, u, u_low)
    expected = jax.jit(partial(d3pm.p_sample, belief=belief))(process, make_logits(K), xt, t, u, u_low=u_low)
    np.testing.assert_array_equal(drawn, expected)


QUICK_ROWS = [("masked marginal", "denoiser", 4), ("absorbing", "denoiser", 3)]
SLOW_ROWS = [
    ("uniform", "denoiser", 27),
    ("absorbing", "official", 256),
    ("marginal", "d3pm", 34),
    ("masked uniform", "d3pm", 257),
    ("masked uniform", "official", 3),
    ("masked uniform", "denoiser", 27),
    ("masked absorbing", "denoiser", 3),
    ("masked absorbing", "official", 256),
    ("masked marginal", "d3pm", 256),
    ("masked marginal", "denoiser", 257),
    ("masked marginal", "denoiser", 34),
]


@pytest.mark.parametrize(
    ("kind", "belief", "K"), QUICK_ROWS + [pytest.param(*case, marks=pytest.mark.slow) for case in SLOW_ROWS]
)
def test_rows_draw_what_the_definition_does(kind, belief, K):
    process = make_process(kind, K)
    rng = np.random.default_rng(K)
    # In both halves from the first step to the last, as the mask is forbidden in one of them.
    t = jnp.asarray([1, 2, 5, T, 1, 3, 8, T - 1], jnp.int32)
    shape = (len(t), 5 * N)
    logits = np.array(jnp.tile(make_logits(K), (len(t), 5, 1))) + rng.normal(size=(*shape, 1))
    logits[:, N:, :] = rng.normal(size=(len(t), 4 * N, K)) * 4
    logits[len(t) // 2 :, N:, K - 1] = -np.inf  # as where the mask is forbidden
    logits[:, N, :-1] = -np.inf  # certain of the mask
    xt = jnp.asarray(rng.choice([0, 1, K - 2, K - 1, K - 1], shape), jnp.int32)
    arguments = process, jnp.asarray(logits, jnp.float32), xt, t
    words = jnp.asarray(rng.integers(0, 2**23, (2, *shape)) * 2.0**-23, jnp.float32)
    drawn = jax.jit(partial(mixing_reverse.draw_by_rows, belief=belief))(*arguments, *words)
    u, u_low = words
    expected = jax.jit(partial(d3pm.p_sample, belief=belief))(*arguments, u, u_low=u_low)
    np.testing.assert_array_equal(drawn, expected)
    assert len(set(np.unique(expected)) & {-1, 0, K - 1}) == 3


@pytest.mark.parametrize(("reverse", "reads_once"), [(None, True), (d3pm.p_prev, False)])
def test_a_chain_draws_from_logits_of_x0_in_one_read(reverse, reads_once):
    process = make_process("uniform", 3)

    def draw(key):
        denoiser = d3pm.Denoiser(process, lambda xt, t: jnp.zeros((2, 4, 3)))
        step = Bayes() if reverse is None else OwnReverse(reverse)
        return d3pm.sample(key, denoiser, (2, 4), d3pm.sampling.Sampler(step))

    assert ("_draw_previous_by_platform" in str(jax.make_jaxpr(draw)(jax.random.key(0)))) == reads_once


def test_a_reverse_step_of_dense_tables_is_a_product_where_an_example_has_one_matrix():
    process = d3pm.gaussian(d3pm.linear(T, 0.01, 0.5), 4)
    logits = jnp.zeros((2, 4, 4))
    xt = jnp.zeros((2, 4), jnp.int32)
    t = jnp.ones(2, jnp.int32)
    by_element = jnp.ones((2, 4), jnp.int32)

    def is_product(logits, xt, t, belief):
        draw = partial(d3pm.p_sample, belief=belief)
        program = jax.make_jaxpr(draw)(process, logits, xt, t, jnp.full(xt.shape, 0.5))
        return "_draw_previous_by_platform" in str(program)

    assert is_product(logits, xt, t, "d3pm")
    assert not is_product(logits, xt, t, "official")
    assert not is_product(logits, xt, by_element, "d3pm")
    assert not is_product(logits[:, :3], xt[:, :3], t, "d3pm")


def test_devices_that_hold_examples_pass_none_of_their_arrays_on():
    process = d3pm.gaussian(d3pm.linear(T, 0.01, 0.5), 4)
    spread = NamedSharding(Mesh(np.array(jax.devices()), ("data",)), PartitionSpec("data"))
    logits = jax.device_put(jnp.zeros((4, 16, 4)), spread)
    xt = jax.device_put(jnp.zeros((4, 16), jnp.int32), spread)
    t = jax.device_put(jnp.full(4, 2, jnp.int32), spread)
    u = jax.device_put(jnp.full((4, 16), 0.5), spread)

    def draw(process, logits, xt, t, u):
        return draw_by_product("leave_one_out", process, logits, xt, t, u, None)[1]

    program = jax.jit(draw).lower(process, logits, xt, t, u).compile().as_text()
    exchanges = re.findall(r"= (\S+) (?:all-gather|all-reduce|all-to-all|collective-permute)\(", program)
    # Whether all draws are reliable, which is of no shape.
    assert {shape.split("[")[1].split("]")[0] for shape in exchanges} == {""}


MARK = 10_000
QUICK_DENSE = ("denoiser", 2)
SLOW_DENSE = [("d3pm", 27), ("denoiser", 34), ("leave_one_out", 256), ("denoiser", 257)]


@pytest.mark.parametrize(
    ("belief", "K"), [QUICK_DENSE] + [pytest.param(*case, marks=pytest.mark.slow) for case in SLOW_DENSE]
)
@pytest.mark.parametrize("is_reliable", [True, False])
def test_a_product_draws_what_the_definition_does(belief, K, is_reliable):
    process = d3pm.gaussian(d3pm.linear(T, 0.01, 0.5), K)
    rng = np.random.default_rng(K)
    t = jnp.asarray([1, 2, 5, T], jnp.int32)
    shape = (len(t), 16, 16)
    xt = rng.integers(0, K, shape)
    # Logits of each x_0, also far below the largest, as a trained network has them: near x_t is likely.
    distance = (np.arange(K) - xt[..., None]) / K
    logits = rng.normal(size=(*shape, K)) * 3 - 300 * distance**2
    if not is_reliable:
        logits[0, 0] = -np.inf
        logits[1, 0, 0, 0] = np.nan
        logits[2, 1] = np.where(np.arange(K) == 0, 100.0, -np.arange(K))  # all but impossible of many x_t
    arguments = process, jnp.asarray(logits, jnp.float32), jnp.asarray(xt, jnp.int32), t
    u, u_low = jnp.asarray(rng.integers(0, 2**23, (2, *shape)) * 2.0**-23, jnp.float32)
    drawn, marked = jax.jit(partial(draw_by_product, belief))(*arguments, u, u_low)
    expected = jax.jit(partial(d3pm.p_sample, belief=belief))(*arguments, u, u_low=u_low)
    np.testing.assert_array_equal(drawn, expected)
    assert np.all(marked == MARK) == (not is_reliable)


def test_a_product_is_relied_upon_where_what_it_loses_is_below_the_noise():
    """By hand: each of K entries may lose K terms below the smallest float, and noise has 50 bits at most."""
    K = 3
    lost = K**2 * 2.0**-126
    xt = jnp.ones((1, 4), jnp.int32)
    logits = jnp.full((1, 4, K), -jnp.inf).at[..., 0].set(0.0)  # x_0, which is x_{t-1} at t = 1
    u = jnp.full(xt.shape, 0.5)
    for share, is_reliable in ((1.1, True), (0.9, False)):
        moved = share * lost * 2.0**50
        Q = np.array([[1 - moved, moved, 0], [0, 1, 0], [0, 0, 1]])
        arguments = d3pm.dense([Q, np.full((K, K), 1 / K)]), logits, xt, jnp.ones(1, jnp.int32), u, u
        drawn, marked = jax.jit(partial(draw_by_product, "leave_one_out"))(*arguments)
        assert np.all(drawn == 0)
        assert np.all(marked == (0 if is_reliable else MARK))


def draw_by_product(belief, process, logits, xt, t, *noise):
    """Returns what is drawn, and the same with a definition that says that it was asked."""
    loo = beliefs.strip_evidence(process, logits, xt, t, belief)

    def definition(*part):
        return posteriors._draw_previous(process, *part, "leave_one_out")

    def mark(logits, xt, *rest):
        return jnp.full(xt.shape, MARK, jnp.int32)

    return [dense_reverse.draw_by_product(process, loo, xt, t, noise, f) for f in (definition, mark)]


def test_halves_are_those_of_reduce_precision():
    x = np.random.default_rng(0).normal(size=4096).astype(np.float32)
    x[:6] = [0, -0.0, 1, 1 + 2.0**-12, 1 + 3 * 2.0**-12, np.inf]
    actual = double_float.split_in_half_by_integers(jnp.asarray(x))
    for a, b in zip(actual, double_float._split_in_half(jnp.asarray(x)), strict=True):
        np.testing.assert_array_equal(a, b)
