"""Losses beside the hybrid: label smoothing."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import d3pm_jax as d3pm

TR = d3pm.absorbing(d3pm.reciprocal(5), 4, mask_id=3)
LOGITS = jnp.array([[0.3, -1.2, 2.0, 0.1], [1.0, 0.0, -3.0, 0.5]])
X0 = jnp.array([2, 0])


def test_smoothing_is_the_mean_over_all_labels():
    log_p = np.asarray(jax.nn.log_softmax(LOGITS))
    found = d3pm.smoothed_cross_entropy(TR, LOGITS, X0, 0.2)
    np.testing.assert_allclose(found, -0.8 * log_p[[0, 1], X0] - 0.2 * log_p.mean(1), rtol=1e-6)
    found = d3pm.smoothed_cross_entropy(TR, LOGITS, X0, 0.2, mask_id=3)
    np.testing.assert_allclose(found, -0.8 * log_p[[0, 1], X0] - 0.2 * log_p[:, :3].mean(1), rtol=1e-6)
    np.testing.assert_allclose(
        d3pm.smoothed_cross_entropy(TR, LOGITS, X0, 0.0), d3pm.cross_entropy(TR, LOGITS, X0), rtol=1e-6
    )


@pytest.mark.parametrize(("smoothing", "mask_id"), [(0.0, None), (0.1, 3), (0.1, None)])
def test_a_forbidden_category_costs_infinity_only_if_it_has_mass(smoothing, mask_id):
    def loss(x):
        return d3pm.smoothed_cross_entropy(TR, d3pm.forbid(x, 3), X0, smoothing, mask_id).sum()

    value, gradient = jax.value_and_grad(loss)(LOGITS)
    assert np.isposinf(value) if smoothing and mask_id is None else np.isfinite(value)
    assert np.isfinite(gradient).all()


def test_smoothing_outside_0_to_1_is_refused():
    with pytest.raises(ValueError, match=r"smoothing = 1.5: it must be in \[0, 1\]"):
        d3pm.smoothed_cross_entropy(TR, LOGITS, X0, 1.5)
