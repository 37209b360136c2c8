"""Parts in which an element needs the definition, and no others, have it."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import d3pm_jax as d3pm
from d3pm_jax.cpu import tiles
from d3pm_jax.losses import fused_by_parts, fused_dense, variational

pytestmark = pytest.mark.filterwarnings("ignore:x_T still depends")


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
