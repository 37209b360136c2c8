"""Losses of a mask on top of Mixing by rows, against those by parts."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import d3pm_jax
from d3pm_jax.losses import fused_masked
from d3pm_jax.numerics import kernel_check, rows
from tests.numerics.row_forms import interpret

T = 8
N = 24


def make_process(K, family):
    """Returns a mask on top of a process of K - 1 categories."""
    pi = np.random.default_rng(K).dirichlet(np.ones(K - 1))
    pi[1] = 0.0
    inner = {
        "uniform": partial(d3pm_jax.uniform, d3pm_jax.cosine(T), K - 1),
        "absorbing": partial(d3pm_jax.absorbing, d3pm_jax.reciprocal(T), K - 1, 0),
        "marginal": partial(d3pm_jax.marginal, d3pm_jax.reciprocal(T), pi / pi.sum()),
    }[family]()
    return d3pm_jax.masked(inner, d3pm_jax.reciprocal(T))


def make_case(K, dtype):
    """Returns logits with rows of every kind, x_0, x_t and t, impossible pairs among them, and cotangents."""
    rng = np.random.default_rng(K)
    hidden = K - 1
    x0 = rng.integers(0, hidden, N)
    xt = rng.integers(0, hidden, N)
    t = rng.integers(1, T + 1, N)
    xt[:8] = x0[:8]
    xt[4:18] = hidden
    x0[[16, 17, 18]] = hidden
    t[[0, 4, 16, 20]] = 1
    t[[1, 5, 21]] = T

    logits = 3 * rng.normal(size=(N, K))
    logits[::2, hidden] = -np.inf
    logits[[2, 6]] = -np.inf
    logits[7] = -np.inf
    logits[7, hidden] = 0.0
    for row, category in ((3, x0[3]), (8, x0[8]), (9, (x0[9] + 1) % hidden), (10, hidden)):
        logits[row] = -1e4
        logits[row, category] = 1e4
    logits[11, x0[11]] = -np.inf
    logits[19, xt[19]] = -np.inf
    logits[22, x0[22]] = -np.inf
    cotangents = tuple(jnp.asarray(rng.normal(size=(2, N)), dtype))
    return jnp.asarray(logits, dtype), [jnp.asarray(x, jnp.int32) for x in (x0, xt, t)], cotangents


def compute(losses, process, dtype, beliefs):
    """Returns kl, ce and the gradient of all beliefs, one behind the other."""
    logits, elements, cotangents = make_case(process.K, dtype)

    @jax.jit
    def values_and_gradients(process, logits):
        results = []
        for belief in beliefs:
            values, pull = jax.vjp(partial(differentiable, process, belief), logits)
            results += [*values, *pull(cotangents)]
        return results

    def differentiable(process, belief, logits):
        return losses(process, logits, *elements, belief)

    return [np.asarray(x, np.float64) for x in values_and_gradients(process, logits)]


def assert_close(actual, desired, tolerance):
    for a, b in zip(actual, desired, strict=True):
        np.testing.assert_array_equal(np.isinf(a), np.isinf(b))
        finite = np.isfinite(b)
        np.testing.assert_allclose(a[finite], b[finite], rtol=tolerance, atol=tolerance)


def test_rows_are_the_definition_in_float64():
    with jax.enable_x64(True):
        process = make_process(6, "marginal")
        desired = compute(fused_masked._kl_and_ce_by_parts, process, np.float64, ["denoiser"])
        actual = compute(fused_masked._kl_and_ce_by_rows, process, np.float64, ["denoiser"])
    assert_close(actual, desired, 1e-12)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("K", "family", "beliefs"),
    [
        (3, "uniform", ["denoiser", "official"]),
        (17, "absorbing", ["d3pm", "leave_one_out"]),
        (27, "marginal", ["leave_one_out", "denoiser"]),
        (256, "uniform", ["leave_one_out"]),
        (257, "marginal", ["denoiser"]),
    ],
)
def test_kernels_are_what_a_cpu_computes(K, family, beliefs, monkeypatch):
    with jax.enable_x64(True):
        process = make_process(K, family)
        desired = compute(fused_masked._kl_and_ce_by_parts, process, np.float64, beliefs)
        through_xla = compute(fused_masked._kl_and_ce_by_rows, process, np.float64, beliefs)
    assert_close(through_xla, desired, 1e-12)

    process = make_process(K, family)
    through_xla = compute(fused_masked._kl_and_ce_by_rows, process, np.float32, beliefs)
    monkeypatch.setattr(fused_masked, "map_rows", interpret)
    # What is compiled already knows nothing of that.
    monkeypatch.setattr(fused_masked, "_by_hand", fused_masked._custom)
    through_kernel = compute(fused_masked._kl_and_ce_by_rows, process, np.float32, beliefs)
    for actual in (through_xla, through_kernel):
        assert_close(actual, desired, 2e-6)


def test_the_check_of_a_kernel_sees_masks_and_impossible_categories(monkeypatch):
    monkeypatch.setattr(kernel_check, "find_gpu", lambda: jax.devices("cpu")[0])
    calls = []
    monkeypatch.setattr(rows, "_may_be_kernel", lambda *call: bool(calls.append(call)))
    process = make_process(6, "uniform")
    logits, (x0, xt, t), _ = make_case(6, np.float32)
    jax.eval_shape(lambda logits: fused_masked._kl_and_ce_by_rows(process, logits, x0, xt, t, "d3pm"), logits)
    call, ranks, types = calls[0]
    shapes = rows._make_shapes(call, kernel_check.SHAPE, ranks, types)

    def agrees(kernel):
        return kernel_check.agrees("f", kernel, partial(rows._by_xla, call), 6, shapes)

    def is_off_at_masks(logits, x0, xt, *leaves):
        kl, *others = rows._by_xla(call, logits, x0, xt, *leaves)
        return [jnp.where((xt == 5) & (x0 == 1), kl + 5, kl), *others]

    def takes_impossible_for_even(logits, *leaves):
        return rows._by_xla(call, jnp.where(logits == -jnp.inf, 0.0, logits), *leaves)

    # Of numbers with a NaN among them Triton's maximum is that of the others.
    def drops_nan(*leaves):
        with monkeypatch.context() as patch:
            patch.setattr(jnp, "max", jnp.nanmax)
            patch.setattr(jnp, "maximum", jnp.fmax)
            return rows._by_xla(call, *leaves)

    assert agrees(drops_nan)
    for kernel in (is_off_at_masks, takes_impossible_for_even):
        with pytest.warns(UserWarning, match="differs from XLA"):
            assert not agrees(kernel)
