"""Row functions of losses, as XLA takes them and as a kernel in interpret mode, against the form of a CPU."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import d3pm_jax
from d3pm_jax.losses import fused_mixing
from tests.numerics.row_forms import interpret, through_xla

T = 20
N = 24


def make_process(family, K, rng):
    pi = rng.dirichlet(np.ones(K))
    pi[0] = 0.0
    return {
        "uniform": partial(d3pm_jax.uniform, d3pm_jax.cosine(T), K),
        "absorbing": partial(d3pm_jax.absorbing, d3pm_jax.reciprocal(T), K, K - 1),
        "marginal": partial(d3pm_jax.marginal, d3pm_jax.reciprocal(T), pi / pi.sum()),
    }[family]()


def make_case(process, rng):
    """Returns logits with rows of every kind, x_0, x_t and t."""
    K = process.K
    x0 = rng.integers(0, K, N)
    t = rng.integers(1, T + 1, N)
    t[:2] = (1, T)
    xt = d3pm_jax.q_sample(process, jnp.asarray(x0), jnp.asarray(t), jnp.asarray(rng.random(N), np.float32))
    logits = 3 * rng.normal(size=(N, K))
    logits[2] = -np.inf
    logits[3] = -np.inf
    logits[3, 0] = 0.0
    certain = np.full((3, K), -1e4)
    certain[0, x0[4]] = 1e4
    certain[1, (x0[5] + 1) % K] = 1e4
    certain[2, xt[6]] = 1e4
    logits[4:7] = certain
    logits[7, x0[7]] = -np.inf
    logits[8, xt[8]] = -np.inf
    xt = xt.at[9].set((xt[9] + 1) % K)  # which may be impossible
    return jnp.asarray(logits, jnp.float32), jnp.asarray(x0, jnp.int32), xt, jnp.asarray(t, jnp.int32)


def run(process, belief, logits, x0, xt, t, cotangents, through, monkeypatch):
    """Returns kl, ce and their gradient, by parts or through a function in the place of `map_rows`."""

    def choose(*args, cpu, default):
        if through is None:
            return cpu(*args)
        return default(*args)

    monkeypatch.setattr(jax.lax, "platform_dependent", choose)
    if through is not None:
        monkeypatch.setattr(fused_mixing, "map_rows", through)

    # A function of its own: the one that is compiled knows nothing of what was put in its place.
    @jax.jit
    def losses(process, logits):
        monkeypatch.setattr(fused_mixing, "_kl_and_ce_by_hand", fused_mixing._custom)
        values, pull = jax.vjp(lambda x: fused_mixing.kl_and_ce(process, x, x0, xt, t, belief), logits)
        return *values, *pull(cotangents)

    results = losses(process, logits)
    monkeypatch.undo()
    return [np.asarray(x, np.float64) for x in results]


def assert_close(actual, desired, scale):
    np.testing.assert_array_equal(np.isinf(actual), np.isinf(desired))
    assert not np.isnan(actual).any()
    finite = np.isfinite(desired)
    error = np.abs(actual[finite] - desired[finite]) / (scale + np.abs(desired[finite]))
    assert error.max() < 1e-6


CASES = [(257, "marginal", "denoiser"), (2, "absorbing", "leave_one_out")]
CROSS = [
    pytest.param(K, family, belief, marks=pytest.mark.slow)
    for family in ("uniform", "absorbing", "marginal")
    for K, belief in (
        (27, "d3pm"),
        (17, "leave_one_out"),
        (27, "denoiser"),
        (2, "denoiser"),
        (3, "leave_one_out"),
        (256, "leave_one_out"),
        (257, "d3pm"),
    )
]


@pytest.mark.parametrize(("K", "family", "belief"), [*CASES, *CROSS])
def test_rows_are_what_a_cpu_computes(K, family, belief, monkeypatch):
    rng = np.random.default_rng(K)
    process = make_process(family, K, rng)
    logits, x0, xt, t = make_case(process, rng)
    cotangents = tuple(jnp.asarray(rng.normal(size=(2, N)), jnp.float32))
    case = (process, belief, logits, x0, xt, t, cotangents)
    desired = run(*case, None, monkeypatch)
    by_xla = run(*case, through_xla, monkeypatch)
    by_kernel = run(*case, interpret, monkeypatch)
    for actual in (by_xla, by_kernel):
        assert_close(actual[0], desired[0], 1.0)
        assert_close(actual[1], desired[1], 1.0)
        assert_close(actual[2], desired[2], 1.0)
