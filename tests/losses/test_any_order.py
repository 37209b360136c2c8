"""The loss of filling in in any order: exactly n masks, and the mean over them, enumerated in float64."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import d3pm_jax as d3pm
from d3pm_jax.losses import any_order
from tests.test_continuous_time import LOGITS, L, chain_rules, network, states

pytestmark = pytest.mark.usefixtures("x64")


def test_the_mean_over_numbers_of_masks_is_that_over_orders_of_the_chain_rule():
    """So is that of the absorbing bound: tests/test_continuous_time.py."""
    x0 = states(3)
    sets = [s for n in range(1, L + 1) for s in itertools.combinations(range(L), n)]
    masked = np.array([[place in s for place in range(L)] for s in sets])
    sizes = masked.sum(1)
    share = 1 / (L * np.bincount(sizes)[sizes])  # n is uniform, and so is the set of n
    x0, masked = (x.reshape(-1, L) for x in np.broadcast_arrays(x0[:, None], masked[None]))
    xt = jnp.asarray(np.where(masked, 3, x0))
    nats = any_order.any_order_nelbo(network(xt, 4, 3), jnp.asarray(x0), xt, 3).sum(1)
    mean = np.asarray(nats).reshape(27, -1) @ share
    np.testing.assert_allclose(mean, np.asarray(chain_rules()).mean(0), rtol=1e-12)


def test_a_batch_without_examples_has_no_masks_and_no_loss():
    x0 = jnp.zeros((0, 2), jnp.int32)
    xt = any_order.any_order_draw(x0, jnp.zeros(0, jnp.int32), jnp.zeros((0, 2)), 2)
    assert any_order.any_order_nelbo(jnp.zeros((0, 2, 3)), x0, xt, 2).shape == (0, 2)


@pytest.mark.slow
def test_exactly_n_masks_each_as_likely_and_none_without_weight():
    """Every order of u of three elements: of each n every set is drawn equally often."""
    u = jnp.asarray(list(itertools.permutations([0.1, 0.5, 0.9])) * 4)
    n = jnp.repeat(jnp.arange(4), 6)
    x0 = jnp.zeros((24, 3), jnp.int32)
    drawn = np.asarray(any_order.any_order_draw(x0, n, u, 2)) == 2
    np.testing.assert_array_equal(drawn.sum(1), n)
    for k in range(4):
        counts = np.unique(drawn[6 * k : 6 * k + 6], axis=0, return_counts=True)[1]
        assert set(counts) == {6 if k in (0, 3) else 2}
    weight = jnp.asarray([[0.5, 0.0, 3.0]]).repeat(24, axis=0)
    drawn = any_order.any_order_draw(x0, n, u, 2, weight)
    np.testing.assert_array_equal((drawn == 2).sum(1), np.minimum(n, 2))
    assert (drawn[:, 1] == 0).all()
    logits = d3pm.forbid(jnp.asarray(LOGITS[:24]), 3)[..., [0, 1, 3]]
    loss = any_order.any_order_nelbo(logits, x0, drawn, 2, weight)
    ce = -jax.nn.log_softmax(logits[..., :2])[..., 0]
    np.testing.assert_allclose(loss, np.where(drawn == 2, 2 / np.maximum(n, 1)[:, None].clip(max=2) * ce, 0))
