"""The official text code in NumPy, with its conventions ([to, from], t = 0..T-1), and the calls here."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.interpolate import PchipInterpolator
from scipy.special import entr, log_softmax, softmax

import d3pm_jax as d3pm
from d3pm_jax import compat
from tests.compat.inputs import BETA, T, i32, inputs, posterior_kl

pytestmark = pytest.mark.filterwarnings("ignore:x_T still depends")


def text_terms(onestep, cumulative, x0, x_next, logits, t0):
    """The term of t0 = 0..T-1 as d3pm/text has it, for each element; matrices [to, from]."""
    terms = np.zeros(x0.shape)
    for i in np.ndindex(x0.shape):
        back = onestep[t0][x_next[i]]
        q = back * cumulative[t0][:, x0[i]]
        p = back * (cumulative[t0] @ softmax(logits[i]))
        q = q / q.sum()
        p = p / p.sum()
        kl = (q * (np.log(q + 1e-20) - np.log(p + 1e-20))).sum()
        terms[i] = -np.log(p[x0[i]] + 1e-20) if t0 == 0 else max(kl, 0)
    return terms


def text_matrix(kind, beta, K, gamma):
    """One step [to, from]."""
    Q = np.zeros((K, K))
    for i in range(K):
        for j in range(K):
            if kind == "beta-diagonal":
                Q[i, j] = beta / K
            elif kind == "mask":
                Q[i, j] = beta * (i == K - 1)
            elif kind == "band-diagonal":  # width 5
                Q[i, j] = beta * (abs(i - j) <= 2) / sum(abs(k - j) <= 2 for k in range(K))
            elif kind == "gaussian":
                weights = [np.exp(-((n * K / (K - 1) * 2 / (K - 1)) ** 2) / beta) for n in range(1 - K, K)]
                Q[i, j] = 0 if i == j else weights[K - 1 + i - j] / sum(weights)
    if kind == "gaussian":
        return Q + np.diag(1 - Q.sum(0))
    if kind == "mask gaussian":
        Q[:-1, :-1] = (1 - gamma) * text_matrix("gaussian", beta, K - 1, 0)
        Q[-1] = gamma
        Q[-1, -1] = 1
        return Q
    return Q + (1 - beta) * np.eye(K)


def text_process(kind, beta, K):
    if kind == "gaussian":
        return d3pm.gaussian(beta * ((K - 1) / K) ** 2, K)
    if kind == "mask gaussian":
        return d3pm.masked(text_process("gaussian", beta, K - 1), d3pm.reciprocal(T))
    if kind == "mask":
        return d3pm.absorbing(beta, K, mask_id=K - 1)
    if kind == "band-diagonal":
        band = np.abs(np.subtract.outer(np.arange(K), np.arange(K))) <= 2
        return d3pm.random_walk(beta, (band / band.sum(0)).T)
    return d3pm.uniform(beta, K)


def possible(cumulative, x0, t0, seed=3):
    """x_{t0 + 1} drawn from the column of x_0."""
    rng = np.random.default_rng(seed)
    return np.vectorize(lambda x: rng.choice(len(cumulative[0]), p=cumulative[t0 + 1][:, x]))(x0)


@pytest.mark.parametrize("kind", ["beta-diagonal", "mask", "band-diagonal", "gaussian", "mask gaussian"])
def test_official_text(kind, close):
    K = 8
    x0, _, logits = inputs(8, seed=4)
    x0 = x0 % (K - 1)  # never the mask
    onestep = [text_matrix(kind, b, K, 1 / (T - n)) for n, b in enumerate(BETA)]
    cumulative = [np.linalg.multi_dot([np.eye(K), np.eye(K), *onestep[:n][::-1]]) for n in range(T + 1)]
    process = text_process(kind, BETA, K)
    close(process.Q(jnp.arange(1, T + 1)), np.swapaxes(onestep, 1, 2))
    for t0 in (0, 1, T - 1):
        x_next = possible(cumulative, x0, t0)
        actual = posterior_kl(process, jnp.asarray(logits), i32(x0), i32(x_next), i32([t0 + 1] * 8))
        close(actual, text_terms(onestep, cumulative, x0, x_next, logits, t0))


def test_official_text_mask_beta_diagonal(close):
    """Its one-step matrices follow the schedule, its cumulative ones 1 / (T - t)."""
    K = 8
    x0, _, logits = inputs(8, seed=5)
    x0 = x0 % (K - 1)
    scale = 1 / 0.66666
    onestep = []
    cumulative = []
    keep = 1.0
    for n in range(T + 1):
        left = 1 - n / T if n < T else 0.0
        matrix = np.zeros((K, K))
        matrix[:-1, :-1] = keep * (left * np.eye(K - 1) + (1 - left) / (K - 1))
        matrix[-1] = 1 - keep
        matrix[-1, -1] = 1
        cumulative.append(matrix)
        if n < T:
            gamma = 1 / (scale * T - n)
            step = np.zeros((K, K))
            step[:-1, :-1] = (1 - gamma) * ((1 - BETA[n]) * np.eye(K - 1) + BETA[n] / (K - 1))
            step[-1] = gamma
            step[-1, -1] = 1
            onestep.append(step)
            keep *= 1 - gamma
    gamma = d3pm.reciprocal(T, 1 / 0.66666)
    one_step = d3pm.masked(d3pm.uniform(BETA, K - 1), gamma)
    bar = d3pm.masked(d3pm.uniform(d3pm.reciprocal(T), K - 1), gamma)

    @jax.jit
    def term(xt, t):
        back = one_step.log_q_back(xt, t)
        log_q = d3pm.log_normalize(back + bar.log_q_probs(i32(x0), t - 1))
        log_p = d3pm.log_normalize(back + bar.log_push(d3pm.log_p_x0(bar, jnp.asarray(logits)), t - 1))
        return d3pm.kl(log_q, log_p)

    for t0 in (1, 6):
        x_next = possible(cumulative, x0, t0)
        close(term(i32(x_next), i32(t0 + 1)), text_terms(onestep, cumulative, x0, x_next, logits, t0))


def test_official_text_in_log_space(close):
    """log_space = True: eps is in the logs of the two factors, of which a softmax is taken."""
    K = 8
    x0, _, logits = inputs(8, seed=6)
    x0 = x0 % (K - 1)
    x_next = np.full_like(x0, K - 1)
    process = d3pm.absorbing(BETA, K, K - 1)
    Q = [text_matrix("mask", b, K, 0) for b in BETA]

    @jax.jit
    def terms(t):
        xt = i32(x_next)
        z = jnp.asarray(logits)
        log_q = d3pm.log_normalize(compat.q_posterior(process, i32(x0), xt, t, 1e-20))
        kl = d3pm.kl_logits(log_q, compat.p_logits(process, z, xt, t, 1e-20))
        back = jnp.exp(process.log_q_back(xt, t))
        return kl, -d3pm.log_prob(jnp.log(jax.nn.softmax(z) + 1e-20) + jnp.log(back + 1e-20), i32(x0))

    for t0 in (0, 3, T - 1):
        cumulative = np.linalg.multi_dot([np.eye(K), np.eye(K), *Q[:t0][::-1]])
        column = np.log(Q[t0][x_next] + 1e-20)
        log_q = log_softmax(np.log(np.eye(K)[x0] @ cumulative.T + 1e-20) + column, -1)
        log_p = log_softmax(np.log(softmax(logits, -1) @ cumulative.T + 1e-20) + column, -1)
        ce = -np.take_along_axis(log_p, x0[..., None], -1)[..., 0]
        kl, first = terms(i32(t0 + 1))
        if t0 == 0:
            close(first, ce)
        else:
            close(kl, (np.exp(log_q) * (log_q - log_p)).sum(-1))


def test_official_text_label_smoothing(close):
    """On 1 - s and off s / (K - 1) in place of s / K everywhere, less the entropy of the target."""
    K = 8
    s = 0.1
    x0, _, logits = inputs(8, seed=7)
    target = np.where(np.eye(K)[x0] == 1, 1 - s, s / (K - 1))
    right = -(target * log_softmax(logits, -1)).sum(-1) - entr(target).sum(-1)
    process = d3pm.uniform(BETA, K)
    actual = d3pm.smoothed_cross_entropy(process, jnp.asarray(logits), i32(x0), s * K / (K - 1))
    close(actual + (1 - s) * np.log(1 - s) + s * np.log(s / (K - 1)), right)


def lost(p0, Qbar):
    """1 - I(x_t; x_0) / H(x_0)."""
    joint = p0[:, None] * Qbar
    return (entr(joint).sum() - entr(joint.sum(0)).sum()) / entr(p0).sum()


@pytest.mark.parametrize("masked", [True, False])
@pytest.mark.parametrize("override", [True, False])
@pytest.mark.parametrize("steps", [40, 1000])
def test_official_text_information(masked, override, steps):
    """What is lost at t is t / T with the last step overridden, else t / (T + 1), in both programs."""
    K = 28
    p0, pi = (np.append(1 / np.arange(1, K), 0), np.eye(K)[-1]) if masked else (1 / np.arange(1, K + 1), None)
    p0 = p0 / p0.sum()
    pi = np.full(K, 1 / K) if pi is None else pi

    def at(s):
        return lost(p0, np.exp(-s) * np.eye(K) - np.expm1(-s) * pi)

    s = np.geomspace(1e-4, 1e5, 128)
    r = np.array([at(s) for s in s])
    rises = r > np.maximum.accumulate(np.append(0, r))[:-1]
    n = steps - override
    targets = np.linspace(0, 1, n + 2)[1:-1]
    theirs = PchipInterpolator(np.append(0, r[rises]), np.append(0, s[rises]))(targets)
    beta = d3pm.schedules.mutual_information(steps if override else steps + 1, p0, pi)[:n]
    ours = np.cumsum(-np.log1p(-beta))
    off = [np.abs([at(s) for s in actual] - targets).max() for actual in (theirs, ours)]
    assert 2e-5 < off[0] < 4e-5
    assert off[1] < 3e-7
