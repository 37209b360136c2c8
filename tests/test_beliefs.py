"""What the logits are, against enumeration: random laws of a few positions, with exact beliefs in float64.

`pytest -s tests/test_beliefs.py -m "slow or not slow" -k excess` prints the table.
"""

import itertools
from functools import cache, partial, reduce

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.optimize

import d3pm_jax as d3pm
from d3pm_jax import beliefs
from tests.processes import odd
from tests.processes.own import cyclic_shift

pytestmark = [pytest.mark.usefixtures("x64"), pytest.mark.filterwarnings("ignore:x_T still depends")]

T = 20
BELIEFS = ("d3pm", "leave_one_out", "denoiser")
CONSISTENT = BELIEFS[1:]


def neighbours(K):
    return d3pm.knn_rate(np.arange(K, dtype=float)[:, None] ** 1.5, 2)


PROCESSES = {  # of K categories, a mask among them where there is one
    "uniform": lambda K: d3pm.uniform(d3pm.cosine(T), K),
    "absorbing": lambda K: d3pm.absorbing(d3pm.reciprocal(T), K, K - 1),
    "absorbing to a category": lambda K: d3pm.absorbing(d3pm.cosine(T), K, 1),
    "marginal": lambda K: d3pm.marginal(d3pm.cosine(T), np.arange(K) / np.arange(K).sum()),
    "gaussian": lambda K: d3pm.gaussian(d3pm.linear(T, 0.02, 0.5), K),
    "banded": lambda K: d3pm.banded(d3pm.linear(T, 0.05, 0.9), K, 1),
    "mask on uniform": lambda K: d3pm.masked(d3pm.uniform(d3pm.cosine(T), K - 1), d3pm.linear(T, 0.05, 0.2)),
    "mask on gaussian": lambda K: d3pm.masked(
        d3pm.gaussian(d3pm.linear(T, 0.02, 0.5), K - 1), d3pm.reciprocal(T)
    ),
    "walk": lambda K: d3pm.random_walk(d3pm.cosine(T), d3pm.knn_graph(np.arange(K)[:, None] ** 1.5, 2)),
    "rate": lambda K: d3pm.from_rate(neighbours(K), np.geomspace(0.01, 2, T)),
    "dense": lambda K: d3pm.dense(
        0.8 * np.eye(K) + 0.2 * np.random.default_rng(0).dirichlet(np.ones(K), (T, K))
    ),
    "own": lambda K: cyclic_shift(np.full(T, 0.2), K),
}
MASKED = ("absorbing", "mask on uniform", "mask on gaussian")


@cache
def law(K, D, masked):
    """A random law of x_0 [K, .., K], which never has the mask."""
    data = K - masked
    p = np.zeros((K,) * D)
    p[(slice(data),) * D] = np.random.default_rng(K + D).dirichlet(np.full(data**D, 0.3)).reshape((data,) * D)
    return p


@cache
def states(K, D):
    return np.array(list(itertools.product(range(K), repeat=D)))


def together(matrix, D):
    """The matrix of all D positions at once, [K^D, K^D], from that of one."""
    return reduce(np.kron, [matrix] * D)


def exact(p, Qbar, axis):
    """The leave-one-out posterior and the denoiser of a position, [states of x_t, K], by definition."""
    K = p.shape[0]
    D = p.ndim
    joint = p.reshape(-1, 1) * together(Qbar, D)  # of x_0 and x_t, by state
    is_x0 = states(K, D)[:, axis, None] == np.arange(K)
    denoiser = joint.T @ is_x0
    other_axes = np.delete(states(K, D), axis, axis=1)
    differ_at_axis = (other_axes[:, None] == other_axes[None]).all(-1)  # x_t that differ at the axis alone
    return normalised_rows(differ_at_axis @ denoiser), normalised_rows(denoiser)


def normalised_rows(p):
    """Rows that sum to 1, and zeros where there is nothing to normalise."""
    with np.errstate(invalid="ignore"):
        return np.nan_to_num(p / p.sum(1, keepdims=True))


def true_reverse(p, Q, Qbar_s, axis):
    """p(x_{t-1} = j | x_t) of one position from the joint law of all of both, and p(x_t), by state of x_t."""
    K = p.shape[0]
    D = p.ndim
    before = p.reshape(-1) @ together(Qbar_s, D)
    joint = (before[:, None] * together(Q, D)).T @ (states(K, D)[:, axis, None] == np.arange(K))
    total = joint.sum(1)
    return np.divide(joint, total[:, None], out=np.zeros_like(joint), where=total[:, None] > 0), total


@jax.jit
def chains(process, probabilities, xt, t):
    """p(x_{t-1} | x_t) under every belief, from its probabilities."""
    return {
        belief: jnp.exp(d3pm.p_logits(process, jnp.log(p0), xt, t, belief=belief))
        for belief, p0 in probabilities.items()
    }


def excess(name, K, D):
    """KL of the true reverse from the chain in nats per token, summed over the steps, of each belief."""
    process = PROCESSES[name](K)
    p = law(K, D, name in MASKED)
    Q = np.asarray(process.Q(jnp.arange(T + 1)))
    Qbar = np.asarray(process.Qbar(jnp.arange(T + 1)))
    xt = states(K, D)
    # States of two positions are repeated to as many as three have, so that both are the same program.
    repeated = np.arange(K**3) % len(xt)
    nats = dict.fromkeys(BELIEFS, 0.0)
    for axis in range(D):
        exact_beliefs = [exact(p, Qbar[t], axis) for t in range(1, T + 1)]
        loo = np.stack([loo for loo, _ in exact_beliefs])[:, repeated]
        denoiser = np.stack([denoiser for _, denoiser in exact_beliefs])[:, repeated]
        probabilities = {"d3pm": denoiser, "leave_one_out": loo, "denoiser": denoiser}
        steps = np.repeat(np.arange(1, T + 1), len(repeated)).reshape(T, -1)
        x = np.broadcast_to(xt[repeated, axis].astype(np.int32), steps.shape)
        reverse = jax.tree.map(np.asarray, chains(process, probabilities, x, steps))
        for t in range(1, T + 1):
            truth, weight = true_reverse(p, Q[t], Qbar[t - 1], axis)
            for belief in BELIEFS:
                nats[belief] += weight @ divergence(truth, reverse[belief][t - 1, : len(xt)]) / D
    return nats


def divergence(q, p):
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(q > 0, q * (np.log(q) - np.log(p)), 0.0).sum(-1)


AS_PUBLISHED = {"uniform": 0.3, "gaussian": 0.2, "mask on uniform": 0.2}  # at least so many nats are lost
QUICK = ("absorbing", "mask on uniform")


def list_excess_cases():
    for name, K, D in itertools.product(PROCESSES, (3, 4), (2, 3)):
        if name in QUICK and (K, D) == (4, 2):
            yield pytest.param(name, K, D)
        else:
            yield pytest.param(name, K, D, marks=pytest.mark.slow)


@pytest.mark.parametrize(("name", "K", "D"), list(list_excess_cases()))
def test_excess_of_the_chain_is_nothing_under_consistent_beliefs(name, K, D):
    nats = excess(name, K, D)
    print(f"| {name} | {K} | {D} | " + " | ".join(f"{nats[b]:.3g}" for b in BELIEFS) + " |")
    for belief in CONSISTENT:
        assert abs(nats[belief]) < 1e-13
    if name == "absorbing":
        assert abs(nats["d3pm"]) < 1e-13
    elif (K, D) == (4, 2):
        assert nats["d3pm"] > AS_PUBLISHED.get(name, 1e-3)


MINIMISED = {
    "uniform": lambda: d3pm.uniform(np.array([0.2, 0.3, 0.4, 1.0]), 3),
    "gaussian": lambda: d3pm.gaussian(np.array([0.3, 0.4, 0.6, 0.9]), 3),
}


@partial(jax.jit, static_argnames="belief")
def expected_loss(logits, process, weight, x0, xt, t, ce_weight, belief):
    """The mean of the hybrid over the law of (x_0, x_t), of logits by state of x_t, and its gradient."""

    def loss(logits):
        table = jnp.broadcast_to(logits.reshape(len(weight), -1, process.K), (*x0.shape, process.K))
        terms = d3pm.hybrid(process, table, x0, xt, t, 1.0, belief=belief)
        return jnp.sum(weight[..., None] * (terms.kl + ce_weight * terms.ce)) / (1 + ce_weight)

    return jax.value_and_grad(loss)(logits)


def minimiser(process, p, t, ce_weight, belief):
    """The probabilities [states of x_t, D, K] that the loss is least for, by quasi-Newton steps."""
    K = process.K
    D = p.ndim
    Qbar = np.asarray(process.Qbar(jnp.asarray(t)))
    all_states = states(K, D)
    weight = p.reshape(-1, 1) * together(Qbar, D)  # [x_0, x_t]
    shape = (len(all_states), len(all_states), D)
    x0 = jnp.broadcast_to(jnp.asarray(all_states[:, None], jnp.int32), shape)
    xt = jnp.broadcast_to(jnp.asarray(all_states, jnp.int32), shape)
    law = jax.device_put((process, weight, x0, xt, t, ce_weight))

    def f(x):
        value, gradient = expected_loss(x, *law, belief)
        return float(value), np.asarray(gradient)

    options = {"maxiter": 5000, "maxfun": 10_000, "ftol": 0, "gtol": 1e-11, "maxcor": 50}
    start = np.zeros(len(all_states) * D * K)
    logits = scipy.optimize.minimize(f, start, jac=True, method="L-BFGS-B", options=options).x
    return np.asarray(jax.nn.softmax(logits.reshape(-1, D, K)))


WEIGHTS = (0.0, 0.01, 1.0, 100.0)
FEW = (0.0, 1.0)
CLOSE = {"uniform": 1e-7, "gaussian": 1e-5}  # the bound alone is nearly flat along some logits of the latter


@pytest.mark.parametrize(
    ("name", "weights"),
    [
        ("uniform", FEW),
        pytest.param("uniform", WEIGHTS, marks=pytest.mark.slow),
        pytest.param("gaussian", WEIGHTS, marks=pytest.mark.slow),
    ],
)
def test_the_least_hybrid_is_at_the_exact_belief_whatever_the_weight(name, weights):
    t = 2
    process = MINIMISED[name]()
    p = np.random.default_rng(1).dirichlet(np.ones(9)).reshape(3, 3)
    Qbar = np.asarray(process.Qbar(jnp.asarray(t)))
    exact_beliefs = [exact(p, Qbar, axis) for axis in range(2)]
    loo = np.stack([loo for loo, _ in exact_beliefs], 1)
    denoiser = np.stack([denoiser for _, denoiser in exact_beliefs], 1)
    for belief, expected in zip(CONSISTENT, (loo, denoiser), strict=True):
        for ce_weight in weights:
            least = minimiser(process, p, t, ce_weight, belief)
            print(f"{name}, {belief}, {ce_weight}: off by {np.abs(least - expected).max():.1e}")
            np.testing.assert_allclose(least, expected, atol=CLOSE[name], err_msg=f"{belief}, {ce_weight}")
    moved = [np.abs(minimiser(process, p, t, w, "d3pm") - loo).max() for w in weights]
    print(f"{name}: as published, off the leave-one-out posterior by {np.round(moved, 4)}")
    assert moved[0] < CLOSE[name] < 1e-3 < moved[1]
    assert (np.diff(moved) > 0).all()


def arguments(K, dtype):
    """Every pair (x_0 = argmax, x_t) at every t, and logits with holes, certain and empty rows among them."""
    rng = np.random.default_rng(3)
    t, x, xt = np.indices((odd.T, K + 2, K)).reshape(3, odd.T, -1)
    logits = rng.normal(size=(*xt.shape, K)) * 4
    logits[rng.random(logits.shape) < 0.2] = -np.inf
    certain = x[..., None] == np.arange(K)
    logits = np.where((x < K)[..., None], np.where(certain, logits[..., :1], -np.inf), logits)
    logits[:, -1] = -np.inf
    logits[~np.isfinite(logits).any(-1), 0] = 1.0
    logits[:, -2] = -np.inf
    return jnp.asarray(logits, dtype), jnp.asarray(xt, jnp.int32), jnp.asarray(t[:, 0] + 1, jnp.int32)


@jax.jit
def averaged(process, logits, xt, t):
    """log sum_{x_0} q(x_{t-1} | x_t, x_0) p(x_0), normalised over what x_t leaves of x_0 (VQ-Diffusion)."""
    K = process.K
    x0 = jnp.broadcast_to(jnp.arange(K), (*xt.shape, K))
    log_p0 = d3pm.log_normalize(jnp.where(process.log_q_x0(xt, t) == -jnp.inf, -jnp.inf, logits))
    wide = jnp.broadcast_to(xt[..., None], x0.shape)
    terms = d3pm.q_posterior(process, x0, wide, t) + log_p0[..., None]
    return d3pm.log_sum(jnp.swapaxes(terms, -1, -2))


@jax.jit
def by_belief(process, logits, xt, t):
    def total(logits):
        log_p = d3pm.p_logits(process, logits, xt, t, belief="denoiser")
        return jnp.sum(jnp.where(log_p > -jnp.inf, log_p, 0.0)), log_p

    (_, log_p), gradient = jax.value_and_grad(total, has_aux=True)(logits)
    return log_p, gradient


AVERAGED = ("marginal", "gaussian")
OTHERS = (pytest.param(name, marks=pytest.mark.slow) for name in odd.PROCESSES if name not in AVERAGED)


@pytest.mark.parametrize("name", [*AVERAGED, *OTHERS])
def test_a_denoiser_gives_the_average_of_the_normalised_posteriors(name):
    process = odd.PROCESSES[name]()
    logits, xt, t = arguments(process.K, jnp.float64)
    log_p, gradient = by_belief(process, logits, xt, t)
    expected = averaged(process, logits, xt, t)
    np.testing.assert_allclose(jnp.exp(log_p), jnp.exp(expected), rtol=1e-12, atol=1e-15)
    np.testing.assert_array_equal(log_p == -jnp.inf, expected == -jnp.inf)
    assert not np.isnan(gradient).any()
    with jax.enable_x64(False):
        narrow, gradient = by_belief(odd.PROCESSES[name](), *arguments(process.K, jnp.float32))
    np.testing.assert_allclose(np.exp(narrow), jnp.exp(log_p), atol=2e-6)
    assert not np.isnan(gradient).any()


@jax.jit
def conversions(process, logits, xt, t):
    loo = beliefs.to_leave_one_out(process, logits, xt, t)
    drawn = d3pm.p_sample(process, logits, xt, t, jnp.full(xt.shape, 0.5), belief="denoiser")
    return loo, beliefs.to_denoiser(process, loo, xt, t), drawn


def test_conversions_are_bayes_rule_and_undo_each_other():
    process = odd.PROCESSES["marginal"]()
    logits, xt, t = arguments(process.K, jnp.float64)
    loo, back, drawn = conversions(process, logits, xt, t)
    Qbar = np.asarray(process.Qbar(t))
    q = np.stack([Qbar[i][:, x].T for i, x in enumerate(np.asarray(xt))])  # q(x_t | x_0)
    with np.errstate(divide="ignore", invalid="ignore"):
        expected = np.where(q > 0, logits - np.log(q), -np.inf)
    np.testing.assert_allclose(loo, expected, rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(back, np.where(q > 0, logits, -np.inf), rtol=1e-12, atol=1e-12)
    assert (q == 0).any()
    impossible = (expected == -np.inf).all(-1)
    assert impossible.any()  # nothing is left: no distribution, in the chain either
    np.testing.assert_array_equal(drawn == -1, impossible)


def test_the_step_from_t_1_is_the_denoiser():
    @jax.jit
    def run(process, logits):
        xt = jnp.arange(4)
        t = jnp.asarray(1)
        denoiser = {"leave_one_out": beliefs.to_denoiser(process, logits, xt, t), "denoiser": logits}
        return {
            belief: (
                d3pm.log_normalize(denoiser[belief]),
                d3pm.p_logits(process, logits, xt, t, belief),
                *d3pm.hybrid(process, logits, xt[::-1], xt, t, 1.0, belief)[1:],
            )
            for belief in CONSISTENT
        }

    results = run(PROCESSES["uniform"](4), jnp.asarray(np.random.default_rng(0).normal(size=(4, 4))))
    for name, (denoiser, p, kl, ce) in results.items():
        np.testing.assert_allclose(p, denoiser, atol=1e-12, err_msg=name)
        np.testing.assert_allclose(kl, ce, atol=1e-14, err_msg=name)


def test_bounds_and_chains_pass_the_belief_on():
    process = MINIMISED["uniform"]()
    u = np.random.default_rng(5).random((5, 6, 2))
    table = jnp.asarray(np.random.default_rng(6).normal(size=(3, 3)))
    x0 = jnp.asarray(states(3, 2)[:6], jnp.int32)

    def noise(t):
        return jnp.asarray(u)[t]

    def denoise(xt, t):
        return table[xt] + t[:, None, None] / T

    def to_loo(xt, t):
        return beliefs.to_leave_one_out(process, denoise(xt, t), xt, t)

    def draw(denoiser):
        return d3pm.sampling.run(denoiser, x0, lambda t, stream: noise(t)).x0

    @jax.jit
    def run():
        return (
            d3pm.all_t_bound(denoise, process, x0, noise, belief="denoiser").total(),
            d3pm.all_t_bound(to_loo, process, x0, noise).total(),
            draw(d3pm.Denoiser(process, denoise, "denoiser")),
            draw(d3pm.Denoiser(process, to_loo)),
            draw(d3pm.Denoiser(process, denoise)),
        )

    bound, bound_by_hand, drawn, drawn_by_hand, of_another = run()
    np.testing.assert_allclose(bound, bound_by_hand, rtol=1e-12)
    np.testing.assert_array_equal(drawn, drawn_by_hand)
    assert (drawn != of_another).any()
    with pytest.raises(TypeError, match="belief"):
        d3pm.all_t_bound(denoise, process, x0, noise, d3pm.direct_kl, "denoiser")


def test_official_takes_the_prediction_at_t_1_alone():
    process = d3pm.uniform(d3pm.reciprocal(4), 3)
    logits = jnp.arange(9.0).reshape(3, 3)
    x0 = jnp.array([0, 1, 2])
    xt = x0[::-1]
    t = jnp.array([1, 2, 4])
    log_p0 = d3pm.log_p_x0(process, logits)
    expected = jnp.where(t[:, None] == 1, log_p0, d3pm.p_logits(process, logits, xt, t))
    np.testing.assert_allclose(d3pm.p_logits(process, logits, xt, t, "official"), expected, rtol=1e-12)
    as_published = d3pm.hybrid(process, logits, x0, xt, t, 0.1)
    official = d3pm.hybrid(process, logits, x0, xt, t, 0.1, "official")
    np.testing.assert_array_equal(official.ce, as_published.ce)
    np.testing.assert_array_equal(official.kl, jnp.where(t == 1, as_published.ce, as_published.kl))
    assert official.kl[0] != as_published.kl[0]
