"""The limit of infinitely many steps against processes of many, in float64, and its edges."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import d3pm_jax as d3pm
from d3pm_jax.losses import continuous
from d3pm_jax.schedules.continuous import Level, linear
from tests.schedules.test_continuous import ALPHA, BETA, SCHEDULES

K = 5
RNG = np.random.default_rng(0)
X0 = RNG.integers(0, K - 1, 12)
XT = RNG.integers(0, K, 12)
LOGITS = RNG.normal(size=(12, K)) * 2


def betas(name, T):
    """The betas of the process with alpha_bar_t = alpha(t / T)."""
    time = np.arange(T + 1) / T
    return np.append(np.diff(BETA[name](time))[:-1] / ALPHA[name](time[:-2]), 1.0)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("name", ["linear", "cosine", pytest.param("cubic", marks=pytest.mark.slow)])
def test_the_loss_is_the_limit_of_many_steps(name):
    """T posterior_kl misses it by c / T: ten times less with ten times as many steps."""
    x0 = jnp.asarray(X0)
    xt = jnp.asarray(XT)
    logits = jnp.asarray(LOGITS)
    masked = d3pm.forbid(logits, K - 1)
    either = jnp.where(xt == K - 1, K - 1, x0)  # what an absorbing process can reach
    time = jnp.asarray(0.3)
    uniform = jax.jit(partial(continuous.uniform_nelbo, SCHEDULES[name]))(logits, x0, xt, time)
    absorbing = jax.jit(partial(continuous.absorbing_nelbo, SCHEDULES[name]), static_argnums=4)(
        masked, x0, either, time, K - 1
    )
    assert np.all(uniform > 0)
    errors = []
    posterior_kl = jax.jit(d3pm.posterior_kl)
    for T in (10**3, 10**4, 10**5, 10**6):
        beta = betas(name, T)
        t = jnp.asarray(3 * T // 10)
        kl = posterior_kl(d3pm.uniform(beta, K), logits, x0, xt, t)
        masked_kl = posterior_kl(d3pm.absorbing(beta, K, K - 1), masked, x0, either, t)
        errors.append([np.abs(T * kl - uniform).max(), np.abs(T * masked_kl - absorbing).max()])
    errors = np.array(errors)
    assert np.all(errors[-1] < 2e-4)
    np.testing.assert_allclose(errors[:2, 0] / errors[1:3, 0], 10, rtol=0.05)
    if name != "linear":  # there every T gives the limit itself
        np.testing.assert_allclose(errors[:2, 1] / errors[1:3, 1], 10, rtol=0.05)
    else:
        assert errors[:, 1].max() < 1e-7


def test_draws_have_the_probabilities_of_the_schedule():
    u = (jnp.arange(1000) + 0.5) / 1000
    x0 = jnp.full(1000, 2)
    count = np.bincount(continuous.uniform_draw(linear, x0, jnp.asarray(0.4), u, K), minlength=K)
    np.testing.assert_array_equal(count, [80, 80, 680, 80, 80])
    count = np.bincount(continuous.absorbing_draw(linear, x0, jnp.asarray(0.4), u, 4), minlength=K)
    np.testing.assert_array_equal(count, [0, 0, 600, 0, 400])
    for time, unchanged in ((0.0, 1000), (1.0, 200)):
        x = continuous.uniform_draw(linear, x0, jnp.asarray(time), u, K)
        assert (x == 2).sum() == unchanged
    process = d3pm.uniform(np.array([0.4, 1.0]), K)  # the same rule
    xt = continuous.uniform_draw(linear, x0, jnp.asarray(0.4), u, K)
    np.testing.assert_array_equal(xt, process.draw_q(x0, jnp.asarray(1), u))


@jax.jit
def of_certain_networks(time):
    """The loss and the gradient of the sum of its finite values."""
    logits = jnp.array([[1e4, -1e4, 0.0], [0.0, 5.0, -jnp.inf], [-jnp.inf, 0.0, 0.0], [-1e4, 1e4, 1e4]])
    x0 = jnp.array([0, 1, 0, 0])
    xt = jnp.array([0, 2, 0, 2])

    def finite(x):
        loss = continuous.uniform_nelbo(linear, x, x0, xt, time)
        return jnp.where(jnp.isinf(loss), 0.0, loss).sum(), loss

    gradient, value = jax.grad(finite, has_aux=True)(logits)
    return value, gradient


@pytest.mark.parametrize("time", [0.0, 1e-6, 0.5, 1.0])
def test_certain_networks_and_the_ends_of_time_give_no_nan(time):
    """Logits of +-1e4 and -inf; x_t = x_0, and another one."""
    value, gradient = of_certain_networks(jnp.asarray(time))
    assert not np.isnan(value).any()
    assert np.isfinite(gradient).all()
    assert np.all(value >= 0)
    assert value[0] == 0  # certain and right
    if time == 0.0:
        assert np.isposinf(value[2])  # x_t = x_0 for sure, and ruled out
        assert value[1] == value[3] == 0  # impossible pairs
    else:
        assert np.isfinite(value).all()


def test_only_masked_elements_cost():
    logits = jnp.array([[0.0, -jnp.inf, -jnp.inf]] * 3)
    x0 = jnp.array([0, 1, 1])
    xt = jnp.array([2, 1, 2])

    def loss(x):
        return continuous.absorbing_nelbo(linear, x, x0, xt, jnp.asarray(0.5), 2)

    value, gradient = jax.jit(lambda x: (loss(x), jax.grad(lambda x: loss(x)[:2].sum())(x)))(logits)
    np.testing.assert_array_equal(value, [0.0, 0.0, jnp.inf])
    assert np.isfinite(gradient).all()


# Of a mask that has a probability, of one whose probability is below rounding, and of one that is forbidden.
LOGIT_OF_MASK = [0.0, -10.0, -100.0, -1e6, -np.inf]


def test_a_mask_that_is_not_forbidden_is_refused_or_marked_where_it_counts():
    """The limit of T `posterior_kl` then has another term: that of staying a mask for good."""
    logits = jnp.zeros((5, 3)).at[:, 2].set(jnp.asarray(LOGIT_OF_MASK))
    x0 = jnp.zeros(5, jnp.int32)
    time = jnp.asarray(0.5)
    process = d3pm.absorbing(d3pm.reciprocal(10**5), 3, 2)
    t = jnp.asarray(5 * 10**4)

    @jax.jit
    def both(logits, xt):
        loss = continuous.absorbing_nelbo(linear, logits, x0, xt, time, 2)
        return loss, 10**5 * d3pm.posterior_kl(process, logits, x0, xt, t)

    masked = jnp.full(5, 2)
    loss, limit = both(logits, masked)
    np.testing.assert_array_equal(np.isnan(loss), [True, True, False, False, False])
    np.testing.assert_allclose(loss[2:], limit[2:], rtol=1e-3)
    # A mask may be one because x_0 is, or, with 1 - alpha = 1 / 2, because it was masked.
    masks = np.exp(np.asarray(logits[:2, 2]))
    p_of_each = 0.5 / (0.5 * 2 + masks)
    np.testing.assert_allclose(limit[:2], 2 * (-np.log(p_of_each) - (1 - 2 * p_of_each)), rtol=5e-3)
    assert 2 * np.log(3) > limit[0] + 0.4  # what the formula would say of the first
    for wrong in (0, 1):
        with pytest.raises(ValueError, match=r"^p\(x_0 = mask_id\) of logits_x0 .*; pass d3pm\.forbid\("):
            continuous.absorbing_nelbo(linear, logits[wrong:], x0[wrong:], masked[wrong:], time, 2)
    right = continuous.absorbing_nelbo(linear, logits[2:], x0[2:], masked[2:], time, 2)
    np.testing.assert_allclose(right, loss[2:])
    # What is said of places that are visible counts nothing.
    assert np.all(continuous.absorbing_nelbo(linear, logits, x0, x0, time, 2) == 0)


@pytest.mark.usefixtures("x64")
def test_the_mean_over_time_is_the_exact_likelihood_of_one_masked_element():
    """One element and a network that ignores its input: -log p(x_0), whatever the schedule."""
    time = (jnp.arange(20_000) + 0.5) / 20_000
    logits = d3pm.forbid(jnp.asarray(LOGITS[0]), K - 1)
    x0 = 1
    expected = -jax.nn.log_softmax(logits)[x0]

    def mean(schedule):
        """The mean over time; an element is masked with probability beta."""
        many = jnp.broadcast_to(logits, (*time.shape, K))
        n = time.shape
        mask = continuous.absorbing_nelbo(schedule, many, jnp.full(n, x0), jnp.full(n, K - 1), time, K - 1)
        level: Level = schedule(time)
        return (level.beta * mask).mean()

    means = jax.jit(lambda: [mean(schedule) for schedule in SCHEDULES.values()])()
    np.testing.assert_allclose(means, np.full(len(SCHEDULES), expected), rtol=1e-6)
