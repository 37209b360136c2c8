"""The forms for accelerators, run on a CPU: the same integers, and losses equal to their definitions."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import d3pm_jax as d3pm
from d3pm_jax.cpu import tiles
from d3pm_jax.losses.variational import posterior_kl_definition
from d3pm_jax.numerics import inverse_cdf, sliced_rows
from tests.families import FAMILIES
from tests.lowering.programs import gradient

pytestmark = pytest.mark.filterwarnings("ignore:x_T still depends")

GRID = 2**23


@pytest.fixture
def elsewhere(monkeypatch):
    """Returns a function that compiles another one as for an accelerator."""

    def choose(*args, default, **platforms):
        return default(*args)

    def compiled(f, *args):
        # The function may have been traced for a CPU, and is not to be used by others as it is traced here.
        jax.clear_caches()
        with monkeypatch.context() as patch:
            patch.setattr(jax.lax, "platform_dependent", choose)
            traced = jax.jit(f).trace(*args)
        jax.clear_caches()
        return traced.lower().compile()

    return compiled


def noise(shape, seed=0):
    """Two words of the grid."""
    words = np.random.default_rng(seed).integers(0, GRID, (2, *shape)) / GRID
    return tuple(jnp.asarray(w, jnp.float32) for w in words)


def mark_slow(names, quick):
    """The names as parameters, slow but for the quick ones."""
    return [name if name in quick else pytest.param(name, marks=pytest.mark.slow) for name in names]


@pytest.mark.optimised
@pytest.mark.parametrize("K", mark_slow([2, 17, 33, 256, 1000], [17, 33]))
def test_the_same_integers(K, elsewhere, monkeypatch):
    """2,400 draws of other rows each: too few to meet a boundary that an ulp of exp moves."""
    monkeypatch.setattr(tiles, "FLOATS", 2**14)
    log_p = jnp.asarray(np.random.default_rng(K).normal(size=(4, 600, K)) * 4, jnp.float32)
    args = (log_p, *noise((4, 600), K))
    jax.clear_caches()
    np.testing.assert_array_equal(elsewhere(d3pm.categorical, *args)(*args), d3pm.categorical(*args))


def probabilities_as_logs(p, top):
    """Takes probabilities for logarithms: exp differs by an ulp between programs, sums may not."""
    return jnp.where(p == -jnp.inf, 0.0, p), jnp.zeros_like(p)


def points_that_may_differ(p):
    """u [n, 32, 4096]: the whole grid; for many categories every 64th point, and 512 at each end of one."""
    if len(p) <= inverse_cdf.LARGEST:
        points = np.arange(GRID)
    else:
        ends = np.round(GRID * np.cumsum(p, dtype=np.float64) / np.sum(p, dtype=np.float64))
        around_ends = np.clip(ends[:, None] + np.arange(-256, 256), 0, GRID - 1)  # [K, 512]
        points = np.concatenate([np.arange(0, GRID, 64), around_ends.reshape(-1)])
    return np.float32(points.reshape(-1, 32, 4096)) / np.float32(GRID)


def assert_same_draws(elsewhere, row, u, low, most):
    """In both forms, at all points u [n, 32, 4096], of which at most so many may differ."""

    def draw(row, u, u_low):
        return d3pm.categorical(jnp.broadcast_to(row, (*u.shape, row.size)), u, u_low)

    there = elsewhere(draw, row, u[0], low)
    here = jax.jit(draw)
    differ = sum(int((there(row, part, low) != here(row, part, low)).sum()) for part in u)
    print(f"K = {row.size}: {differ} of {u.size} draws differ")
    assert differ <= most


def pairs(rng, shape, dtype):
    high = rng.random(shape).astype(dtype)
    low = (high * np.finfo(dtype).eps * (rng.random(shape) - 0.5)).astype(dtype)
    return jnp.asarray(high), jnp.asarray(low)


@pytest.mark.optimised
def test_sums_of_blocks_are_the_same_to_the_last_bit():
    """From left to right: another order has other last bits, though hardly ever another draw."""
    rng = np.random.default_rng(0)
    with jax.enable_x64(True):
        for dtype, size in ((np.float32, 3), (np.float32, 17), (np.float32, 16), (np.float64, 16)):
            x = pairs(rng, (5, 40, 16 * size), dtype)
            slices = list(inverse_cdf._entries(tuple(a.reshape(5, 40, 16, size) for a in x)))
            row = sliced_rows.SlicesOfArray(x[0], [])
            reduced = jax.jit(inverse_cdf._sum_blocks, static_argnums=1)(x, size)
            right = jax.jit(lambda slices, row=row: inverse_cdf._sum_slices(row, slices))(slices)
            turned = jax.jit(lambda slices, row=row: inverse_cdf._sum_slices(row, slices))(slices[::-1])
            for a, b in zip(reduced, right, strict=True):
                np.testing.assert_array_equal(a, b)
            assert np.any(turned[1] != right[1])


@pytest.mark.slow
@pytest.mark.optimised
@pytest.mark.parametrize("K", [3, 17, 256])
def test_the_same_integers_on_the_whole_grid(K, elsewhere, monkeypatch):
    """Of probabilities without exception; of their logarithms an ulp of exp can move each boundary by one."""
    p = np.float32(np.exp(np.random.default_rng(K).normal(size=K) * 3))
    u = points_that_may_differ(p)
    low = noise(u[0].shape)[1]
    assert_same_draws(elsewhere, jnp.log(p), u, jnp.zeros_like(low), K - 1)
    monkeypatch.setattr(inverse_cdf, "_probabilities", probabilities_as_logs)
    assert_same_draws(elsewhere, jnp.asarray(p), u, low, 0)


@pytest.mark.slow
@pytest.mark.optimised
def test_the_same_integers_of_many_categories(elsewhere, monkeypatch):
    monkeypatch.setattr(inverse_cdf, "_probabilities", probabilities_as_logs)
    rng = np.random.default_rng(0)
    shape = (8, 32)
    there = elsewhere(d3pm.categorical, jnp.zeros((*shape, 50_000), jnp.float32), *noise(shape))
    for seed in range(2):
        p = np.exp(rng.normal(size=(*shape, 50_000)) * rng.choice([0.1, 2.0, 8.0]))
        args = (jnp.asarray(p / p.max(), jnp.float32), *noise(shape, seed))
        np.testing.assert_array_equal(there(*args), d3pm.categorical(*args))


def make_process(name):
    """A process of K = 5 and T = 9; the marginal one never draws category 1."""
    if name == "marginal":
        return d3pm.marginal(d3pm.cosine(9), np.array([0.1, 0.0, 0.4, 0.3, 0.2]))
    return FAMILIES[name](5, 9)


NAMES = ("uniform", "extra mask", "marginal", "gaussian", "masked")


@pytest.mark.parametrize("name", mark_slow(NAMES, ["uniform", "gaussian"]))
def test_a_loss_and_its_gradient_are_those_of_the_definition(name, elsewhere, monkeypatch):
    monkeypatch.setattr(tiles, "FLOATS", 20)  # a CPU would take it by parts
    with jax.enable_x64(True):
        process = make_process(name)
        rng = np.random.default_rng(0)
        shape = (3, 7)
        logits = jnp.asarray(rng.normal(size=(*shape, 5)) * 3)
        x0 = jnp.asarray(rng.integers(0, 4, shape), jnp.int32)
        t = jnp.asarray([1, 4, 9], jnp.int32)
        xt = d3pm.q_sample(process, x0, t, jnp.asarray(rng.random(shape)))
        args = (logits, process, x0, xt, t)
        fast = gradient(lambda l, p, x0, xt, t: d3pm.hybrid(p, l, x0, xt, t, 0.3).loss)
        exact = gradient(
            lambda l, p, x0, xt, t: (
                posterior_kl_definition(p, l, x0, xt, t) + 0.3 * d3pm.cross_entropy(p, l, x0)
            )
        )
        value, slope = elsewhere(fast, *args)(*args)
        expected, expected_slope = jax.jit(exact)(*args)
        np.testing.assert_allclose(value, expected, rtol=1e-10, atol=1e-12)
        np.testing.assert_allclose(slope, expected_slope, rtol=1e-10, atol=1e-12)
