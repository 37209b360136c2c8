"""Every public kernel under jit and vmap, over examples and over stacked processes, against a Python loop."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import d3pm_jax as d3pm
from d3pm_jax import (
    beliefs,
    compat,
    enumeration,
    heads,
    likelihood,
    losses,
    numerics,
    orders,
    sampling,
    schedules,
    timesteps,
)

K = 5
T = 6
N = 3
S = (2, 3)
BETAS = (d3pm.linear(T, 0.2, 0.9), d3pm.linear(T, 0.5, 0.8))
PI = np.array([0.3, 0.0, 0.3, 0.2, 0.2])
PROCESSES = {
    "marginal": lambda beta: d3pm.marginal(beta, PI),
    "masked gaussian": lambda beta: d3pm.masked(d3pm.gaussian(beta, K - 1), beta),
    "uniform": lambda beta: d3pm.uniform(beta, K),
    "absorbing": lambda beta: d3pm.absorbing(beta, K, 1),
    "dense": lambda beta: d3pm.random_walk(beta, np.roll(np.eye(K), 1, axis=1) * 0.5 + 0.1),
}
OTHER_KINDS = ("uniform", "absorbing")  # of a pi, which draws and losses alone tell from "marginal"
ON_HOST = {  # NumPy in, NumPy or a process out
    *(
        "absorbing",
        "autoregressive",
        "banded",
        "by_place",
        "dense",
        "from_rate",
        "gaussian",
        "interpolating",
        "marginal",
        "masked",
        "random_walk",
        "uniform",
    ),
    *("cosine", "cosine_squared", "from_alpha_bar", "linear", "log_linear", "polynomial", "reciprocal"),
    *("hierarchical_rate", "knn_graph", "knn_rate", "respace"),
    *("mutual_information", "mutual_information_steps"),
}

pytestmark = pytest.mark.filterwarnings("ignore:x_T still depends")


def examples():
    """N examples of everything that a kernel takes."""
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(N, *S, K)) * 3
    logits[0, 0, 0, 1:3] = -np.inf
    arrays = {
        "logits": logits,
        "x0": rng.integers(0, K - 1, (N, *S)),
        "xt": rng.integers(0, K, (N, *S)),
        "t": rng.integers(1, T + 1, (N, S[0])),
        "u": rng.random((N, *S)),
        "v": rng.random((N, T + 1, *S)),
    }
    return {k: jnp.asarray(x) for k, x in arrays.items()}


def closed_forms(process, logits, x0, xt, t, u, v):
    """The kernels that have a form of their own for each kind of pi, of one example [2, 3]."""
    value, gradient = jax.value_and_grad(lambda x: d3pm.hybrid(process, x, x0, xt, t, 0.1).loss[:, 1:].sum())(
        logits
    )
    return {
        "q_sample": d3pm.q_sample(process, x0, t, u),
        "hybrid": (value, gradient),
        "losses.marginal_kl": losses.marginal_kl(process, logits, x0, t - 1),
    }


def steps(process, logits, x0, xt, t, u, v):
    """The kernels of one step of a process that other kernels call, of one example [2, 3]."""
    return {
        **closed_forms(process, logits, x0, xt, t, u, v),
        "members": (process.Q(t), process.Qbar(t), process.log_q_x0(xt, t), process.draw_prior(u)),
        "log_p_x0": d3pm.log_p_x0(process, logits),
        "q_posterior": d3pm.q_posterior(process, x0, xt, t),
        "p_logits": d3pm.p_logits(process, logits, xt, t, "official"),
        "p_prev": d3pm.p_prev(process, logits, xt, t),
        "p_sample": d3pm.p_sample(process, logits, xt, t, u),
        "direct_kl": d3pm.direct_kl(process, logits, x0, xt, t),
        "cross_entropy": d3pm.cross_entropy(process, logits, x0),
        "smoothed_cross_entropy": d3pm.smoothed_cross_entropy(process, logits[1], x0[1], 0.1),
        "prior_kl": d3pm.prior_kl(process, x0),
        "stochastic_bound": d3pm.stochastic_bound(process, u, x0, jnp.where(t > T // 2, 0.2, 0.1)),
    }


def hybrids(process, logits, x0, xt, t, u, v):
    """The hybrid of the other beliefs, of one example [2, 3]."""
    return {
        belief: d3pm.hybrid(process, logits, x0, xt, t, 0.1, belief=belief).loss
        for belief in ("leave_one_out", "denoiser")
    }


def other_steps(process, logits, x0, xt, t, u, v):
    """The kernels of one step that call those of `steps`, under other rules, of one example [2, 3]."""
    return {
        "hybrids": hybrids(process, logits, x0, xt, t, u, v),
        "beliefs": (
            beliefs.to_denoiser(process, logits, xt, t),
            beliefs.to_leave_one_out(process, logits, xt, t),
            d3pm.p_logits(process, logits, xt, t, belief="denoiser"),
        ),
        "compat": (
            compat.q_posterior(process, x0, xt, t),
            compat.p_logits(process, logits, xt, t),
            compat.vb_bits(process, logits, x0, xt, t),
            compat.prior_bits(process, x0),
        ),
    }


def chains(process, logits, x0, xt, t, u, v):
    """Every kernel that takes many steps of a process, of one example [2, 3]."""

    def denoise(xt, time):
        return logits[xt[..., 0] % S[0]] + 0.1 * time[:, None, None]

    def noise(t, stream=0):
        return v[t]

    denoiser = d3pm.Denoiser(process, denoise)
    known = sampling.Known(x0, x0 == xt)
    key = jax.random.key(0)
    index = jnp.arange(S[0])
    return {
        "posterior_kl": d3pm.posterior_kl(process, logits, x0, xt, jnp.asarray(T)),
        "all_t_bound": d3pm.all_t_bound(denoise, process, x0, noise),
        "estimate_bound": d3pm.estimate_bound(key, denoise, process, x0, index).total(),
        "strata_bound": d3pm.strata_bound(denoise, process, x0, u.T, noise),
        "stratified_bound": d3pm.stratified_bound(key, denoise, process, x0, index, 2),
        "trajectory_log_weight": likelihood.trajectory_log_weight(denoise, process, x0, noise),
        "enumeration.chain_law": enumeration.chain_law(lambda xt, time: logits[xt % 2, 0], process, (2,)),
        "sample": d3pm.sample(key, denoiser, S),
        "run": sampling.run(denoiser, xt, noise, record=(0, T)),
        "known": sampling.run(denoiser, xt, noise, known=known, record=(0, T)),
    }


def of_arrays(logits, x0, xt, t, u, v):
    """Every other kernel, of one example [2, 3]."""
    log_p = d3pm.log_normalize(logits)
    time = u[:, 0]
    history = timesteps.LossHistory(v[:, 0, 0], jnp.full(T + 1, 20))
    continuous = {
        name: (level(time), losses.continuous.uniform_nelbo(level, logits, x0, xt, time))
        for name, level in (
            ("linear", schedules.continuous.linear),
            ("cosine", schedules.continuous.cosine),
            ("polynomial", schedules.continuous.polynomial),
        )
    }
    linear = schedules.continuous.linear
    return {
        "kl": d3pm.kl(log_p[1], log_p[1, ::-1]),
        "kl_logits": d3pm.kl_logits(log_p, logits[::-1]),
        "log_add": d3pm.log_add(log_p, log_p[::-1]),
        "log_matmul": d3pm.log_matmul(log_p[0], jnp.exp(logits[0, 1])[:, None] * v[0, 0][None]),
        "log_normalize": log_p,
        "log_prob": d3pm.log_prob(logits, x0),
        "log_sum": d3pm.log_sum(logits),
        "numerics.log1mexp": numerics.log1mexp(logits[1]),
        "categorical": d3pm.categorical(logits, u),
        "residual": d3pm.residual(logits, xt),
        "forbid": d3pm.forbid(logits, 2),
        "logistic": d3pm.logistic(u, -u, K),
        "heads": (heads.residual_logistic(v[:2].T, xt.T, K), heads.bounded_logistic(v[:2].T, K)),
        "bits_per_dim": d3pm.bits_per_dim(u, 6),
        "chain_rule": d3pm.chain_rule(lambda xt: logits[xt[..., 0] % S[0]], x0, u, K - 1),
        "orders": (
            orders.mixture(u),
            orders.all_orders(lambda xt: logits[xt[..., 0] % S[0]], x0, K - 1),
            orders.given_first(u, x0 > 1),
            orders.by_block(u, v[:2].swapaxes(1, 2)),
        ),
        "enumeration.conditional": enumeration.conditional(
            log_p.reshape(-1)[:25], x0[:, :2], x0[:, :2] > 1, K
        ),
        "mean_and_se": d3pm.mean_and_se(time),
        "losses.mean_over_steps": losses.mean_over_steps(u, time, T),
        "low_discrepancy": d3pm.low_discrepancy(time[0], 4, T),
        "timesteps": (
            timesteps.uniform(time, T),
            timesteps.antithetic(time[0], 4),
            timesteps.stratified(u, T)[0],
            timesteps.importance(time, timesteps.probabilities(history)),
            timesteps.update(history, t, time),
        ),
        "continuous": continuous,
        "losses.continuous": (
            losses.continuous.absorbing_draw(linear, x0, time, u, K - 1),
            losses.continuous.uniform_draw(linear, x0, time, u, K),
            losses.continuous.absorbing_nelbo(linear, d3pm.forbid(logits, K - 1), x0, xt, time, K - 1),
        ),
        "losses.gidd": (
            losses.gidd.gidd_draw(x0, time, u, K - 1, K, 0.3, 1.0),
            losses.gidd.gidd_nelbo(d3pm.forbid(logits, K - 1), x0, xt, time, K - 1, 0.3, 1.0),
        ),
        "compat.logistic": compat.logistic(u, -u, K),
    }


def assert_equal(actual, expected):
    """Leaves of what was stacked by vmap and by NumPy."""
    actual_leaves = jax.tree_util.tree_leaves_with_path(actual)
    expected_leaves = jax.tree_util.tree_leaves_with_path(expected)
    for (path, a), (_, b) in zip(actual_leaves, expected_leaves, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-12, atol=1e-12, err_msg=jax.tree_util.keystr(path))


def assert_examples_differ(expected):
    """Otherwise the comparison says nothing of the kernel."""
    for name, outputs in expected.items():
        assert any(len(np.unique(x)) > 1 for x in jax.tree.leaves(outputs)), f"{name} is the same for all"


def stack(*trees):
    return jax.tree.map(lambda *x: np.stack(x), *trees)


def loop(f, data):
    """f of each example in turn."""
    return stack(*(f(**{k: x[i] for k, x in data.items()}) for i in range(N)))


def check_vmap(f, name):
    """Calls f of examples within stacked processes at once, and of each in turn."""
    data = examples()
    processes = [PROCESSES[name](beta) for beta in BETAS]
    compiled = jax.jit(f)
    expected = stack(*(loop(partial(compiled, process), data) for process in processes))
    together = jax.tree.map(lambda *x: jnp.stack(x), *processes)
    over_examples = jax.vmap(f, in_axes=(None, *[0] * len(data)))
    over_both = jax.jit(jax.vmap(lambda process, data: over_examples(process, *data), in_axes=(0, None)))
    assert_equal(over_both(together, list(data.values())), expected)
    if name != "absorbing":  # whose prior, and so whose bound, is the same for all
        assert_examples_differ(expected)


# On top of a Gaussian the mask calls all that there is of matrices.
@pytest.mark.parametrize("name", ["marginal", pytest.param("masked gaussian", marks=pytest.mark.slow)])
def test_kernels_of_a_step(name, x64):
    check_vmap(steps, name)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["marginal", "masked gaussian"])
def test_kernels_of_a_step_under_other_rules(name, x64):
    check_vmap(other_steps, name)


@pytest.mark.slow
@pytest.mark.parametrize("name", OTHER_KINDS)
def test_closed_forms_of_a_step(name, x64):
    check_vmap(closed_forms, name)
    check_vmap(hybrids, name)


@pytest.mark.slow
def test_kernels_of_many_steps(x64):
    """They call what the kernels of a step call, of any family: of one inside another here."""
    check_vmap(chains, "masked gaussian")


def test_kernels_of_arrays(x64):
    data = examples()
    expected = loop(jax.jit(of_arrays), data)
    assert_equal(jax.jit(jax.vmap(lambda data: of_arrays(**data)))(data), expected)
    assert_examples_differ(expected)


def test_no_flat_name_is_left_out(x64):
    process = PROCESSES["uniform"](BETAS[0])
    data = {k: x[0] for k, x in examples().items()}
    names = {
        "Denoiser",  # an argument of kernels of many steps
        *jax.eval_shape(partial(steps, process), **data),
        *jax.eval_shape(partial(chains, process), **data),
        *jax.eval_shape(of_arrays, **data),
    }
    assert set(d3pm.__all__) - names == ON_HOST
