"""How far the calls of docs/compat.md are from the programs' formulas: `python -m tests.compat.figures`.

Each call at T = 1000, in float32 and in float64, beside the formula in NumPy and float64. A difference counts
on a scale: that of the terms that enter a result. `test_figures.py` holds the table of the page to this.
"""

import warnings
from collections.abc import Iterator
from functools import cache, partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from scipy.linalg import expm
from scipy.special import log_expit, log_softmax, softmax

import d3pm_jax as d3pm
from d3pm_jax import compat
from tests.compat.chains import BETAS, Chain, D, T, kl
from tests.compat.inputs import i32

LN2 = np.log(2)
CHAINS = [("uniform", "cosine", 16), ("uniform", "linear", 64), ("absorbing", "reciprocal", 16),
          ("gaussian", "linear", 64), ("band", "linear", 16)]  # fmt: skip
chain = cache(Chain)


class Figure(NamedTuple):
    """What a call gave, what the formula does, and the scale on which a difference counts."""

    call: str
    actual: jax.Array
    right: np.ndarray
    scale: np.ndarray | float


def images(c: Chain) -> Iterator[Figure]:
    process = c.process()
    logits, x0, xt, t = c.arrays()
    q = c.with_eps(c.onehot, np.log(c.onehot + 1e-6))
    p = c.with_eps(softmax(c.logits, -1), c.logits)
    terms = kl(log_softmax(q, -1), log_softmax(p, -1))
    vb = np.where(c.t[:, None] == 1, c.cross_entropy(), terms).mean(1) / LN2
    yield Figure("compat.q_posterior", jax.jit(compat.q_posterior)(process, x0, xt, t), q, 1 + abs(q))
    actual = jax.jit(compat.p_logits)(process, logits, xt, t)
    yield Figure("compat.p_logits", actual, p, 1 + abs(p) + c.largest[..., None])
    actual = jax.jit(compat.vb_bits)(process, logits, x0, xt, t)
    yield Figure("compat.vb_bits", actual, vb, 1 + vb + c.largest.mean(1))
    last = c.Qbar[T][c.x0]
    prior = np.exp(np.asarray(process.log_prior(), np.float64))
    right = (last * (np.log(last + 1e-6) - np.log(prior + 1e-6))).sum(-1).mean(1) / LN2
    yield Figure("compat.prior_bits", jax.jit(compat.prior_bits)(process, x0), right, 1 + abs(right))


def logistic(K: int) -> Iterator[Figure]:
    rng = np.random.default_rng(0)
    loc = rng.uniform(-1, 1, 500).astype(np.float32)
    log_scale = rng.uniform(-2, 4, 500).astype(np.float32)
    inverse = np.exp(2 - log_scale.astype(np.float64))[:, None]
    z = ((np.arange(K + 1) * 2.0 - K) / (K - 1) - loc[:, None]) * inverse
    low = log_expit(z[:, :-1])
    high = log_expit(z[:, 1:])
    right = high + np.log(-np.expm1(low - high) + 1e-6)
    arguments = [jnp.asarray(x, jnp.result_type(float)) for x in (loc, log_scale)]
    actual = jax.jit(compat.logistic, static_argnums=2)(*arguments, K)
    yield Figure("compat.logistic", actual, right, 1 + abs(right) + inverse)


def bound(c: Chain) -> Iterator[Figure]:
    process = c.process()
    logits, x0, xt, t = c.arrays()
    right = c.exact_kl()
    actual = jax.jit(d3pm.posterior_kl)(process, logits, x0, xt, t)
    yield Figure("posterior_kl", actual, right, 1 + right + c.largest)
    ce = jax.jit(d3pm.cross_entropy)(process, logits, x0)
    yield Figure("cross_entropy", ce, c.cross_entropy(), 1 + c.cross_entropy() + c.largest)
    with np.errstate(divide="ignore"):
        prior = kl(np.log(c.Qbar[T][c.x0]), np.asarray(process.log_prior(), np.float64))
    yield Figure("prior_kl", jax.jit(d3pm.prior_kl)(process, x0), prior, 1 + prior)
    total = jax.jit(d3pm.losses.stochastic_bound)
    uneven = np.float32(softmax(2 * np.random.default_rng(2).normal(size=T))).astype(np.float64)
    for p_t in (np.full(T, 1 / T), uneven):
        expected = right.sum(1) / p_t + prior.sum(1)
        yield Figure(
            "losses.stochastic_bound", total(process, actual, x0, jnp.asarray(p_t)), expected, D / p_t
        )
    if c.kind == "absorbing":
        yield Figure("steps * posterior_kl", T * actual, T * right, T * (1 + right + c.largest))


def cloneofsimo(c: Chain) -> Iterator[Figure]:
    process = c.process()
    logits, x0, xt, t = c.arrays()
    ones = np.log(c.onehot + 1e-6)
    true = c.with_eps(softmax(ones, -1), log_softmax(ones, -1))
    model = c.with_eps(softmax(c.logits, -1), log_softmax(c.logits, -1))
    right = kl(log_softmax(true, -1), log_softmax(model, -1))

    @jax.jit
    def vb(process, logits, x0, xt, t):
        x0_logits = jnp.log(jax.nn.one_hot(x0, process.K) + 1e-6)
        true = compat.p_logits(process, x0_logits, xt, t)
        model = compat.p_logits(process, logits, xt, t)
        return d3pm.kl_logits(d3pm.log_normalize(true), model)

    yield Figure("kl_logits of cloneofsimo", vb(process, logits, x0, xt, t), right, 1 + right + c.largest)


def udlm(c: Chain) -> Iterator[Figure]:
    rng = np.random.default_rng(1)
    logits, x0, xt, _ = c.arrays()
    time = np.float32(np.append(0.999, rng.random(T - 1))).astype(np.float64)
    alpha = (1 - time)[:, None, None]
    ours = c.K * alpha * c.onehot + 1 - alpha
    theirs = c.K * alpha * softmax(c.logits, -1) + 1 - alpha
    r = ours / np.take_along_axis(ours, c.xt[..., None], -1)
    s = theirs / np.take_along_axis(theirs, c.xt[..., None], -1)
    right = (r * np.log(r / s) - r + s).sum(-1) / (c.K * alpha[..., 0])
    nelbo = jax.jit(partial(d3pm.losses.continuous.uniform_nelbo, d3pm.schedules.continuous.linear))
    actual = nelbo(logits, x0, xt, jnp.asarray(time))
    scale = right + (1 + c.largest) / alpha[..., 0]
    yield Figure("losses.continuous.uniform_nelbo", actual, right, scale)


@cache
def half_masked() -> Chain:
    """15 categories and a mask, which half of x_t is."""
    c = Chain("uniform", "cosine", 16)
    c.xt = np.where(np.random.default_rng(3).random((T, D)) < 0.5, 15, c.xt % 15)
    return c


def mask_beta_diagonal() -> Iterator[Figure]:
    """Of the text code: one-step matrices follow the schedule, cumulative ones 1 / (T - t)."""
    c = half_masked()
    beta = BETAS["cosine"]
    gamma = 1 / (T / 0.66666 - np.arange(T))
    keep = np.append(1, np.cumprod(1 - gamma))
    left = 1 - np.arange(T) / T
    one_step = _on_top(1 - beta, 1 - gamma)
    bar = _on_top(1 - (1 - left), keep[:-1])
    back = one_step[c.t[:, None] - 1, :, c.xt]
    q = back * (c.onehot @ bar)
    p = back * (softmax(c.logits, -1) @ bar)
    with np.errstate(divide="ignore"):
        log_q = np.log(q / q.sum(-1, keepdims=True))
        log_p = np.log(p / p.sum(-1, keepdims=True))
    gammas = d3pm.reciprocal(T, 1 / 0.66666)
    ones = d3pm.masked(d3pm.uniform(d3pm.cosine(T), 15), gammas)
    bars = d3pm.masked(d3pm.uniform(d3pm.reciprocal(T), 15), gammas)

    @jax.jit
    def term(one_step, bar, logits, x0, xt, t):
        back = one_step.log_q_back(xt, t)
        log_q = d3pm.log_normalize(back + bar.log_q_probs(x0, t - 1))
        return d3pm.kl(log_q, d3pm.log_normalize(back + bar.log_push(d3pm.log_p_x0(bar, logits), t - 1)))

    actual = term(ones, bars, *c.arrays())
    right = kl(log_q, log_p)
    yield Figure("kl of mask-beta-diagonal", actual, right, 1 + right + c.largest)


def _on_top(stay: np.ndarray, keep: np.ndarray) -> np.ndarray:
    """keep (stay I + (1 - stay) / 15) with a mask on top, [T, 16, 16]."""
    Q = np.zeros((len(stay), 16, 16))
    Q[:, :-1, :-1] = keep[:, None, None] * (stay[:, None, None] * np.eye(15) + (1 - stay)[:, None, None] / 15)
    Q[:, :-1, -1] = 1 - keep[:, None]
    Q[:, -1, -1] = 1
    return Q


def vq_diffusion() -> Iterator[Figure]:
    alpha_bar = np.linspace(0.99, 0.009, T)
    keep_bar = 1 - np.linspace(0.001, 0.9, T)
    c = half_masked()
    stay_bar = alpha_bar / keep_bar
    stay = stay_bar / np.append(1, stay_bar[:-1])
    keep = keep_bar / np.append(1, keep_bar[:-1])
    one_step = _on_top(stay, keep)
    bar = np.concatenate([np.eye(16)[None], _on_top(stay_bar, keep_bar)])
    p = softmax(c.logits[..., :-1], -1) / bar[c.t[:, None], :-1, c.xt]
    with np.errstate(divide="ignore"):
        right = np.log(one_step[c.t[:, None] - 1, :, c.xt] * (p @ bar[:-1, :-1]))
    inner = d3pm.uniform(d3pm.from_alpha_bar(np.append(1, stay_bar)), 15)
    process = d3pm.masked(inner, d3pm.from_alpha_bar(np.append(1, keep_bar)))

    @jax.jit
    def reverse(process, logits, xt, t):
        return d3pm.p_logits(process, d3pm.forbid(logits - process.log_q_x0(xt, t), 15), xt, t)

    actual = reverse(process, jnp.asarray(c.logits), i32(c.xt), i32(c.t))
    seen = right > -np.inf
    assert (np.isfinite(actual) == seen).all()
    scale = (1 + abs(right) + c.largest[..., None])[seen]
    yield Figure("p_logits of VQ-Diffusion", np.asarray(actual)[seen], right[seen], scale)


def tauldr() -> Iterator[Figure]:
    K = 16
    time = 0.5 * 100 ** (2 * np.arange(T + 1) / T)
    R = np.diag(np.ones(K - 1), 1) + np.diag(np.ones(K - 1), -1)
    R -= np.diag(R.sum(1))
    process = d3pm.from_rate(R, np.diff(time))
    shown = np.arange(0, T + 1, 50)
    right = np.stack([expm((time[t] - time[0]) * R) for t in shown])
    yield Figure("Qbar of from_rate", process.Qbar(i32(shown)), right, 1.0)


def measure() -> dict[str, float]:
    """The largest difference of each call, on its scale, with JAX in the type that it has now."""
    worst: dict[str, float] = {}
    parts = [images(chain(*case, anything=True)) for case in CHAINS]
    parts += [bound(chain(*case)) for case in (*CHAINS, ("uniform", "cosine_squared", 16))]
    uniform = chain("uniform", "cosine", 16)
    parts += [logistic(16), logistic(256), cloneofsimo(uniform), udlm(uniform)]
    parts += [mask_beta_diagonal(), vq_diffusion(), tauldr()]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # some of the processes still tell of x_0 in the end
        for figure in (figure for part in parts for figure in part):
            error = np.max(abs(np.asarray(figure.actual, np.float64) - figure.right) / figure.scale)
            assert np.isfinite(error), figure.call
            worst[figure.call] = max(worst.get(figure.call, 0.0), float(error))
    return worst


if __name__ == "__main__":
    actual = []
    for x64 in (False, True):
        with jax.enable_x64(x64):
            actual.append(measure())
    for call, error in actual[0].items():
        print(f"| {call} | {error:.2e} | {actual[1][call]:.2e} |")
