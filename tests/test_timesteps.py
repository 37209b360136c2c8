"""Importance-sampled steps: the rule, exact unbiasedness, and batches in any order."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import d3pm_jax as d3pm
from d3pm_jax.timesteps import LossHistory, empty_history, importance, probabilities, update

MEAN_SQUARE = np.array([25.0, 4.0, 0.0, 9.0])


def test_steps_follow_the_root_mean_square_once_all_are_known():
    all_seen = LossHistory(jnp.asarray(MEAN_SQUARE), jnp.full(4, 11))
    weight = np.sqrt([4.0, 4.0, 1e-10, 9.0]) + [1e-4] * 4  # step 1 as step 2
    np.testing.assert_allclose(probabilities(all_seen), weight / weight.sum(), rtol=1e-5)
    for count in ([11, 11, 10, 11], [0, 0, 0, 0]):
        unknown = LossHistory(jnp.asarray(MEAN_SQUARE), jnp.asarray(count))
        np.testing.assert_array_equal(probabilities(unknown), 0.25)
    np.testing.assert_array_equal(probabilities(LossHistory(jnp.full(1, 3.0), jnp.full(1, 99))), 1.0)
    np.testing.assert_array_equal(probabilities(empty_history(5)), np.float32(0.2))


def test_every_step_is_drawn_as_often_as_its_probability_says():
    """On an even grid of u, so that the weighted mean of any loss is its sum over the steps."""
    p = jnp.array([0.125, 0.5, 0.0, 0.375])
    t, p_t = importance(jnp.arange(64) / 64, p)
    np.testing.assert_array_equal(np.bincount(t, minlength=5), [0, 8, 32, 0, 24])
    loss = np.array([np.nan, 7.0, 3.0, np.nan, -2.0])
    assert np.mean(loss[t] / np.asarray(p_t)) == pytest.approx(8.0)
    t, p_t = importance(jnp.array([0.0, 0.9999999]), jnp.ones(1))
    np.testing.assert_array_equal(t, 1)
    np.testing.assert_array_equal(p_t, 1.0)


def test_probabilities_that_do_not_sum_to_one_are_refused():
    """With them loss_t / p_t would not be the sum of the losses on average."""
    with pytest.raises(ValueError, match="p has the sum 4: divide it by that, so that it is 1"):
        importance(jnp.zeros(2), jnp.ones(4))


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_losses_of_16_bits_have_squares(dtype):
    kl = jnp.full(1, 300.0, dtype)
    history = update(empty_history(1), jnp.ones(1, jnp.int32), kl, 0.0)
    assert history.mean_square == np.float32(kl[0]) ** 2


def test_a_batch_counts_in_any_order():
    history = LossHistory(jnp.asarray(MEAN_SQUARE), jnp.array([3, 0, 2, 1]))
    t = np.array([4, 1, 4, 2, 4])
    kl = np.array([1.0, 2.0, 3.0, 4.0, 8.0])
    actual = update(history, jnp.asarray(t), jnp.asarray(kl))
    expected = [0.9 * 25 + 0.1 * 4, 0.9 * 4 + 0.1 * 16, 0.0, 0.9 * 9 + 0.1 * (1 + 9 + 64) / 3]
    np.testing.assert_allclose(actual.mean_square, expected, rtol=1e-6)
    np.testing.assert_array_equal(actual.counts, [4, 1, 2, 4])
    other = update(history, jnp.asarray(t[::-1]), jnp.asarray(kl[::-1]))
    np.testing.assert_allclose(other.mean_square, actual.mean_square, rtol=1e-6)
    with pytest.raises(ValueError, match=r"t contains 5, outside 1..4"):
        update(history, jnp.array([5]), jnp.ones(1))


@pytest.mark.usefixtures("x64")
def test_the_stochastic_bound_is_the_whole_bound_on_average():
    """Sum over t of p_t (kl_t / p_t + prior) at the same noise: no matter what p is."""
    process = d3pm.uniform(np.array([0.3, 0.5, 1.0]), 3)
    rng = np.random.default_rng(0)
    x0 = jnp.asarray(rng.integers(0, 3, (1, 4)))
    p = np.array([0.2, 0.1, 0.7])
    u = jnp.asarray(rng.random((4, 1, 4)))
    logits = jnp.asarray(rng.normal(size=(4, 1, 4, 3)))

    @jax.jit
    def of_step(t, p):
        ts = t[None]
        kl = d3pm.posterior_kl(process, logits[t], x0, d3pm.q_sample(process, x0, ts, u[t]), ts)
        return d3pm.stochastic_bound(process, kl, x0, p[None])

    bound = jax.jit(lambda: d3pm.all_t_bound(lambda xt, t: logits[t[0]], process, x0, lambda t: u[t]).total())
    mean = sum(p[t - 1] * of_step(jnp.asarray(t), jnp.asarray(p[t - 1])) for t in (1, 2, 3))
    np.testing.assert_allclose(mean, bound(), rtol=1e-12)


def test_low_discrepancy_covers_every_step():
    for u in (0.0, 0.3, 1 - 2**-24):
        t = d3pm.low_discrepancy(jnp.float32(u), 64, 20)
        assert set(np.bincount(t, minlength=21)[1:]) == {3, 4}
