"""The score entropy against sums over all x_0 and x_t in NumPy, and against the bounds that it equals."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import d3pm_jax as d3pm
from d3pm_jax import config as configs
from d3pm_jax.losses import continuous, score_entropy
from d3pm_jax.schedules.continuous import linear
from d3pm_jax.timesteps import StepNoise

pytestmark = pytest.mark.usefixtures("x64")
L = 2
DATA = 3  # categories of the data; with masks there is one more
STATES = np.array(list(itertools.product(range(DATA), repeat=L)))
LAW = np.random.default_rng(0).dirichlet(np.ones(len(STATES)))  # of the data
# Times in (0, 1), and the weight of each: u^4 / (u^4 + (1 - u)^4) of Gauss and Legendre's nodes u.
NODES, WEIGHTS = np.polynomial.legendre.leggauss(60)
U = (NODES + 1) / 2
TIMES = U**4 / (U**4 + (1 - U) ** 4)
DENSITY = WEIGHTS / 2 * 4 * U**3 * (1 - U) ** 3 / (U**4 + (1 - U) ** 4) ** 2


def forward(noise, time):
    """q(x_t | x_0) of one place, [DATA, K]."""
    if noise == "uniform":
        return (1 - time) * np.eye(DATA) + time / DATA
    return np.concatenate([(1 - time) * np.eye(DATA), np.full((DATA, 1), time)], axis=1)


def exact_scores(noise, xt, time):
    """p_t(y) / p_t(x_t), y at one place in turn, [x_t, L, K]; of masks that times e^sigma - 1."""
    q = forward(noise, time)

    def p(x):
        return (LAW * q[STATES, x[..., None, :]].prod(-1)).sum(-1)

    ratios = np.zeros((*xt.shape, q.shape[1]))
    for place, y in itertools.product(range(L), range(q.shape[1])):
        moved = xt.copy()
        moved[:, place] = y
        ratios[:, place, y] = p(moved) / p(xt)
    return ratios if noise == "uniform" else ratios * (time / (1 - time))


@pytest.mark.parametrize("noise", ["uniform", "absorbing"])
def test_the_integral_over_time_with_exact_scores_is_the_likelihood_of_every_x0(noise):
    """By the objective of a config, whose kl is the loss at T = 1 and half of it at T = 2."""
    K = DATA + (noise == "absorbing")
    xt = np.array(list(itertools.product(range(K), repeat=L)))
    process = d3pm.uniform(d3pm.reciprocal(2), K)
    if noise == "absorbing":
        process = d3pm.absorbing(d3pm.reciprocal(2), K, K - 1)
    with np.errstate(divide="ignore"):
        log_scores = np.log([exact_scores(noise, xt, time) for time in TIMES])  # [times, x_t, L, K]
    q = np.array([forward(noise, time)[STATES[:, None], xt].prod(-1) for time in TIMES])  # [times, x_0, x_t]
    x0 = np.broadcast_to(STATES[:, None], (len(TIMES), len(STATES), *xt.shape))
    x0, every_xt = (jnp.asarray(x).reshape(-1, L) for x in np.broadcast_arrays(x0, xt))
    log_scores = np.broadcast_to(log_scores[:, None], (*q.shape, L, K)).reshape(-1, L, K)
    t = jnp.asarray(2 * np.repeat(TIMES, q[0].size))

    @jax.jit
    def compute(log_scores):
        return configs.ScoreEntropy().terms(process, log_scores, x0, every_xt, t, jnp.full(len(t), 1 / 2))

    loss, kl, _ = compute(jnp.asarray(log_scores))
    np.testing.assert_allclose(2 * kl, loss, rtol=1e-12)
    by_time = np.where(q > 0, q * np.asarray(loss).sum(-1).reshape(q.shape), 0.0).sum(-1)  # [times, x_0]
    np.testing.assert_allclose(DENSITY @ by_time, -np.log(LAW), atol=1e-9)


@jax.jit
def compute_both(p, x0, xt, time):
    """The losses of scores that a belief makes, and the bounds of the belief: absorbing, then uniform."""
    K = p.shape[-1]
    masked = d3pm.forbid(jnp.log(p), K - 1)
    alpha = (1 - time)[:, None, None]
    q = alpha * p + (1 - alpha) / K
    log_scores = jnp.log(q / jnp.take_along_axis(q, xt[..., None], -1))
    of_masks = (
        score_entropy.absorbing_score_entropy(linear, d3pm.log_normalize(masked), x0, xt, time, K - 1),
        continuous.absorbing_nelbo(linear, masked, x0, xt, time, K - 1),
    )
    of_uniform = (
        score_entropy.uniform_score_entropy(linear, log_scores, x0, xt, time),
        continuous.uniform_nelbo(linear, jnp.log(p), x0, xt, time),
    )
    return of_masks, of_uniform


def test_scores_of_a_belief_have_the_bound_of_the_belief_at_every_time():
    """Time 1 among them, where alpha is 0, and for uniform noise time 0."""
    rng = np.random.default_rng(1)
    K = 4
    p = jnp.asarray(rng.dirichlet(np.ones(K), (40, 3)))
    x0 = jnp.asarray(rng.integers(0, K - 1, (40, 3)))
    xt = jnp.asarray(rng.integers(0, K, (40, 3)))
    time = jnp.asarray(rng.random(40)).at[0].set(1.0).at[1].set(0.0)
    (masks, nelbo_of_masks), (uniform, nelbo_of_uniform) = compute_both(p, x0, xt, time)
    np.testing.assert_allclose(masks[2:], nelbo_of_masks[2:], rtol=1e-10, atol=1e-12)
    np.testing.assert_allclose(masks[0], nelbo_of_masks[0], rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(uniform, nelbo_of_uniform, rtol=1e-9, atol=1e-10)
    assert np.all(np.isfinite(uniform))


@jax.jit
def differentiate(log_scores, x0, xt):
    """Both losses of log scores at time 1 / 2, and their gradients."""
    time = jnp.asarray(0.5)
    losses = (
        lambda scores: score_entropy.absorbing_score_entropy(linear, scores, x0, xt, time, 3).sum(),
        lambda scores: score_entropy.uniform_score_entropy(linear, scores, x0, xt, time).sum(),
    )
    return [jax.value_and_grad(loss)(log_scores) for loss in losses]


def test_the_entry_of_x_t_is_not_read_and_a_score_of_0_at_x_0_costs_infinitely_much():
    xt = jnp.asarray([[3, 1]])
    x0 = jnp.asarray([[0, 1]])
    log_scores = jnp.zeros((1, 2, 4))
    spoilt = jnp.where(jax.nn.one_hot(xt, 4) > 0, jnp.nan, log_scores)
    pairs = zip(differentiate(spoilt, x0, xt), differentiate(log_scores, x0, xt), strict=True)
    for (value, gradient), (right, right_gradient) in pairs:
        assert value == right
        is_xt = np.asarray(jax.nn.one_hot(xt, 4)) > 0
        np.testing.assert_array_equal(gradient, np.where(is_xt, 0.0, right_gradient))
    impossible = log_scores.at[0, 0, 0].set(-jnp.inf)
    for value, gradient in differentiate(impossible, x0, xt):
        assert value == jnp.inf
        assert np.all(np.isfinite(gradient))


@pytest.mark.slow
def test_the_objective_draws_as_that_of_logits():
    loss = configs.ScoreEntropy(configs.Polynomial(2.0))
    u = jnp.asarray(np.random.default_rng(2).random((5, 4)))
    noise = StepNoise(jnp.linspace(1.0, 7.5, 5), jnp.full(5, 1 / 8), u)
    x0 = jnp.asarray(np.random.default_rng(3).integers(0, 3, (5, 4)))
    # Times of uniform noise end at the last step but one.
    for process, other, end in (
        (d3pm.absorbing(d3pm.polynomial(8, 2.0), 4, 3), configs.ContinuousAbsorbing(loss.alpha), 1),
        (d3pm.uniform(d3pm.polynomial(8, 2.0), 4), configs.ContinuousUniform(loss.alpha), 7 / 8),
    ):
        loss.check_process(process)
        xt = other.draw(process, x0, end * noise.t, u)

        def network(x, time, xt=xt):
            np.testing.assert_array_equal(x, xt)
            return d3pm.heads.log_scores(jnp.zeros((5, 4, 4)), x)

        _, kl, _ = loss.compute(process, network, x0, noise, None)
        assert np.all(np.isfinite(kl))


@pytest.mark.parametrize(
    "process",
    [
        lambda: d3pm.absorbing(d3pm.reciprocal(8), 4, 2),  # another mask
        lambda: d3pm.uniform(d3pm.polynomial(8, 2.0), 4),  # another schedule
        lambda: d3pm.masked(d3pm.uniform(d3pm.reciprocal(8), 3), d3pm.reciprocal(8)),
    ],
)
def test_another_process_than_that_of_the_objective_is_refused(process):
    with pytest.raises(ValueError, match=r"ScoreEntropy .* does not fit this process: .* at t = "):
        configs.ScoreEntropy().check_process(process())
