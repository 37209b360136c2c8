"""The kernels against sums over every path x_0..x_T, in float64: K = 3, D = 2, T = 4."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import d3pm_jax as d3pm
from tests import families

K, D, T = 3, 2, 4
STATES = np.array(list(itertools.product(range(K), repeat=D)))  # [9, D]
TABLE = np.random.default_rng(1).normal(size=(T + 1, K**D, D, K)) * 1.5  # the model: any function will do
TOLERANCE = 1e-12

pytestmark = [pytest.mark.usefixtures("x64"), pytest.mark.filterwarnings("ignore:x_T still depends")]


@pytest.fixture(params=families.NAMES)
def case(request, x64):
    return families.make(request.param)


X0_RULE = ("absorbing", "masked", "dense")  # each kind of process once under the other rule for t = 1


@pytest.fixture(params=[("bayes", name) for name in families.NAMES] + [("x0", name) for name in X0_RULE])
def case_and_rule(request, x64):
    first_step, name = request.param
    return families.make(name), first_step


def denoise(case, xt, t):
    """The table model: logits of x_0 from the joint state of both elements."""
    logits = jnp.asarray(TABLE)[t, xt[:, 0] * K + xt[:, 1]]
    return logits if case.forbid is None else d3pm.forbid(logits, case.forbid)


def paths(Q, x0):
    """For one element: every (x_0, x_1, ..., x_T) from x0, and its probability under q."""
    for rest in itertools.product(range(K), repeat=T):
        path = (x0, *rest)
        yield path, np.prod([Q[t - 1, path[t - 1], path[t]] for t in range(1, T + 1)])


def joint(case, t):
    """q(x_{t-1} = i, x_t = j | x_0 = k) as [k, i, j], summed over paths."""
    return _joint(case.Q.tobytes(), t)


@functools.cache
def _joint(Q, t):
    Q = np.frombuffer(Q).reshape(T, K, K)
    q = np.zeros((K, K, K))
    for x0 in range(K):
        for path, p in paths(Q, x0):
            q[x0, path[t - 1], path[t]] += p
    return q


def model_step(case, t, first_step):
    """p(x_{t-1} | x_t) of both elements together, [state of x_t, state of x_{t-1}]."""
    q, p = joint(case, t), np.zeros((K**D, K**D))
    for n, xt in enumerate(STATES):
        logits = np.array(TABLE[t, n])
        if case.forbid is not None:
            logits[:, case.forbid] = -np.inf
        p0 = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
        if t == 1 and first_step == "x0":
            each = p0
        else:
            each = np.stack([p0[d] @ q[:, :, xt[d]] for d in range(D)])
            total = each.sum(-1, keepdims=True)
            each = np.divide(each, total, out=np.zeros_like(each), where=total > 0)
        p[n] = np.outer(each[0], each[1]).reshape(-1)
    return p


def test_tables_are_the_products_of_the_one_step_matrices(case):
    product = np.eye(K)
    assert np.array_equal(case.process.Qbar(jnp.asarray(0)), product)
    for t in range(1, T + 1):
        product = product @ case.Q[t - 1]
        np.testing.assert_allclose(case.process.Q(jnp.asarray(t)), case.Q[t - 1], atol=TOLERANCE)
        np.testing.assert_allclose(case.process.Qbar(jnp.asarray(t)), product, atol=TOLERANCE)
        np.testing.assert_allclose(case.process.Qbar(jnp.asarray(t)).sum(-1), 1, atol=TOLERANCE)


def test_structured_forms_equal_the_dense_matrices(case):
    x, log_p = jnp.arange(K), jax.nn.log_softmax(jnp.asarray(TABLE[0, :K, 0]))
    for t in range(T + 1):
        Q, Qbar, t = case.process.Q(jnp.asarray(t)), case.process.Qbar(jnp.asarray(t)), jnp.asarray(t)
        np.testing.assert_allclose(jnp.exp(case.process.log_q_probs(x, t)), Qbar, atol=TOLERANCE)
        np.testing.assert_allclose(jnp.exp(case.process.log_q_back(x, t)), Q.T, atol=TOLERANCE)
        np.testing.assert_allclose(
            jnp.exp(case.process.log_push(log_p, t)), jnp.exp(log_p) @ Qbar, atol=TOLERANCE
        )
    np.testing.assert_allclose(jnp.exp(case.process.log_prior()), case.prior, atol=TOLERANCE)


def test_posterior_is_the_conditional_of_the_enumerated_joint(case):
    for t in range(1, T + 1):
        q = joint(case, t)
        for x0, xt in itertools.product(range(K), repeat=2):
            found = jnp.exp(d3pm.q_posterior(case.process, jnp.asarray(x0), jnp.asarray(xt), jnp.asarray(t)))
            total = q[x0, :, xt].sum()
            expected = q[x0, :, xt] / total if total > 0 else np.zeros(K)  # an impossible pair has none
            np.testing.assert_allclose(found, expected, atol=TOLERANCE)


def test_reverse_step_is_the_mixture_of_enumerated_joints(case_and_rule):
    case, first_step = case_and_rule
    xt = jnp.asarray(STATES)
    for t in range(1, T + 1):
        ts = jnp.full(len(STATES), t)
        each = np.exp(d3pm.p_logits(case.process, denoise(case, xt, ts), xt, ts, first_step))
        found = np.einsum("ni,nj->nij", each[:, 0], each[:, 1]).reshape(K**D, K**D)
        np.testing.assert_allclose(found, model_step(case, t, first_step), atol=TOLERANCE)


def bound_over_paths(case, first_step, x0):
    """E_q[log q(x_1..x_T | x_0) - log p(x_0..x_T)] and -log p(x_0), with no KL in sight."""
    path = np.array(list(itertools.product(range(K**D), repeat=T))).T  # [T, 9^4] joint states of x_1..x_T
    path = np.concatenate([np.full((1, path.shape[1]), x0[0] * K + x0[1]), path])
    q, p = np.ones(path.shape[1]), np.outer(case.prior, case.prior).reshape(-1)[path[T]]
    for t in range(1, T + 1):
        q = q * np.kron(case.Q[t - 1], case.Q[t - 1])[path[t - 1], path[t]]
        p = p * model_step(case, t, first_step)[path[t], path[t - 1]]
    with np.errstate(divide="ignore", invalid="ignore"):
        terms = np.where(q > 0, q * (np.log(q) - np.log(p)), 0.0)
    return terms.sum(), -np.log(p.sum())


@jax.jit
def draw_on_grid(process, x0, t):
    return process.draw_q(jnp.full(4096, x0), t, jnp.arange(4096) / 4096)


def noise_to_reach(case, x0):
    """u [T, K, N, D] that takes each element of x0 to each category at each t, wherever it can."""
    found = np.zeros((T, K, *x0.shape))
    for t, x in itertools.product(range(1, T + 1), case.data):
        drawn = np.asarray(draw_on_grid(case.process, jnp.asarray(x), jnp.asarray(t)))
        reached = np.unique(drawn)
        assert set(reached) == set(np.flatnonzero(case.process.Qbar(jnp.asarray(t))[x]))
        for k in reached:
            found[t - 1, k][x0 == x] = np.argmax(drawn == k) / 4096
    return found


def test_all_t_bound_is_the_expectation_over_paths_and_above_the_likelihood(case_and_rule):
    case, first_step = case_and_rule
    x0 = np.array(list(itertools.product(case.data, repeat=D)))
    u = noise_to_reach(case, x0)
    bound = jax.jit(
        lambda process, x0, noise: d3pm.all_t_bound(
            lambda xt, t: denoise(case, xt, t),
            process,
            x0,
            lambda t: noise[t - 1],
            functools.partial(d3pm.posterior_kl, first_step=first_step),
        )
    )
    total = np.zeros(len(x0))
    Qbar = np.asarray(case.process.Qbar(jnp.arange(T + 1)))
    for a, b in STATES:  # both elements are taken to this state at every t
        found = bound(
            case.process, jnp.asarray(x0), jnp.asarray(np.stack([u[:, a, :, 0], u[:, b, :, 1]], axis=-1))
        )
        for t, q in enumerate(Qbar[1:], 1):
            weight = q[x0[:, 0], a] * q[x0[:, 1], b]
            total += np.where(weight > 0, weight * np.asarray(found.steps[t - 1]), 0)
    total += np.asarray(found.prior)
    expected, exact = np.array([bound_over_paths(case, first_step, x) for x in x0]).T
    np.testing.assert_allclose(total, expected, rtol=TOLERANCE, atol=TOLERANCE)
    assert np.all(total >= exact - TOLERANCE)


def test_reverse_chain_draws_what_the_enumerated_steps_say(case_and_rule):
    """The marginal of the steps is the likelihood, and a chain inverts their cumulative sums."""
    case, first_step = case_and_rule
    n = 300
    u = np.random.default_rng(2).uniform(size=(T + 1, n, D))
    xT = np.asarray(case.process.draw_prior(jnp.asarray(u[0])))
    chain = jax.jit(
        lambda process, xT, u: d3pm.ancestral(
            lambda x, t: denoise(case, x, t),
            process,
            xT,
            lambda t: u[t],
            range(T + 1),
            functools.partial(d3pm.p_logits, first_step=first_step),
        )
    )(case.process, jnp.asarray(xT), jnp.asarray(u))
    x = xT
    for t in range(T, 0, -1):
        np.testing.assert_array_equal(chain.states[t], x)
        p = model_step(case, t, first_step)[x[:, 0] * K + x[:, 1]].reshape(n, K, K)
        each = np.stack([p.sum(2), p.sum(1)], axis=1)
        cdf = np.cumsum(each, axis=-1)
        x = np.minimum((cdf <= u[t][..., None]).sum(-1), K - 1)
    np.testing.assert_array_equal(chain.x0, x)
    np.testing.assert_array_equal(chain.states[0], x)
    assert chain.failed_at == 0
