"""The loss of GIDD: exact beliefs, the bound of many steps, the formula, its ends, and absorbing noise."""

import itertools
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import d3pm_jax as d3pm
from d3pm_jax.losses import continuous, gidd
from d3pm_jax.schedules.continuous import linear

MASK = 2  # of K = 3
NOISES = [(0.0, 1.0), (0.2, 1.0), (0.7, 0.5), (0.2, 2.0)]  # p_uniform, gamma
TABLE = np.array([[0.4, 0.1], [0.2, 0.3]])  # p(x_0) of two places
CLEAN = np.array(list(itertools.product(range(2), repeat=2)))
STATES = np.array(list(itertools.product(range(3), repeat=2)))
PAIRS = [(x0, xt) for x0 in range(2) for xt in range(3)]


def rows(time, p_uniform, gamma):
    """q(x_t | x_0) of every x_0, [2, 3], by the formula of the paper."""
    c = 2**gamma * p_uniform / (1 - p_uniform) * (time * (1 - time)) ** (gamma / 2)
    return np.stack(
        [[(1 - time) * (x == 0) + c / 2, (1 - time) * (x == 1) + c / 2, time] for x in range(2)]
    ) / (1 + c)


def exact_logits(time, p_uniform, gamma):
    """log p(x_0 | x_t at the other place) of every x_t, [9, 2, 3]."""
    q = rows(time, p_uniform, gamma)
    logits = np.full((9, 2, 3), -np.inf)
    with np.errstate(divide="ignore"):
        for n, (first, second) in enumerate(STATES):
            logits[n, 0, :2] = np.log(TABLE @ q[:, second])
            logits[n, 1, :2] = np.log(q[:, first] @ TABLE)
    return logits


# One program of each shape serves all noises.
gidd_nelbo = partial(jax.jit, static_argnames="mask_id")(gidd.gidd_nelbo)
absorbing_nelbo = partial(jax.jit, static_argnames=("schedule", "mask_id"))(continuous.absorbing_nelbo)


@jax.jit
def losses_of_pairs(logits, time, p_uniform, gamma):
    """The loss of every x_0, x_t and place at each time, [n, 4, 9, 2]."""
    shape = (len(time), 4, 9, 2)
    x0 = jnp.broadcast_to(jnp.asarray(CLEAN)[:, None], shape)
    xt = jnp.broadcast_to(jnp.asarray(STATES), shape)
    logits = jnp.broadcast_to(logits[:, None], (*shape, 3))
    return gidd.gidd_nelbo(logits, x0, xt, time, MASK, p_uniform, gamma).bound


@pytest.mark.parametrize(("p_uniform", "gamma"), NOISES)
def test_with_exact_beliefs_its_mean_over_time_is_the_likelihood_of_every_x0(p_uniform, gamma, x64):
    # Gauss and Legendre's nodes, after t = u^n / (u^n + (1 - u)^n): of gamma = 1 n = 4 leaves 2e-9, and where
    # gamma is below the ends need more.
    u, w = np.polynomial.legendre.leggauss(120)
    u = (u + 1) / 2
    total = u**12 + (1 - u) ** 12
    time = u**12 / total
    weight = w / 2 * 12 * (u * (1 - u)) ** 11 / total**2
    logits = np.stack([exact_logits(t, p_uniform, gamma) for t in time])
    q = np.stack([rows(t, p_uniform, gamma) for t in time])  # [n, 2, 3]
    q_of_pairs = np.prod(q[:, CLEAN[:, None], STATES], axis=-1)  # [n, 4, 9]
    losses = np.asarray(losses_of_pairs(jnp.asarray(logits), jnp.asarray(time), p_uniform, gamma)).sum(-1)
    nats = np.einsum("n,nij,nij->i", weight, q_of_pairs, np.where(q_of_pairs > 0, losses, 0.0))
    np.testing.assert_allclose(nats, -np.log(TABLE.reshape(-1)), atol=1e-9)


def formula(logits, x0, xt, time, p_uniform, gamma):
    """The loss of one place in NumPy, as it stands in the paper: w [KL(q || p) + r - log r - 1]."""
    K = logits.shape[-1]
    p0 = np.exp(logits[:-1]) / np.exp(logits[:-1]).sum()
    B = 2**gamma * p_uniform / (1 - p_uniform)
    c = B * (time * (1 - time)) ** (gamma / 2)
    dc = gamma / 2 * (1 - 2 * time) / (time * (1 - time)) * c
    N = K - 1

    def law(x):
        return np.append((1 - time) * x + c / N, time) / (1 + c)

    q, p = law(np.eye(N)[x0]), law(p0)
    gained = c + (1 - time) * dc
    if xt == N:
        w = 1 / (time * (1 - time))
    elif xt == x0:
        w = gained / (N * (1 - time) * (1 - time + c / N))
    else:
        w = gained / ((1 - time) * c)
    r = q[xt] / p[xt]
    dynamic = (
        2.0 if xt == N else min(2.0, B / K * np.exp(gamma / 2 / (1 + np.exp(time)))) if xt == x0 else 1.0
    )
    return np.array([w, min(w, 2), dynamic]) * ((q * np.log(q / p)).sum() + r - np.log(r) - 1)


@pytest.mark.parametrize("dtype", ["float64", pytest.param("float32", marks=pytest.mark.slow)])
def test_it_is_the_formula_of_the_paper_with_each_weight(dtype, x64):
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(len(PAIRS), 3)) * 2
    logits[:, MASK] = -np.inf
    x0, xt = np.array(PAIRS).T
    for (p_uniform, gamma), time in itertools.product(NOISES[1:], (0.001, 0.3, 0.98)):
        expected = [formula(*args, time, p_uniform, gamma) for args in zip(logits, x0, xt, strict=True)]
        t = jnp.asarray(time, dtype)
        actual = gidd_nelbo(
            jnp.asarray(logits, dtype), jnp.asarray(x0), jnp.asarray(xt), t, MASK, p_uniform, gamma
        )
        assert actual.bound.dtype == dtype
        rtol = {"float64": 1e-9, "float32": 2e-4}[dtype]
        np.testing.assert_allclose(np.stack(actual, -1), expected, rtol=rtol, atol=rtol)


def test_without_tokens_it_is_the_bound_of_absorbing_noise(x64):
    logits = d3pm.forbid(jnp.asarray(np.random.default_rng(1).normal(size=(6, 3))), MASK)
    x0, xt = jnp.asarray(PAIRS).T
    for time in (1e-6, 0.4, 1.0):
        t = jnp.asarray(time)
        expected = absorbing_nelbo(linear, logits, x0, xt, t, MASK)
        actual = gidd_nelbo(logits, x0, xt, t, MASK, 0.0, 1.3).bound
        np.testing.assert_allclose(actual, expected, rtol=1e-13)


def test_at_the_ends_of_time_values_and_gradients_are_finite():
    logits = d3pm.forbid(jnp.asarray(np.random.default_rng(2).normal(size=(6, 3)), jnp.float32), MASK)
    x0, xt = jnp.asarray(PAIRS).T

    @jax.jit
    @partial(jax.value_and_grad, has_aux=True)
    def total(logits, time, p_uniform, gamma):
        losses = gidd.gidd_nelbo(logits, x0, xt, time, MASK, p_uniform, gamma)
        return sum(jnp.sum(loss) for loss in losses), losses.bound

    masked = np.asarray(xt) == MASK
    for p_uniform, gamma in itertools.product((0.0, 0.3), (1.0, 2.0)):
        bounds = []
        for time in (1e-12, 1 - 1e-5, 1 - 6e-8, 1.0):
            (value, bound), gradient = total(logits, jnp.float32(time), p_uniform, gamma)
            assert np.isfinite(value)
            assert np.isfinite(np.asarray(gradient)).all()
            bounds.append(np.asarray(bound))
        np.testing.assert_allclose(bounds[-1][masked], bounds[1][masked], atol=5e-3 if gamma == 1 else 1e-4)
        np.testing.assert_array_equal(bounds[-1][~masked], 0)  # at time 1 all is masked


def test_what_rules_x0_out_costs_infinitely_much_and_a_network_has_to_forbid_the_mask():
    x = jnp.zeros(1, jnp.int32)
    certain = jnp.asarray([[-jnp.inf, 0.0, -jnp.inf]])
    loss = jax.jit(
        jax.value_and_grad(
            lambda x0: gidd.gidd_nelbo(x0, x, x + MASK, jnp.float32(0.5), MASK, 0.0, 1.0)[0][0]
        )
    )
    value, gradient = loss(certain)
    assert value == jnp.inf
    assert not np.isnan(gradient).any()
    with pytest.raises(ValueError, match=r"p\(x_0 = mask_id\) of logits_x0 .* pass d3pm.forbid"):
        gidd.gidd_nelbo(jnp.zeros((1, 3)), x, x, jnp.float32(0.5), MASK, 0.2, 1.0)
    for p_uniform, gamma in ((1.0, 1.0), (0.2, 0.0), (0.2, 3.0)):
        with pytest.raises(ValueError, match=r"(p_uniform|gamma) = .* outside"):
            gidd.gidd_nelbo(certain, x, x, jnp.float32(0.5), MASK, p_uniform, gamma)
        with pytest.raises(ValueError, match=r"(p_uniform|gamma) = .* outside"):
            d3pm.interpolating(4, 3, MASK, p_uniform, gamma)


@pytest.mark.slow
def test_it_draws_as_the_process_does_at_its_steps(x64):
    x0, t, u = np.meshgrid(np.arange(5), np.arange(1, 8), (np.arange(200) + 0.37) / 200, indexing="ij")
    x0, t, u = jnp.asarray(x0), jnp.asarray(t), jnp.asarray(u)
    for mask_id in (1, 4):
        draw = jax.jit(
            lambda p_uniform, gamma, mask_id=mask_id: gidd.gidd_draw(
                x0, t / 7, u, mask_id, 5, p_uniform, gamma
            )
        )
        draw_q = jax.jit(lambda process: process.draw_q(x0, t, u))
        for p_uniform, gamma in NOISES:
            process = d3pm.interpolating(7, 5, mask_id, p_uniform, gamma)
            np.testing.assert_array_equal(draw(p_uniform, gamma), draw_q(process))


LIMIT = (256, 512, 1024, 2048)


@pytest.mark.slow
@pytest.mark.parametrize(("p_uniform", "gamma"), NOISES)
def test_it_is_the_limit_of_a_term_of_the_bound_of_many_steps(p_uniform, gamma, x64):
    """T posterior_kl at t / T = 3 / 8 is a series in 1 / T: four T leave 1e-9 of it."""
    logits = d3pm.forbid(jnp.asarray(np.random.default_rng(3).normal(size=(6, 3))), MASK)
    x0, xt = jnp.asarray(PAIRS).T
    possible = np.ones(6, bool)
    terms = []
    for T in LIMIT:
        process = d3pm.interpolating(T, 3, MASK, p_uniform, gamma)
        t = jnp.full(6, 3 * T // 8)
        possible = np.exp(process.log_q_probs(x0, t))[range(6), xt] > 0
        kl = d3pm.posterior_kl(process, logits, x0, xt, t, belief="leave_one_out")
        terms.append(T * np.asarray(kl)[possible])
    for order in range(1, len(LIMIT)):
        terms = [(2**order * after - before) / (2**order - 1) for before, after in itertools.pairwise(terms)]
    limit = gidd_nelbo(logits, x0, xt, jnp.asarray(3 / 8), MASK, p_uniform, gamma).bound
    np.testing.assert_allclose(terms[0], limit[possible], rtol=1e-8, atol=1e-9)


@jax.jit
def bound_of_every_x0(process, logits):
    """The T-step bound of both x_0 of one place, from a network of x_t alone, [2]."""
    x0, xt = jnp.broadcast_to(jnp.asarray(PAIRS), (process.T, 6, 2)).transpose(2, 0, 1)  # [T, 6] each
    t = jnp.arange(1, process.T + 1)
    q = jnp.take_along_axis(jnp.exp(process.log_q_probs(x0, t)), xt[..., None], -1)[..., 0]
    kl = d3pm.posterior_kl(process, logits[xt], x0, xt, t, belief="leave_one_out")
    return jnp.where(q > 0, q * kl, 0.0).sum(0).reshape(2, 3).sum(1)


@pytest.mark.slow
def test_a_mask_on_top_of_uniform_noise_with_the_same_marginals_has_another_bound(x64):
    T = 6
    time = np.arange(T + 1) / T
    q = np.stack([rows(t, 0.4, 2.0) for t in time])  # [T + 1, 2, 3]
    alpha = q[:, 0, 0] - q[:, 1, 0]
    unmasked = 1 - q[:, 0, 2]
    kept = alpha[:-1] / unmasked[:-1]  # at T nothing is left to be kept
    inner = d3pm.uniform(d3pm.from_alpha_bar(np.append(kept, 0.0)), 2)
    on_top = d3pm.masked(inner, d3pm.from_alpha_bar(unmasked))
    process = d3pm.interpolating(T, 3, MASK, 0.4, 2.0)
    np.testing.assert_allclose(
        process.Qbar(jnp.arange(T + 1))[:, :2], on_top.Qbar(jnp.arange(T + 1))[:, :2], atol=1e-14
    )
    logits = d3pm.forbid(jnp.asarray([[1.0, -1, 0], [0.5, 1, 0], [0.3, -0.3, 0]]), MASK)
    difference = bound_of_every_x0(process, logits) - bound_of_every_x0(on_top, logits)
    assert np.abs(difference).min() > 1e-3


def test_noise_of_16_bits_draws_as_the_same_noise_in_32():
    """300 categories have ends that bfloat16 cannot tell apart."""
    u = jnp.linspace(0, 1, 50, endpoint=False, dtype=jnp.bfloat16)
    draws = [
        gidd.gidd_draw(jnp.full(50, 7), jnp.float32(0.4), noise, 299, 300, 0.5, 1.0)
        for noise in (u, u.astype(jnp.float32))
    ]
    np.testing.assert_array_equal(*draws)


def test_a_grid_that_ends_before_the_last_step_has_the_noise_of_its_times():
    process = d3pm.interpolating(7, 3, MASK, 0.2)
    t = jnp.asarray([2, 3])
    np.testing.assert_array_equal(process.respaced([2, 3]).Qbar(jnp.asarray([1, 2])), process.Qbar(t))
