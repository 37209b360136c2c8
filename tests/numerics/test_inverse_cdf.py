"""Draws on the whole grid of a float32 uniform, in the tails, and in batches of any kind."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import d3pm_jax as d3pm

GRID = 2**23
U = np.arange(GRID, dtype=np.float32) / np.float32(GRID)
T = 20

pytestmark = [pytest.mark.optimised, pytest.mark.filterwarnings("ignore:x_T still depends")]


def skewed(K):
    pi = np.random.default_rng(K).dirichlet(np.full(K, 0.5))
    pi[1] = 0.0
    return pi / pi.sum()


PROCESSES = {
    "uniform": lambda: d3pm.uniform(d3pm.cosine(T), 7),
    "uniform, K = 256": lambda: d3pm.uniform(d3pm.cosine(T), 256),
    "uniform, K = 2": lambda: d3pm.uniform(d3pm.cosine(T), 2),
    "absorbing": lambda: d3pm.absorbing(d3pm.reciprocal(T), 7, 3),
    "marginal": lambda: d3pm.marginal(d3pm.linear(T, 1e-4, 0.9), skewed(11)),
    "masked": lambda: d3pm.masked(d3pm.uniform(d3pm.cosine(T), 6), 0.1 * d3pm.reciprocal(T)),
    "masked dense": lambda: d3pm.masked(
        d3pm.gaussian(d3pm.linear(T, 0.05, 1.0), 6), 0.1 * d3pm.reciprocal(T)
    ),
    "gaussian": lambda: d3pm.gaussian(d3pm.linear(T, 0.05, 1.0), 7),
}


@functools.cache
def exact_rows(name):
    """Every row of Qbar in float64, [T + 1, K, K]."""
    with jax.enable_x64(True):
        process = PROCESSES[name]()
        t = jnp.arange(T + 1)
        x0 = jnp.broadcast_to(jnp.arange(process.K), (T + 1, process.K))
        rows = jax.jit(lambda process, x0, t: process.log_q_probs(x0, t))
        return np.exp(np.asarray(rows(process, x0, t)))


def off_by(drawn, p):
    """How many grid points the counts of the categories are off, at most."""
    counts = np.bincount(np.asarray(drawn), minlength=len(p))
    assert len(counts) == len(p)
    return np.abs(counts - GRID * p).max()


# Seconds: "masked" and "gaussian" are the halves of the first, and "uniform" draws alike for every K.
LONG = ("masked dense", "uniform, K = 256", "uniform, K = 2")


def mark_slow(names, slow):
    """Parameters of which some are marked as slow."""
    parameters = []
    for name in names:
        marks = [pytest.mark.slow] if name in slow else []
        parameters.append(pytest.param(name, marks=marks))
    return parameters


@pytest.mark.parametrize("name", mark_slow(PROCESSES, LONG))
def test_draw_q_on_the_whole_grid(name):
    process = PROCESSES[name]()
    draw = jax.jit(lambda process, t, u: process.draw_q(jnp.full(u.shape, 5 % process.K, jnp.int32), t, u))
    for t in (1, 10, T):
        drawn = draw(process, jnp.asarray(t, jnp.int32), U)
        assert off_by(drawn, exact_rows(name)[t, 5 % process.K]) <= 1.0


@pytest.mark.parametrize("name", mark_slow(PROCESSES, LONG))
def test_draw_prior_on_the_whole_grid(name):
    with jax.enable_x64(True):
        p = np.exp(np.asarray(PROCESSES[name]().log_prior()))
    assert off_by(jax.jit(lambda process, u: process.draw_prior(u))(PROCESSES[name](), U), p) <= 1.0


@pytest.mark.parametrize("K", mark_slow([2, 27, 256], (27, 256)))
def test_categorical_on_the_whole_grid(K):
    log_p = np.float32(np.random.default_rng(K).normal(size=K) * 3)
    p = np.exp(np.float64(log_p))
    draw = jax.jit(lambda x, u: d3pm.categorical(jnp.broadcast_to(x, (*u.shape, x.size)), u))
    parts = [np.asarray(draw(log_p, u)) for u in np.split(U, 64)]
    assert off_by(np.concatenate(parts), p / p.sum()) <= 1.0


@pytest.mark.slow
def test_p_sample_on_the_whole_grid():
    process = d3pm.gaussian(d3pm.linear(T, 0.05, 1.0), 7)
    logits = jnp.asarray(np.random.default_rng(0).normal(size=7), jnp.float32)
    xt = 3
    t = jnp.asarray(10)
    with jax.enable_x64(True):
        process64 = d3pm.gaussian(d3pm.linear(T, 0.05, 1.0), 7)
        p = np.exp(
            np.asarray(d3pm.p_logits(process64, jnp.float64(logits), jnp.asarray(xt), jnp.asarray(10)))
        )
    draw = jax.jit(
        lambda process, x, u: d3pm.p_sample(
            process, jnp.broadcast_to(x, (*u.shape, 7)), jnp.full(u.shape, xt, jnp.int32), t, u
        )
    )
    parts = [np.asarray(draw(process, logits, u)) for u in np.split(U, 16)]
    assert off_by(np.concatenate(parts), p) <= 1.0


@pytest.mark.parametrize("K", [5, pytest.param(40, marks=pytest.mark.slow)])
def test_a_draw_may_stand_in_what_is_differentiated(K):
    """Draws are integers, of which nothing is the derivative: the rest of the function has its own."""
    process = d3pm.uniform(d3pm.cosine(T), K)
    rng = np.random.default_rng(0)
    logits = jnp.asarray(rng.normal(size=(2, 3, K)), jnp.float32)
    u = jnp.asarray(rng.random((2, 3)), jnp.float32)

    def f(x, drawn=None):
        if drawn is None:
            k = d3pm.categorical(x, u)
            x_prev = d3pm.p_sample(process, x, k, jnp.asarray(3), u)
        else:
            k, x_prev = drawn
        log_p_of_draws = sum(
            jnp.take_along_axis(jax.nn.log_softmax(x), y[..., None], -1).sum() for y in (k, x_prev)
        )
        return log_p_of_draws, (k, x_prev)

    @jax.jit
    def differentiate(x, drawn, direction):
        of_the_rest = jax.grad(lambda x: f(x, drawn)[0])(x)
        slope = jax.jvp(lambda x: f(x)[0], (x,), (direction,))[1]
        return of_the_rest, slope

    (_, drawn), actual = jax.jit(jax.value_and_grad(f, has_aux=True))(logits)
    of_the_rest, slope = differentiate(logits, drawn, actual)
    np.testing.assert_allclose(actual, of_the_rest, rtol=1e-6)
    np.testing.assert_allclose(slope, jnp.sum(actual**2), rtol=1e-5)


RARE = 1e-9
PLACES = (0, 200, 207, 255)  # of it among 256: the first, one within a block, the last of a block, the last


def rare(place):
    p = np.full(256, (1 - RARE) / 255)
    p[place] = RARE
    return p


def draw_categorical(log_p, u, low):
    return d3pm.categorical(jnp.broadcast_to(log_p, (*u.shape, log_p.size)), u, low)


def draw_prior(process, u, low):
    return process.draw_prior(u, low)


DRAWS = {  # each with what it takes in place of the probabilities
    "categorical": (jax.jit(draw_categorical), lambda p: np.float32(np.log(p))),
    "prior": (jax.jit(draw_prior), lambda p: d3pm.marginal(np.ones(1), p)),
}


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("name", DRAWS)
def test_a_rare_event_has_its_probability_with_two_words(name, place):
    """The share of the two-word grid that yields it, by bisection for both of its ends."""
    draw, convert = DRAWS[name]
    law = convert(rare(place))
    ends = [_first_at_least(k, lambda *words: draw(law, *words)) for k in (place, place + 1)]
    assert (ends[1] - ends[0]) / 2**46 == pytest.approx(RARE, rel=0.01)


def _words(n):
    """Number n of the grid, for each of several elements: XLA makes another program of one alone."""
    return tuple(jnp.full((64, 8), part / GRID, jnp.float32) for part in (n >> 23, n & (GRID - 1)))


def _first_at_least(k, draw):
    """The first number of the grid that draws k or more; 2^46 where none does."""
    low = 0
    high = 2**46
    while low < high:
        middle = (low + high) // 2
        if draw(*_words(middle))[0, 0] >= k:
            high = middle
        else:
            low = middle + 1
    return low


@pytest.mark.parametrize(
    "name", mark_slow(["uniform", "marginal", "masked dense"], ["marginal", "masked dense"])
)
def test_the_same_element_with_the_same_noise_gives_the_same_category_in_any_batch(name):
    process = PROCESSES[name]()
    rng = np.random.default_rng(0)
    x0 = rng.integers(0, process.K, (6, 5, 2), np.int32)
    t = np.array([1, 5, 10, 15, 19, 20], np.int32)
    u = rng.integers(0, GRID, x0.shape).astype(np.float32) / np.float32(GRID)
    low = rng.integers(0, GRID, x0.shape).astype(np.float32) / np.float32(GRID)
    logits = rng.normal(size=(*x0.shape, process.K)).astype(np.float32) * 3

    @jax.jit
    def draw(process, logits, x, t, u, low):
        one_word = process.draw_q(x, t, u), d3pm.p_sample(process, logits, x, t, u)
        return *one_word, process.draw_q(x, t, u, low), d3pm.p_sample(process, logits, x, t, u, u_low=low)

    whole = [np.asarray(x) for x in draw(process, *map(jnp.asarray, (logits, x0, t, u, low)))]
    for b in range(6):
        window = np.s_[b : b + 1, 1:3]
        part = logits[window], x0[window], t[b : b + 1], u[window], low[window]
        for x, actual in zip(whole, draw(process, *map(jnp.asarray, part)), strict=True):
            np.testing.assert_array_equal(x[window], actual)


@pytest.mark.parametrize("name", PROCESSES)
def test_the_largest_noise_of_other_libraries_gives_a_category(name):
    process = PROCESSES[name]()
    top = jnp.full((3, 4), 1 - 2.0**-24)
    t = np.array([0, 1, T], np.int32)
    x0 = np.broadcast_to(np.arange(4, dtype=np.int32) % process.K, (3, 4))
    draw = jax.jit(lambda process, x0, t: process.draw_q(x0, t, top, top))
    drawn = draw(process, jnp.asarray(x0), jnp.asarray(t))
    p = exact_rows(name)[t[:, None], x0]
    assert np.all(np.take_along_axis(p, np.asarray(drawn)[..., None], -1) > 0)


def test_the_largest_noise_of_other_libraries_gives_the_last_of_many():
    top = jnp.full((4,), 1 - 2.0**-24)
    draw = jax.jit(d3pm.categorical)
    for K in (2, 40, 1000):
        np.testing.assert_array_equal(draw(jnp.zeros((4, K)), top, top), K - 1)


def test_categorical_is_the_inverse_of_the_cumulative_sum():
    p = jnp.array([0.0, 0.25, 0.0, 0.5, 0.25, 0.0])
    u = jnp.array([0.0, 0.2499, 0.25, 0.7499, 0.75, 1 - 2**-24])
    actual = d3pm.categorical(jnp.broadcast_to(jnp.log(p) + 7.0, (6, 6)), u)
    np.testing.assert_array_equal(actual, [1, 1, 3, 3, 4, 4])
    assert actual.dtype == jnp.int32


def test_categorical_never_draws_probability_zero():
    rng = np.random.default_rng(0)
    log_p = rng.standard_normal((20000, 300), np.float32) * 5
    log_p[rng.random(log_p.shape, np.float32) < 0.9] = -np.inf
    u = np.where(np.arange(20000) % 2 == 0, 1 - 2**-24, rng.integers(0, GRID, 20000) / GRID)
    drawn = jax.jit(d3pm.categorical)(jnp.asarray(log_p), jnp.asarray(u, jnp.float32))
    assert np.all(np.isfinite(np.take_along_axis(log_p, np.asarray(drawn)[:, None], 1)))


@pytest.mark.parametrize("K", [2, 31, 256])
def test_categorical_marks_what_is_no_distribution(K):
    log_p = np.zeros((4, 9, K), np.float32)
    log_p[0] = -np.inf
    log_p[1, :, 0] = np.nan
    log_p[2, :, K - 1] = np.nan
    drawn = d3pm.categorical(jnp.asarray(log_p), jnp.full((4, 9), 0.5, jnp.float32))
    np.testing.assert_array_equal(drawn, [[-1] * 9] * 3 + [[K // 2] * 9])
