"""Masks from the end of a sequence: members against matrices, the bound against the chain rule."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import d3pm_jax as d3pm
from d3pm_jax.processes import Process

BELIEFS = ("d3pm", "leave_one_out", "denoiser")
# The mask stands in the middle of the categories: the data has 0, 2 and 3.
K = 4
L = 3
MASK = 1
X0 = np.array([x for x in itertools.product(range(K), repeat=L) if MASK not in x])  # [27, L]
RNG = np.random.default_rng(0)
TABLE = RNG.normal(size=(L + 1, K, K, K, L, K)) * 2.0  # the network: of t and of the whole of x_t


def denoise(xt, time):
    each = jnp.reshape(time, (-1,) + (1,) * (xt.ndim - 2))
    return d3pm.forbid(jnp.asarray(TABLE)[each, xt[..., 0], xt[..., 1], xt[..., 2]], MASK)


def conditional(x, i):
    """p(x_i | what is before it), [N, K]: of the logits at the t that comes before position i is unmasked."""
    hidden = np.where(np.arange(L) >= i, MASK, x)
    return predicted(L - i, hidden)[:, i]


def predicted(t, x):
    """p(x_0 | x_t) at every position, [N, L, K]."""
    p = np.exp(TABLE[t, x[:, 0], x[:, 1], x[:, 2]]) * (np.arange(K) != MASK)
    return p / p.sum(-1, keepdims=True)


def matrices(grid):
    """Q and Qbar of each position, [T + 1, L, K, K]: the steps up to those of the grid multiplied."""
    to_mask = np.tile(np.eye(K)[MASK], (K, 1))
    one_step = [np.stack([to_mask if i == L - t else np.eye(K) for i in range(L)]) for t in range(L + 1)]
    total = list(itertools.accumulate(one_step, np.matmul))
    times = [0, *grid]
    between = [one_step[0]] + [
        functools.reduce(np.matmul, one_step[a + 1 : b + 1]) for a, b in itertools.pairwise(times)
    ]
    return np.stack(between), np.stack([total[t] for t in times])


@jax.jit
def members(process, x, log_p, u):
    """Of x [K^L, L] at every t."""
    t = jnp.arange(process.T + 1)
    each = jnp.broadcast_to(x, (process.T + 1, *x.shape))
    return {
        "q_probs": process.log_q_probs(each, t),
        "q_back": process.log_q_back(each, t),
        "q_x0": process.log_q_x0(each, t),
        "push": process.log_push(jnp.broadcast_to(log_p, (*t.shape, *log_p.shape)), t),
        "draw_q": process.draw_q(each, t, jnp.broadcast_to(u, each.shape)),
        "draw_step": process.draw_step(each, t, jnp.broadcast_to(u, each.shape)),
        "draw_step by columns": Process.draw_step(process, each, t, jnp.broadcast_to(u, each.shape)),
        "draw_prior": process.draw_prior(u),
        "prior": process.log_prior(),
    }


@pytest.mark.parametrize("grid", [[1, 2, 3], [2, 3]])
def test_members_are_those_of_the_matrices_of_each_position(grid, x64):
    process = d3pm.respace(d3pm.autoregressive(L, K, MASK), grid)
    np.testing.assert_array_equal(process.time, [0, *grid])
    assert (len(grid), L) == (process.T, process.L)
    x = np.array(list(itertools.product(range(K), repeat=L)))
    p = RNG.dirichlet(np.ones(K), x.shape) * [1, 1, 0, 1]
    p /= p.sum(-1, keepdims=True)
    with np.errstate(divide="ignore"):
        log_p = np.log(p)
    log_p[0] = -np.inf
    log_p[1] = np.nan
    actual = members(process, jnp.asarray(x), jnp.asarray(log_p), jnp.asarray(RNG.random(x.shape)))
    Q, Qbar = matrices(grid)
    i = np.arange(L)
    for t in range(len(grid) + 1):
        np.testing.assert_array_equal(np.exp(actual["q_probs"][t]), Qbar[t, i, x])
        np.testing.assert_array_equal(np.exp(actual["q_back"][t]), Q[t].swapaxes(1, 2)[i, x])
        np.testing.assert_array_equal(np.exp(actual["q_x0"][t]), Qbar[t].swapaxes(1, 2)[i, x])
        pushed = np.einsum("nik,ikj->nij", np.exp(log_p), Qbar[t])  # nothing stays nothing, NaN stays NaN
        np.testing.assert_allclose(np.exp(actual["push"][t]), pushed, rtol=1e-14)
        np.testing.assert_array_equal(actual["draw_q"][t], Qbar[t, i, x].argmax(-1))
        for name in ("draw_step", "draw_step by columns"):
            np.testing.assert_array_equal(actual[name][t], Q[t, i, x].argmax(-1), err_msg=name)
    np.testing.assert_array_equal(actual["draw_prior"], MASK)
    np.testing.assert_array_equal(np.exp(actual["prior"]), np.eye(K)[MASK])


@functools.partial(jax.jit, static_argnames="belief")
def bound(process, x0, belief="d3pm"):
    return d3pm.all_t_bound(denoise, process, x0, lambda t: jnp.zeros(x0.shape), belief=belief)


def test_the_bound_is_the_chain_rule_from_left_to_right(x64):
    process = d3pm.autoregressive(L, K, MASK)
    actual = bound(process, jnp.asarray(X0))
    np.testing.assert_array_equal(actual.prior, 0.0)
    each = [-np.log(conditional(X0, i)[np.arange(len(X0)), X0[:, i]]) for i in range(L)]
    np.testing.assert_allclose(actual.steps, each[::-1], rtol=1e-12)  # step t unmasks position L - t
    np.testing.assert_allclose(actual.total(), sum(each), rtol=1e-12)
    np.testing.assert_allclose(np.exp(-actual.total()).sum(), 1.0, rtol=1e-12)  # a likelihood
    for belief in ("leave_one_out", "denoiser"):  # a masked position's x_t says nothing of x_0: they are one
        np.testing.assert_allclose(bound(process, jnp.asarray(X0), belief).steps, actual.steps, rtol=1e-12)
    rows = jnp.asarray(X0[:26].reshape(13, 2, L))  # [B, H, L]: two sequences in an example
    estimate = jax.jit(lambda process, x0: d3pm.estimate_bound(key, denoise, process, x0, jnp.arange(13)))
    key = jax.random.key(0)
    np.testing.assert_allclose(estimate(process, rows).total(), actual.total()[:26].reshape(13, 2).sum(1))


def test_fewer_steps_unmask_several_positions_without_seeing_each_other(x64):
    process = d3pm.respace(d3pm.autoregressive(L, K, MASK), [2, 3])
    p = predicted(2, np.where(np.arange(L) >= 1, MASK, X0))
    first = conditional(X0, 0)[np.arange(len(X0)), X0[:, 0]]
    others = [p[np.arange(len(X0)), i, X0[:, i]] for i in (1, 2)]
    np.testing.assert_allclose(bound(process, jnp.asarray(X0)).total(), -np.log([first, *others]).sum(0))


def test_the_reverse_chain_writes_from_left_to_right(x64):
    n = 200
    key = jax.random.key(0)

    @jax.jit
    def run(process):
        noise = d3pm.sampling.per_example(key, jnp.arange(n), (L,))
        u = jax.vmap(noise)(jnp.arange(L + 1))
        return u, d3pm.sample(key, d3pm.Denoiser(process, denoise), (n, L), record=range(L + 1))

    with jax.debug_key_reuse(False):  # the noise of the sample, looked at
        u, chain = run(d3pm.autoregressive(L, K, MASK))
    x = np.full((n, L), MASK)
    for i in range(L):
        np.testing.assert_array_equal(chain.states[L - i], x)
        cumulative = np.cumsum(conditional(x, i), axis=-1)
        x[:, i] = (cumulative <= u[L - i, :, i, None]).sum(-1)
    np.testing.assert_array_equal(chain.x0, x)
    assert chain.failed_at == 0


def test_losses_and_gradients_are_never_nan():
    """Also where logits rule out x_t, or everything, and where x_0 and x_t contradict each other."""
    process = d3pm.autoregressive(L, K, MASK)
    x = np.array(list(itertools.product(range(K), repeat=L)))
    logits = RNG.normal(size=(L, *x.shape, K))
    logits[RNG.random(logits.shape) < 0.3] = -np.inf
    logits[:, :4] = -np.inf
    x0 = jnp.asarray(x[RNG.permutation(len(x))])

    @jax.jit
    def every_t(process, logits, x0, xt):
        def loss(logits, t):
            actual = [d3pm.hybrid(process, logits, x0, xt, t, 0.1, belief=belief) for belief in BELIEFS]
            terms = [x for hybrid in actual for x in (hybrid.kl, hybrid.ce)]
            each = jnp.stack([*terms, d3pm.losses.marginal_kl(process, logits, x0, t)])
            return jnp.where(jnp.isfinite(each), each, 0.0).sum(), each

        t = jnp.arange(1, L + 1)
        actual = jax.vmap(jax.grad(loss, has_aux=True))(logits, t)
        drawn = jax.vmap(lambda x, t: d3pm.p_sample(process, x, xt, t, jnp.full(xt.shape, 0.5)))(logits, t)
        return *actual, drawn

    actual = every_t(process, jnp.asarray(logits, jnp.float32), x0, jnp.asarray(x))
    gradient, losses, drawn = map(np.asarray, actual)
    assert np.all(np.isfinite(gradient))
    assert np.abs(gradient).max() > 0.1
    assert not np.any(np.isnan(losses))
    assert np.all((drawn == -1) | (drawn == x) | (x == MASK))  # what is there stays


@pytest.mark.slow
def test_it_maps_over_examples_and_over_stacked_processes():
    whole = d3pm.autoregressive(L, K, MASK)
    pair = [d3pm.respace(whole, grid) for grid in ([1, 3], [2, 3])]
    x = jnp.asarray(X0[:6].reshape(3, 2, L))
    u = jnp.asarray(RNG.random((3, 2, L)), jnp.float32)
    t = jnp.array([[1, 2], [0, 1], [2, 2]])

    def kernels(process, x, t, u):
        log_p = d3pm.log_normalize(jnp.stack([u, 1 - u, 2 * u, -u], axis=-1))
        return (
            *(process.log_q_probs(x, t), process.log_q_back(x, t), process.log_q_x0(x, t)),
            *(process.log_push(log_p, t), d3pm.q_sample(process, x, t, u), process.draw_prior(u)),
            *(d3pm.p_logits(process, log_p, x, jnp.maximum(t, 1)), d3pm.prior_kl(process, x)),
        )

    together = jax.tree.map(lambda *leaves: jnp.stack(leaves), *pair)
    over_examples = jax.vmap(kernels, in_axes=(None, 0, 0, 0))
    actual = jax.jit(jax.vmap(over_examples, in_axes=(0, None, None, None)))(together, x, t, u)
    single = jax.jit(kernels)
    for n, i in itertools.product(range(2), range(3)):
        for a, b in zip(actual, single(pair[n], x[i], t[i], u[i]), strict=True):
            np.testing.assert_allclose(a[n, i], b, rtol=1e-6)


def test_what_does_not_say_the_position_is_refused():
    process = d3pm.autoregressive(L, K, MASK)
    x = jnp.zeros((2, L), jnp.int32)
    t = jnp.asarray(1)
    with pytest.raises(ValueError, match=r"^Q\(t\) of the .* at each position: its columns are log_q_back"):
        process.Q(t)
    with pytest.raises(ValueError, match=r"^Qbar\(t\) of the .*: its rows are log_q_probs\(x0, t\)"):
        process.Qbar(t)
    for shape in ((), (2,), (L, 2)):
        with pytest.raises(ValueError, match=r"goes by the position .* length L = 3: pass whole"):
            process.log_q_probs(jnp.zeros(shape, jnp.int32), t)
    with pytest.raises(ValueError, match=r"t has shape \(2, 3\), a step for each element: .* \[\] to \[2\]"):
        d3pm.q_posterior(process, x, x, jnp.full((2, L), 1))
    with pytest.raises(ValueError, match=r"a mask goes on top of .* on its own; Autoregressive goes by the"):
        d3pm.masked(process, np.array([0.2, 0.5, 1.0]))  # its loss takes elements in parts of any size
    denoiser = d3pm.Denoiser(process, lambda xt, time: jnp.zeros((*xt.shape, K)))
    with pytest.raises(ValueError, match=r"x has shape \(4, 2\)"):
        d3pm.sample(jax.random.key(0), denoiser, (4, 2))
    with pytest.raises(ValueError, match="came out of a JAX transformation"):
        jax.jit(lambda process: d3pm.respace(process, [L]))(process)
    with pytest.raises(ValueError, match="came out of a JAX transformation"):
        d3pm.respace(jax.tree.map(lambda x: jnp.stack([x, x]), process), [L])
    with pytest.raises(ValueError, match=r"mask_id = 4, outside 0\.\.3"):
        d3pm.autoregressive(L, K, K)
