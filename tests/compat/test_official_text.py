"""The official text code in NumPy, with its conventions ([to, from], t = 0..T-1), and the calls here."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import softmax

import d3pm_jax as d3pm
from tests.compat.inputs import BETA, T, i32, inputs, posterior_kl

pytestmark = pytest.mark.filterwarnings("ignore:x_T still depends")


def text_terms(onestep, cumulative, x0, x_next, logits, t0):
    """The term of t0 = 0..T-1 as d3pm/text has it, for each element; matrices [to, from]."""
    terms = np.zeros(x0.shape)
    for i in np.ndindex(x0.shape):
        back = onestep[t0][x_next[i]]
        q = back * cumulative[t0][:, x0[i]]
        p = back * (cumulative[t0] @ softmax(logits[i]))
        q, p = q / q.sum(), p / p.sum()
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
        Q[-1], Q[-1, -1] = gamma, 1
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
    K, (x0, _, logits) = 8, inputs(8, seed=4)
    x0 = x0 % (K - 1)  # never the mask
    onestep = [text_matrix(kind, b, K, 1 / (T - n)) for n, b in enumerate(BETA)]
    cumulative = [np.linalg.multi_dot([np.eye(K), np.eye(K), *onestep[:n][::-1]]) for n in range(T + 1)]
    process = text_process(kind, BETA, K)
    close(process.Q(jnp.arange(1, T + 1)), np.swapaxes(onestep, 1, 2))
    for t0 in (0, 1, T - 1):
        x_next = possible(cumulative, x0, t0)
        found = posterior_kl(process, jnp.asarray(logits), i32(x0), i32(x_next), i32([t0 + 1] * 8))
        close(found, text_terms(onestep, cumulative, x0, x_next, logits, t0))


def test_official_text_mask_beta_diagonal(close):
    """Its one-step matrices follow the schedule, its cumulative ones 1 / (T - t)."""
    K, (x0, _, logits) = 8, inputs(8, seed=5)
    x0, scale = x0 % (K - 1), 1 / 0.66666
    onestep, cumulative, keep = [], [], 1.0
    for n in range(T + 1):
        left = 1 - n / T if n < T else 0.0
        matrix = np.zeros((K, K))
        matrix[:-1, :-1] = keep * (left * np.eye(K - 1) + (1 - left) / (K - 1))
        matrix[-1], matrix[-1, -1] = 1 - keep, 1
        cumulative.append(matrix)
        if n < T:
            gamma, step = 1 / (scale * T - n), np.zeros((K, K))
            step[:-1, :-1] = (1 - gamma) * ((1 - BETA[n]) * np.eye(K - 1) + BETA[n] / (K - 1))
            step[-1], step[-1, -1] = gamma, 1
            onestep.append(step)
            keep *= 1 - gamma
    gamma = d3pm.reciprocal(T, 1 / 0.66666)
    one, bar = (d3pm.masked(d3pm.uniform(beta, K - 1), gamma) for beta in (BETA, d3pm.reciprocal(T)))

    @jax.jit
    def term(xt, t):
        back = one.log_q_back(xt, t)
        log_q = d3pm.log_normalize(back + bar.log_q_probs(i32(x0), t - 1))
        log_p = d3pm.log_normalize(back + bar.log_push(d3pm.log_p_x0(bar, jnp.asarray(logits)), t - 1))
        return d3pm.kl(log_q, log_p)

    for t0 in (1, 6):
        x_next = possible(cumulative, x0, t0)
        close(term(i32(x_next), i32(t0 + 1)), text_terms(onestep, cumulative, x0, x_next, logits, t0))
