"""A process of the user's own: what follows from its few members is what its matrices give."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import d3pm_jax as d3pm
from d3pm_jax import losses
from tests.processes.own import cyclic_shift

K = 5
T = 6
B = 4
L = 3
BETA = np.linspace(0.3, 0.7, T)

pytestmark = pytest.mark.filterwarnings("ignore:x_T still depends")


@pytest.fixture
def both(x64):
    """The process, and the same from its matrices."""
    shift = cyclic_shift(BETA, K)
    I = np.eye(K)
    Q = [(1 - b) * I + b * np.roll(I, 1, axis=1) for b in BETA]
    return shift, d3pm.dense(Q, prior=np.full(K, 1 / K))


def arguments():
    """Logits, x_0, an x_t that the steps reach, t: one t per element, some entries of the logits -inf."""
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(B, L, K)) * 3
    logits[0, 0, 1:3] = -np.inf
    t = rng.integers(1, T + 1, (B, L))
    x0 = rng.integers(0, K, (B, L))
    xt = (x0 + rng.binomial(t, 0.5)) % K
    return [jnp.asarray(x) for x in (logits, x0, xt, t)]


def test_what_follows_from_its_members_is_what_its_matrices_give(both):
    shift, dense = both
    logits, x0, xt, t = arguments()
    u = jnp.asarray(np.random.default_rng(1).random((B, L)))
    steps = jnp.arange(T + 1)

    @jax.jit
    def everything(process):
        log_p = d3pm.log_p_x0(process, logits)
        return {
            "Q": process.Q(steps),
            "Qbar": process.Qbar(steps),
            "time": process.time,
            "log_q_x0": jnp.exp(process.log_q_x0(xt, t - 1)),
            "log_push": process.log_push(log_p, t - 1),
            "q_posterior": jnp.exp(d3pm.q_posterior(process, x0, xt, t)),
            "p_logits": d3pm.p_logits(process, logits, xt, t),
            "p_logits, official": d3pm.p_logits(process, logits, xt, t, "official"),
            "p_sample": d3pm.p_sample(process, logits, xt, t, u),
            "q_sample": d3pm.q_sample(process, x0, t, u),
            "draw_prior": process.draw_prior(u),
            "prior_kl": d3pm.prior_kl(process, x0),
            "marginal_kl": losses.marginal_kl(process, logits, x0, t),
            "hybrid": d3pm.hybrid(process, logits, x0, xt, t, 0.01),
            "gradient": jax.grad(lambda x: d3pm.hybrid(process, x, x0, xt, t, 0.01).loss[1:].sum())(logits),
        }

    actual = everything(shift)
    expected = everything(dense)
    for name, x in expected.items():
        for a, b in zip(jax.tree.leaves(actual[name]), jax.tree.leaves(x), strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-12, atol=1e-13, err_msg=name)
    assert np.abs(actual["gradient"]).max() > 0.1


def test_bound_and_chain(both):
    key = jax.random.key(0)
    x0 = jnp.asarray(np.random.default_rng(2).integers(0, K, (B, L)))

    def denoise(xt, t):
        return 2.0 * jax.nn.one_hot(xt, K, dtype=float) + 0.1 * t[:, None, None]

    @jax.jit
    def run(process):
        bound = d3pm.estimate_bound(key, denoise, process, x0, jnp.arange(B))
        return bound, d3pm.sample(key, d3pm.Denoiser(process, denoise), (B, L), record=(0, 2, T))

    actual, expected = map(run, both)
    for a, b in zip(jax.tree.leaves(actual), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-12)
    assert actual[1].failed_at == 0


def test_it_cannot_be_respaced_unless_it_says_how(both):
    with pytest.raises(ValueError, match=r"CyclicShift cannot take fewer steps: define its method respaced"):
        d3pm.respace(both[0], [2, T])


def test_a_respaced_process_that_forgets_its_time_is_refused(x64):
    class Forgetful(type(cyclic_shift(BETA, K))):
        def respaced(self, grid):
            return cyclic_shift(BETA[: len(grid)], K)

    shift = cyclic_shift(BETA, K)
    with pytest.raises(ValueError, match=r"Forgetful\.respaced returned a process with time = \[0 1 2\]"):
        d3pm.respace(Forgetful(shift.step, shift.total, K, T), [2, T])


def test_a_process_that_lacks_a_member_is_not_made():
    class Half(d3pm.processes.Process):
        def log_q_probs(self, x0, t):
            return x0

    with pytest.raises(TypeError, match="log_prior"):
        Half()
