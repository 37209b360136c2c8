"""The kernels against sums over every path x_0..x_T, in float64: K = 3, D = 2, T = 4.

The module `enumeration` among them: what it says of chains here, of orders in test_orders.py.
"""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import d3pm_jax as d3pm
from d3pm_jax import enumeration, likelihood, sampling
from d3pm_jax.sampling.transitions import OwnReverse
from tests import families

K = 3
D = 2
T = 4
STATES = np.array(list(itertools.product(range(K), repeat=D)))  # [9, D]
TABLE = np.random.default_rng(1).normal(size=(T + 1, K**D, D, K)) * 1.5  # the model: any function will do
TOLERANCE = 1e-12

pytestmark = [pytest.mark.usefixtures("x64"), pytest.mark.filterwarnings("ignore:x_T still depends")]


OFFICIAL = ("absorbing", "masked", "dense")  # each kind of process once under the other rule for t = 1
RULES = [("d3pm", name) for name in families.NAMES] + [("official", name) for name in OFFICIAL]
# Bounds and chains ask a process for the steps that are tested above: a process of each class is enough, and
# of the official rule any one.
RULES_OF_CHAINS = [("d3pm", name) for name in ("extra mask", "masked dense", "dense", "own")]
RULES_OF_CHAINS += [("official", "dense")]
SLOW_RULES = [("d3pm", "marginal"), ("d3pm", "masked"), ("d3pm", "interpolating"), ("official", "absorbing")]
RULES_OF_CHAINS += [pytest.param(rule, marks=pytest.mark.slow) for rule in SLOW_RULES]


@pytest.fixture(params=families.NAMES)
def case(request, x64):
    return families.make(request.param)


@pytest.fixture(params=RULES)
def case_and_rule(request, x64):
    belief, name = request.param
    return families.make(name), belief


def denoise(xt, t, forbid):
    """The table model: logits of x_0 from the joint state of both elements."""
    logits = jnp.asarray(TABLE)[t, xt[:, 0] * K + xt[:, 1]]
    if forbid is None:
        return logits
    return d3pm.forbid(logits, forbid)


def paths(Q, x0):
    """For one element: every (x_0, x_1, ..., x_T) from x0, and its probability under q."""
    for noisy in itertools.product(range(K), repeat=T):
        path = (x0, *noisy)
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


def model_step(case, t, belief):
    """p(x_{t-1} | x_t) of both elements together, [state of x_t, state of x_{t-1}]."""
    q = joint(case, t)
    p = np.zeros((K**D, K**D))
    for n, xt in enumerate(STATES):
        logits = np.array(TABLE[t, n])
        if case.forbid is not None:
            logits[:, case.forbid] = -np.inf
        p0 = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
        if t == 1 and belief == "official":
            by_element = p0
        elif belief == "denoiser":
            # The mean of the posteriors of those x_0 that x_t allows.
            each = q[:, :, xt].transpose(2, 0, 1)  # [D, x_0, x_{t-1}]
            of_xt = each.sum(-1, keepdims=True)
            posterior = np.divide(each, of_xt, out=np.zeros_like(each), where=of_xt > 0)
            by_element = np.einsum("dk,dks->ds", p0, posterior)
            by_element /= by_element.sum(-1, keepdims=True)
        else:
            by_element = np.stack([p0[d] @ q[:, :, xt[d]] for d in range(D)])
            total = by_element.sum(-1, keepdims=True)
            by_element = np.divide(by_element, total, out=np.zeros_like(by_element), where=total > 0)
        p[n] = np.outer(by_element[0], by_element[1]).reshape(-1)
    return p


@jax.jit
def members(process):
    """The members of a process and the posterior at every t, x_0 and x_t: one program."""
    t = jnp.arange(T + 1)
    x = jnp.arange(K)
    log_p = jax.nn.log_softmax(jnp.asarray(TABLE[0, :K, 0]))
    steps, x0, xt = jnp.meshgrid(t[1:], x, x, indexing="ij")
    flat = (T, K * K)
    posterior = d3pm.q_posterior(process, x0.reshape(flat), xt.reshape(flat), steps.reshape(flat))
    x_of_step = jnp.broadcast_to(x, (T + 1, K))
    return {
        "Q": process.Q(t),
        "Qbar": process.Qbar(t),
        "q_probs": jnp.exp(process.log_q_probs(x_of_step, t)),
        "q_back": jnp.exp(process.log_q_back(x_of_step, t)),
        "push": jnp.exp(process.log_push(jnp.broadcast_to(log_p, (T + 1, K, K)), t)),
        "prior": jnp.exp(process.log_prior()),
        "posterior": jnp.exp(posterior).reshape(T, K, K, K),
    }, jnp.exp(log_p)


def test_members_of_a_process_equal_the_dense_matrices(case):
    close = functools.partial(np.testing.assert_allclose, atol=TOLERANCE)
    computed, p = members(case.process)
    assert np.array_equal(computed["Qbar"][0], np.eye(K))
    product = np.eye(K)
    for t, Q in enumerate([np.eye(K), *case.Q]):
        product = product @ Q
        close(computed["Q"][t], Q)
        close(computed["Qbar"][t], product)
        close(computed["Qbar"][t].sum(-1), 1)
        close(computed["q_probs"][t], product)
        close(computed["q_back"][t], Q.T)
        close(computed["push"][t], p @ product)
    close(computed["prior"], case.prior)


def test_posterior_is_the_conditional_of_the_enumerated_joint(case):
    posterior = members(case.process)[0]["posterior"]
    for t in range(1, T + 1):
        q = joint(case, t)
        for x0, xt in itertools.product(range(K), repeat=2):
            total = q[x0, :, xt].sum()
            expected = np.zeros(K)  # an impossible pair has no posterior
            if total > 0:
                expected = q[x0, :, xt] / total
            np.testing.assert_allclose(posterior[t - 1, x0, xt], expected, atol=TOLERANCE)


@functools.partial(jax.jit, static_argnames=("belief", "forbid"))
def reverse_steps(process, belief, forbid):
    """p(x_{t-1} | x_t) of each element, for every t and state."""
    t = jnp.repeat(jnp.arange(1, T + 1), len(STATES))
    xt = jnp.tile(jnp.asarray(STATES), (T, 1))
    return jnp.exp(d3pm.p_logits(process, denoise(xt, t, forbid), xt, t, belief))


def test_reverse_step_is_the_mixture_of_enumerated_joints(case_and_rule):
    case, belief = case_and_rule
    p = np.asarray(reverse_steps(case.process, belief, case.forbid)).reshape(T, len(STATES), D, K)
    for t in range(1, T + 1):
        together = np.einsum("ni,nj->nij", p[t - 1, :, 0], p[t - 1, :, 1]).reshape(K**D, K**D)
        np.testing.assert_allclose(together, model_step(case, t, belief), atol=TOLERANCE)


def bound_over_paths(case, belief, x0):
    """E_q[log q(x_1..x_T | x_0) - log p(x_0..x_T)] and -log p(x_0), with no KL in sight."""
    path = np.array(list(itertools.product(range(K**D), repeat=T))).T  # [T, 9^4] joint states of x_1..x_T
    path = np.concatenate([np.full((1, path.shape[1]), x0[0] * K + x0[1]), path])
    q = np.ones(path.shape[1])
    p = np.outer(case.prior, case.prior).reshape(-1)[path[T]]
    for t in range(1, T + 1):
        q = q * np.kron(case.Q[t - 1], case.Q[t - 1])[path[t - 1], path[t]]
        p = p * model_step(case, t, belief)[path[t], path[t - 1]]
    with np.errstate(divide="ignore", invalid="ignore"):
        terms = np.where(q > 0, q * (np.log(q) - np.log(p)), 0.0)
    return terms.sum(), -np.log(p.sum())


@jax.jit
def draw_on_grid(process, x0):
    """x_t [T, 4096] from x0 for every t, at u = 0, 1 / 4096, .."""
    u = jnp.broadcast_to(jnp.arange(4096) / 4096, (T, 4096))
    return process.draw_q(jnp.full_like(u, x0, int), jnp.arange(1, T + 1), u)


def noise_to_reach(case, x0):
    """u [T, K, N, D] that takes each element of x0 to each category at each t, wherever it can."""
    noise = np.zeros((T, K, *x0.shape))
    Qbar = case.process.Qbar(jnp.arange(T + 1))
    for x in case.data:
        for t, drawn in enumerate(np.asarray(draw_on_grid(case.process, x)), 1):
            reached = np.unique(drawn)
            assert set(reached) == set(np.flatnonzero(Qbar[t, x]))
            for k in reached:
                noise[t - 1, k][x0 == x] = np.argmax(drawn == k) / 4096
    return noise


@functools.partial(jax.jit, static_argnames=("belief", "forbid"))
def bounds(process, x0, noise, belief, forbid):
    """all_t_bound at each row of noise [.., T, N, D]."""
    term = functools.partial(d3pm.posterior_kl, belief=belief)
    return jax.vmap(
        lambda u: d3pm.all_t_bound(
            lambda xt, t: denoise(xt, t, forbid), process, x0, lambda t: u[t - 1], term
        )
    )(noise)


@pytest.mark.parametrize("case_and_rule", RULES_OF_CHAINS, indirect=True)
def test_all_t_bound_is_the_expectation_over_paths_and_above_the_likelihood(case_and_rule):
    case, belief = case_and_rule
    x0 = np.array(list(itertools.product(case.data, repeat=D)))
    u = noise_to_reach(case, x0)
    noise = np.stack([np.stack([u[:, a, :, 0], u[:, b, :, 1]], axis=-1) for a, b in STATES])
    bound = bounds(case.process, jnp.asarray(x0), jnp.asarray(noise), belief, case.forbid)
    total = np.array(bound.prior[0])
    Qbar = np.asarray(case.process.Qbar(jnp.arange(T + 1)))
    for (a, b), steps in zip(STATES, np.asarray(bound.steps), strict=True):  # both are at a, b at every t
        for t, q in enumerate(Qbar[1:], 1):
            weight = q[x0[:, 0], a] * q[x0[:, 1], b]
            total += np.where(weight > 0, weight * steps[t - 1], 0)
    expected, exact = np.array([bound_over_paths(case, belief, x) for x in x0]).T
    np.testing.assert_allclose(total, expected, rtol=TOLERANCE, atol=TOLERANCE)
    assert np.all(total >= exact - TOLERANCE)


@functools.partial(jax.jit, static_argnames=("belief", "forbid"))
def draw_chain(process, u, belief, forbid):
    """A chain with all of its states, u: [T + 1, N, D], the first row for x_T."""
    return sampling.run(
        d3pm.Denoiser(process, lambda x, t: denoise(x, t, forbid)),
        process.draw_prior(u[0]),
        lambda t, stream: u[t],
        sampling.Sampler(OwnReverse(functools.partial(d3pm.p_logits, belief=belief))),
        record=range(T + 1),
    )


@pytest.mark.parametrize("case_and_rule", RULES_OF_CHAINS, indirect=True)
def test_reverse_chain_draws_what_the_enumerated_steps_say(case_and_rule):
    """The marginal of the steps is the likelihood, and a chain inverts their cumulative sums."""
    case, belief = case_and_rule
    n = 300
    u = np.random.default_rng(2).uniform(size=(T + 1, n, D))
    chain = draw_chain(case.process, jnp.asarray(u), belief, case.forbid)
    x = drawn(np.broadcast_to(case.prior, (n, D, K)), u[0])
    for t in range(T, 0, -1):
        np.testing.assert_array_equal(chain.states[t], x)
        p = model_step(case, t, belief)[x[:, 0] * K + x[:, 1]].reshape(n, K, K)
        x = drawn(np.stack([p.sum(2), p.sum(1)], axis=1), u[t])
    np.testing.assert_array_equal(chain.x0, x)
    np.testing.assert_array_equal(chain.states[0], x)
    assert chain.failed_at == 0


def drawn(p, u):
    """The category of p [.., K] that u falls into."""
    return np.minimum((np.cumsum(p, axis=-1) <= u[..., None]).sum(-1), K - 1)


# Each belief, and each kind of process, of which "dense" has steps that it never takes.
LAWS = [
    ("denoiser", "uniform"),
    ("leave_one_out", "extra mask"),
    ("d3pm", "dense"),
    pytest.param(("official", "masked"), marks=pytest.mark.slow),
    pytest.param(("denoiser", "dense"), marks=pytest.mark.slow),
]


def enumerated_law(case, belief):
    """p(x_0) of the chain: its prior times one matrix of all states for each step."""
    steps = [model_step(case, t, belief) for t in range(T, 0, -1)]
    return np.linalg.multi_dot([np.outer(case.prior, case.prior).reshape(-1), *steps])


@functools.partial(jax.jit, static_argnames=("belief", "forbid"))
def laws_and_weights(process, x0, noise, belief, forbid):
    """The law of the chain, and the weights of the paths that noise [T, N, D] takes from x_0."""

    def network(xt, t):
        return denoise(xt, t, forbid)

    def noise_of(t):
        return noise[t - 1]

    law = enumeration.chain_law(network, process, (D,), belief)
    return law, likelihood.trajectory_log_weight(network, process, x0, noise_of, belief)


@jax.jit
def step_on_grid(process):
    """x_t [T, K, 4096] from every x_{t-1}, at u = 0, 1 / 4096, .."""
    t, x, u = jnp.meshgrid(jnp.arange(1, T + 1), jnp.arange(K), jnp.arange(4096) / 4096, indexing="ij")
    return process.draw_step(x, t, u)


@pytest.mark.parametrize("case_and_rule", LAWS, indirect=True)
def test_the_law_of_a_chain_and_the_weight_of_every_path(case_and_rule):
    """So that the mean of exp(weight) over paths is p(x_0), and that of the weight minus the bound."""
    case, belief = case_and_rule
    law = enumerated_law(case, belief)
    path = np.array(list(itertools.product(range(K**D), repeat=T))).T  # [T, 9^4], joint states of x_1..x_T
    x0 = STATES[[0, 1 + K]]
    u_of_step = (np.asarray(step_on_grid(case.process))[..., None] == np.arange(K)).argmax(2) / 4096

    states = np.stack([np.concatenate([np.full((1, path.shape[1]), x[0] * K + x[1]), path]) for x in x0], 1)
    p = np.outer(case.prior, case.prior).reshape(-1)[states[T]]  # [2, 9^4]
    q = np.ones(p.shape)
    for t in range(1, T + 1):
        p = p * model_step(case, t, belief)[states[t], states[t - 1]]
        q = q * np.kron(case.Q[t - 1], case.Q[t - 1])[states[t - 1], states[t]]
    is_taken = q > 0
    x = STATES[states[:, is_taken]]  # [T + 1, N, D]
    noise = np.stack([u_of_step[t, x[t], x[t + 1]] for t in range(T)])

    log_law, weights = laws_and_weights(case.process, x[0], noise, belief, case.forbid)
    np.testing.assert_allclose(np.exp(log_law), law, atol=TOLERANCE)
    with np.errstate(divide="ignore"):
        np.testing.assert_allclose(weights, np.log(p[is_taken] / q[is_taken]), rtol=1e-11, atol=1e-11)
    # What the chain can take to x_0, q takes from there.
    total = np.bincount(states[0, is_taken], q[is_taken] * np.exp(weights), K**D)
    np.testing.assert_allclose(total[x0 @ [K, 1]], law[x0 @ [K, 1]], atol=TOLERANCE)


def test_a_chain_that_is_too_large_is_refused(x64):
    process = d3pm.uniform(d3pm.cosine(101), 5)

    def zeros(xt, t):
        return jnp.zeros((*xt.shape, 5))

    refused = r"^process.T = 101 is above 100: pass a process of fewer steps, such as processes.respace"
    with pytest.raises(ValueError, match=refused):
        enumeration.chain_law(zeros, process, (2,))
    shorter = d3pm.respace(process, [50, 101])
    with pytest.raises(ValueError, match=r"^shape = \(2, 3\) has 5\^6 states, more than 4,096: take fewer "):
        enumeration.chain_law(zeros, shorter, (2, 3))
    denoiser = d3pm.Denoiser(process, zeros, "denoiser")
    for f in (
        lambda: enumeration.chain_law(denoiser, shorter, (2,)),
        lambda: likelihood.trajectory_log_weight(denoiser, shorter, STATES, lambda t: np.zeros((9, 2))),
    ):
        with pytest.raises(ValueError, match=r"^belief = 'd3pm', and the Denoiser has 'denoiser'"):
            f()
