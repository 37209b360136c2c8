"""Multinomial Diffusion, cloneofsimo/d3pm, MDLM, Duo, BD3-LM, LLaDA, flow_matching, VQ-Diffusion and tauLDR.

Each formula in NumPy, in that program's own conventions, and the call here. Recorded numbers are outputs of
the programs on torch: ehoogeboom/multinomial_diffusion at 9d907a6 with float64 for its every float32,
cloneofsimo/d3pm at 3ceb637, kuleshov-group/mdlm at c112c52, s-sahoo/duo at 7c9b498, kuleshov-group/bd3lms at
1c3e8f4, ML-GSAI/LLaDA at b7e6c35 and facebookresearch/flow_matching at 11568d3 with float64 as the
default type.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import log_softmax, logsumexp, softmax

import d3pm_jax as d3pm
from d3pm_jax import compat
from d3pm_jax.config import Blocks
from d3pm_jax.losses import any_order
from d3pm_jax.timesteps import StepNoise
from tests.compat.inputs import X0, XT, T, i32, inputs, posterior_kl, prior_kl, probe, product

pytestmark = pytest.mark.filterwarnings("ignore:x_T still depends")


def test_recorded_multinomial_diffusion(close):
    process = d3pm.uniform(d3pm.cosine_squared(T), 4)
    recorded = {  # compute_Lt
        0: [3.86419897896, 11.79442610118],
        1: [2.648658139328, 6.95899119818],
        4: [0.5531600656572, 1.777674008436],
        9: [0.1370951299605, 0.1121588998329],
    }
    logits = jnp.concatenate([probe(t, XT, 4) for t in recorded])
    x0 = i32(np.tile(X0, (4, 1)))
    xt = i32(np.tile(XT, (4, 1)))
    kl = posterior_kl(process, logits, x0, xt, i32(np.repeat(list(recorded), 2) + 1))
    close(kl.sum(1), np.concatenate(list(recorded.values())))
    close(prior_kl(process, x0).sum(1), [0.0001080610298528] * 8)  # kl_prior


def test_multinomial_diffusion(close):
    K = 4
    x0, xt, logits = inputs(4, seed=1)
    f = np.cos((np.arange(T + 1) / T + 0.008) / 1.008 * np.pi / 2) ** 2
    log_alpha = np.log(np.sqrt(np.clip(f[1:] / f[:-1], 0.001, 1)))
    log_alpha_bar = np.cumsum(log_alpha)

    def mixed(log_x, log_keep):
        return np.logaddexp(log_x + log_keep, np.log(1 - np.exp(log_keep) + 1e-40) - np.log(K))

    def log_onehot(x):
        return np.moveaxis(np.log(np.maximum(np.eye(K)[x], 1e-30)), -1, 1)

    def posterior(log_x0, t0):
        before = log_x0 if t0 == 0 else mixed(log_x0, log_alpha_bar[t0 - 1])
        z = before + mixed(log_onehot(xt), log_alpha[t0])
        return z - logsumexp(z, axis=1, keepdims=True)

    x_T = mixed(log_onehot(x0), log_alpha_bar[-1])
    prior = (np.exp(x_T) * (x_T + np.log(K))).sum((1, 2))
    process = d3pm.uniform(d3pm.cosine_squared(T), K)
    close(prior_kl(process, i32(x0)).sum(1), prior)
    for t0 in (0, 1, 6, T - 1):
        true = posterior(log_onehot(x0), t0)
        model = posterior(np.moveaxis(log_softmax(logits, -1), -1, 1), t0)
        kl = (np.exp(true) * (true - model)).sum((1, 2))
        nll = -(np.exp(log_onehot(x0)) * model).sum((1, 2))
        actual = posterior_kl(process, jnp.asarray(logits), i32(x0), i32(xt), i32([t0 + 1] * 8))
        close(actual.sum(1), nll if t0 == 0 else kl)
        loss = d3pm.losses.stochastic_bound(process, actual, i32(x0), jnp.full(8, 0.1))
        close(loss, (nll if t0 == 0 else kl) / 0.1 + prior)


@jax.jit
def cloneofsimo(process, logits, x0, xt, t):
    """(vb_loss, ce_loss)."""
    x0_logits = jnp.log(jax.nn.one_hot(x0, process.K) + 1e-6)
    true = compat.p_logits(process, x0_logits, xt, t)
    model = compat.p_logits(process, logits, xt, t)
    vb = d3pm.kl_logits(d3pm.log_normalize(true), model).mean()
    return vb, d3pm.cross_entropy(process, logits, x0).mean()


def test_recorded_cloneofsimo(close):
    process = d3pm.uniform(d3pm.cosine(T), 4)
    recorded = {
        1: [1.908485231173, 1.908531068016],
        2: [1.562258585333, 1.556647841058],
        5: [0.4717991475271, 1.869282663864],
        9: [0.1140999606143, 1.769128157816],
    }
    for t, right in recorded.items():
        close(cloneofsimo(process, probe(t, XT, 4), i32(X0), i32(XT), i32([t, t])), right)


def test_recorded_mdlm(close):
    xt = np.array([[4, 1, 4], [4, 4, 1]])
    process = d3pm.absorbing(d3pm.reciprocal(20), 5, mask_id=4)
    recorded = {
        2: [[24.5094149957, 0, 10.3101267306], [20.9289080977, 20.9289080977, 0]],
        7: [[6.08884205749, 0, 5.59007860359], [2.50348550904, 2.50348550904, 0]],
        19: [[0.672384693414, 0, 2.67863641255], [2.11310672021, 2.11310672021, 0]],
    }
    for t, right in recorded.items():
        actual = 20 * posterior_kl(process, probe(t, xt, 5), i32(X0), i32(xt), i32([t, t]))
        close(actual, right)


def test_cloneofsimo(close):
    K = 4
    x0, xt, logits = inputs(4, seed=2)
    process = d3pm.uniform(d3pm.cosine(T), K)
    u = np.arange(T + 1) / T
    f = np.cos((u + 0.008) / 1.008 * np.pi / 2)
    onestep = [(1 - b) * np.eye(K) + b / K for b in np.minimum(1 - f[1:] / f[:-1], 0.999)]
    cumulative = [product(np.stack(onestep[: n + 1])) for n in range(T)]
    t = np.array([1, 2, 5, T - 1] * 2)

    def posterior(z, xt, t):
        if t == 1:
            return log_softmax(z)
        return log_softmax(
            np.log(onestep[t - 1].T[xt] + 1e-6) + np.log(softmax(z) @ cumulative[t - 2] + 1e-6)
        )

    vb = np.zeros(x0.shape)
    ce = np.zeros(x0.shape)
    for b, d in np.ndindex(x0.shape):
        true = posterior(np.log(np.eye(K)[x0[b, d]] + 1e-6), xt[b, d], t[b])
        vb[b, d] = (np.exp(true) * (true - posterior(logits[b, d], xt[b, d], t[b]))).sum()
        ce[b, d] = -log_softmax(logits[b, d])[x0[b, d]]
    close(cloneofsimo(process, jnp.asarray(logits), i32(x0), i32(xt), i32(t)), [vb.mean(), ce.mean()])


def mdlm_loss(log_p, x0, masked, time, T, duo=False):
    """The loss of one step for time in (0, 1], as MDLM has it; Duo has another alpha_s."""
    time = min(time, 1 - 1e-4)
    dt = 1 / T
    alpha = 1 - time
    alpha_s = (time - dt) if duo else 1 - (time - dt)
    p_m = np.exp(log_p[..., -1])
    p_0 = np.take_along_axis(log_p, x0[..., None], -1)[..., 0]
    now = np.log(alpha * p_m / time + 1)
    before = np.log(alpha_s * p_m / (time - dt) + 1)
    return T * masked * (dt / time * (now - p_0) + (1 - dt / time) * (now - before))


def test_recorded_duo(close):
    time = jnp.asarray(0.5)
    logits = probe(3, XT, 5)
    actual = d3pm.losses.continuous.uniform_nelbo(
        d3pm.schedules.continuous.linear, logits, i32(X0), i32(XT), time
    )
    close(
        actual,
        [
            [0.3048675163025, 2.241928433573, 0.84908802745],
            [1.0332139067, 1.63296057478, 2.985414712607],
        ],
    )


def example_of(K):
    """x_0 [2, 4] of the numbers that were recorded of BD3-LM, LLaDA and flow_matching."""
    return (np.arange(8) * 5 + 1).reshape(2, 4) % K


def logits_of_sums(sums, K):
    """Logits cos(0.1 n) that depend on a whole number of each place; a table, that float32 rounds once."""
    n = sums.astype(int)[..., None] * jnp.arange(1, K + 1).reshape(*(1,) * sums.ndim, K)
    return jnp.asarray(np.cos(0.1 * np.arange(60_000)))[n]


@pytest.mark.slow
@pytest.mark.parametrize("K", [3, 27])
def test_recorded_bd3lms(K, close):
    """_forward_pass_diffusion with blocks of 2 and a network that attends by its mask."""
    recorded = {  # by K and (sampling_eps_min, sampling_eps_max)
        (3, 0.0, 1.0): [
            [3.8176510381510416, 0, 2.7758830579128952, 0.30354208972249597],
            [0.5227308222797206, 0, 3.529729439631816, 0],
        ],
        (3, 0.3, 0.8): [
            [3.5116369753544796, 1.0677448197591035, 0, 0.43013488003220834],
            [0.6272769867356646, 0, 2.8237835517054526, 0],
        ],
        (3, 0.6, 1.0): [
            [1.5802366389095157, 0.48048516889159654, 2.220706446330316, 0.24283367177799675],
            [0.48048516889159654, 1.7396013397024168, 0.38995196623172135, 2.0803109078658224],
        ],
        (27, 0.0, 1.0): [
            [13.592269384825604, 0, 5.6553310507536825, 5.2017011338557415],
            [4.178517034471687, 0, 6.642904043162106, 0],
        ],
        (27, 0.3, 0.8): [
            [8.905772302268213, 9.280285756027158, 0, 5.984521472102208],
            [5.0142204413660245, 0, 5.3143232345296845, 0],
        ],
        (27, 0.6, 1.0): [
            [4.007597536020696, 4.176128590212221, 4.524264840602946, 4.161360907084593],
            [4.397363498274597, 2.7246039849423407, 4.143725098530807, 3.780746167615166],
        ],
    }

    def network(x, time, layout):
        values = (x + 1.0) * (layout.places + 1)[None]
        sums = jnp.einsum("pq,nq->np", layout.attended.astype(float), values, precision="highest")
        return d3pm.forbid(logits_of_sums(sums, K + 1), K)

    process = d3pm.absorbing(d3pm.reciprocal(1), K + 1, mask_id=K)
    u = jnp.asarray((np.arange(8) * 0.37 + 0.05) % 1).reshape(2, 4)
    noise = StepNoise(jnp.asarray([0.3, 0.9]), jnp.ones(2), u)
    ranges = [(low, high) for of, low, high in recorded if of == K]

    @jax.jit
    def losses(x0, noise):
        objectives = [Blocks(block=2, low=low, high=high) for low, high in ranges]
        return [objective.compute(process, network, x0, noise, None).loss for objective in objectives]

    right = [recorded[K, low, high] for low, high in ranges]
    close(jnp.stack(losses(i32(example_of(K)), noise)), right)


@pytest.mark.slow
@pytest.mark.parametrize(("K", "right"), [(3, 4.301254193946653), (27, 16.337860367146188)])
def test_recorded_llada(K, right, close):
    """get_log_likelihood of a prompt of 3 and an answer of 5, with 2, 3, 4, 5 and 1 masks of it."""
    places = np.arange(8)
    masked = [{4, 6}, {3, 4, 5}, {4, 5, 6, 7}, {3, 4, 5, 6, 7}, {7}]
    x0 = i32(np.tile(example_of(K).reshape(1, 8), (5, 1)))
    xt = jnp.where(np.array([[place in some for place in places] for some in masked]), K, x0)
    sums = jnp.cumsum((xt + 1.0) * (places + 1)[None], axis=1)
    logits = d3pm.forbid(logits_of_sums(sums + sums[:, -1:], K + 1), K)
    weight = jnp.broadcast_to((places >= 3) * 1.0, xt.shape)
    nats = jax.jit(any_order.any_order_nelbo, static_argnums=3)(logits, x0, xt, K, weight)
    close(nats.sum() / 5, right)


@pytest.mark.slow
@pytest.mark.parametrize("K", [3, 27])
def test_recorded_flow_matching(K, close):
    """MixturePathGeneralizedKL of PolynomialConvexScheduler(n=1), whose time runs the other way."""
    recorded = {
        3: [
            [1.0804544923109523, 1.2276486264645012, 1.2137358561530827, 1.2119848456256461],
            [3.711200272311519, 2.303651505955098, 1.1424939897216997, 4.415881785736253],
        ],
        27: [
            [1.3898293591848185, 1.3497274499525445, 1.3135762567400553, 6.3507166672183315],
            [4.583226538285692, 4.941253859196215, 12.517599663430353, 4.859469548221897],
        ],
    }
    noise = (np.arange(8) * 2 + 1).reshape(2, 4) % K
    xt = i32(np.where(np.arange(8).reshape(2, 4) % 3 == 0, noise, example_of(K)))
    sums = jnp.cumsum((xt + 1.0) * jnp.arange(1, 5)[None], axis=1)
    logits = logits_of_sums(sums + sums[:, -1:], K)
    linear = d3pm.schedules.continuous.linear
    time = 1 - jnp.asarray([0.3, 0.8])
    nats = d3pm.losses.continuous.uniform_generalized_kl(linear, logits, i32(example_of(K)), xt, time)
    close(nats, recorded[K])


@pytest.mark.parametrize("forbid", [False, True])
def test_mdlm(forbid, close):
    K = 5
    x0, _, logits = inputs(5, seed=6)
    steps = 20
    x0 = x0 % (K - 1)
    masked = np.random.default_rng(7).integers(0, 2, x0.shape)
    z = d3pm.forbid(jnp.asarray(logits), K - 1) if forbid else jnp.asarray(logits)
    log_p = log_softmax(np.asarray(z, np.float64), -1)
    xt = np.where(masked, K - 1, x0)
    process = d3pm.absorbing(d3pm.reciprocal(steps), K, mask_id=K - 1)
    for t in (2, 7, 19):
        right = mdlm_loss(log_p, x0, masked, t / steps, steps)
        close(steps * posterior_kl(process, z, i32(x0), i32(xt), i32([t] * 8)), right)
        duo = mdlm_loss(log_p, x0, masked, t / steps, steps, duo=True)
        assert np.allclose(duo, right) == forbid
    alpha_bar = np.array([1, 1e-4 + 1 / steps, 1e-4, 0])  # MDLM at t = T: time 0.9999 and dt before
    last = d3pm.absorbing(d3pm.from_alpha_bar(alpha_bar), K, mask_id=K - 1)
    right = mdlm_loss(log_p, x0, masked, 1.0, steps)
    close(steps * posterior_kl(last, z, i32(x0), i32(xt), i32([2] * 8)), right)


def test_vq_diffusion(close):
    """p(x_{t-1} | x_t) = sum_{x_0} q(x_{t-1} | x_t, x_0) p(x_0), not the rule of D3PM."""
    K = 5
    _, xt, logits = inputs(5, seed=8)
    n = 20
    alpha_bar = np.linspace(0.99, 0.009, n)
    gamma_bar = np.linspace(0.001, 0.9, n)
    keep_bar = 1 - gamma_bar
    alpha = alpha_bar / np.append(1, alpha_bar[:-1])
    keep = keep_bar / np.append(1, keep_bar[:-1])

    def matrix(a, keep):
        Q = np.zeros((K, K))
        Q[:-1, :-1] = a * np.eye(K - 1) + (keep - a) / (K - 1)
        Q[:-1, -1] = 1 - keep
        Q[-1, -1] = 1
        return Q

    inner = d3pm.uniform(d3pm.from_alpha_bar(np.append(1, alpha_bar / keep_bar)), K - 1)
    process = d3pm.masked(inner, d3pm.from_alpha_bar(np.append(1, keep_bar)))

    @jax.jit
    def reverse(xt, t):
        log_q = jnp.log(process.Qbar(t).T[xt])  # log q(x_t | x_0 = .)
        return jnp.exp(d3pm.p_logits(process, d3pm.forbid(jnp.asarray(logits) - log_q, K - 1), xt, t))

    for t in (2, 11, n):
        one_step = matrix(alpha[t - 1], keep[t - 1])
        bar = matrix(alpha_bar[t - 1], keep_bar[t - 1])
        before = matrix(alpha_bar[t - 2], keep_bar[t - 2])
        right = np.zeros(logits.shape)
        for i in np.ndindex(xt.shape):
            p = softmax(logits[i][:-1])
            for x0 in range(K - 1):
                right[i] += p[x0] * one_step[:, xt[i]] * before[x0] / bar[x0, xt[i]]
        close(reverse(i32(xt), i32(t)), right)


def tauldr_rates(K):
    birth_death = np.diag(np.ones(K - 1), 1) + np.diag(np.ones(K - 1), -1)
    near = np.exp(-(np.arange(K) ** 2) / 6.0**2)
    target = np.zeros((K, K))
    for i in range(K):
        for j in range(K):
            if (i < K // 2 and i < j < K - i) or (i > K // 2 and K - 1 - i < j < i):
                target[i, j] = near[abs(i - j) - 1]
    for i in range(K):
        for j in range(K):
            if target[j, i] > 0:
                odds = np.exp(-((j + 1) ** 2 - (i + 1) ** 2 + K * (i + 1) - K * (j + 1)) / (2 * 20.0**2))
                target[i, j] = target[j, i] * odds
    uniform = 0.03 * (np.ones((K, K)) - np.eye(K))
    return [R - np.diag(R.sum(1)) for R in (birth_death, uniform, target)]


@pytest.mark.parametrize("kind", [0, 1, 2])
def test_tauldr(kind, close):
    R = tauldr_rates(8)[kind]
    time = np.linspace(0, 1, 5)
    integral = [0.5 * 0.5**2 * (6 ** (2 * time) - 1), time, 3.0 * (100.0**time - 1)][kind]
    values, V = np.linalg.eig(R)
    right = [(V * np.exp(s * values)) @ np.linalg.inv(V) for s in integral]
    process = d3pm.from_rate(R, np.diff(integral))
    close(process.Qbar(jnp.arange(5)), np.real(right))
