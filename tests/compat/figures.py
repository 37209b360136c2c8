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
    found: jax.Array
    right: np.ndarray
    scale: np.ndarray | float


def images(c: Chain) -> Iterator[Figure]:
    process, (logits, x0, xt, t) = c.process(), c.arrays()
    q = c.with_eps(c.onehot, np.log(c.onehot + 1e-6))
    p = c.with_eps(softmax(c.logits, -1), c.logits)
    terms = kl(log_softmax(q, -1), log_softmax(p, -1))
    vb = np.where(c.t[:, None] == 1, c.cross_entropy(), terms).mean(1) / LN2
    yield Figure("compat.q_posterior", jax.jit(compat.q_posterior)(process, x0, xt, t), q, 1 + abs(q))
    found = jax.jit(compat.p_logits)(process, logits, xt, t)
    yield Figure("compat.p_logits", found, p, 1 + abs(p) + c.largest[..., None])
    found = jax.jit(compat.vb_bits)(process, logits, x0, xt, t)
    yield Figure("compat.vb_bits", found, vb, 1 + vb + c.largest.mean(1))
    last, prior = c.Qbar[T][c.x0], np.exp(np.asarray(process.log_prior(), np.float64))
    right = (last * (np.log(last + 1e-6) - np.log(prior + 1e-6))).sum(-1).mean(1) / LN2
    yield Figure("compat.prior_bits", jax.jit(compat.prior_bits)(process, x0), right, 1 + abs(right))


def logistic(K: int) -> Iterator[Figure]:
    rng = np.random.default_rng(0)
    loc, log_scale = (rng.uniform(*ends, 500).astype(np.float32) for ends in ((-1, 1), (-2, 4)))
    inverse = np.exp(2 - log_scale.astype(np.float64))[:, None]
    z = ((np.arange(K + 1) * 2.0 - K) / (K - 1) - loc[:, None]) * inverse
    low, high = log_expit(z[:, :-1]), log_expit(z[:, 1:])
    right = high + np.log(-np.expm1(low - high) + 1e-6)
    given = (jnp.asarray(x, jnp.result_type(float)) for x in (loc, log_scale))
    found = jax.jit(compat.logistic, static_argnums=2)(*given, K)
    yield Figure("compat.logistic", found, right, 1 + abs(right) + inverse)


def bound(c: Chain) -> Iterator[Figure]:
    process, (logits, x0, xt, t) = c.process(), c.arrays()
    right, found = c.exact_kl(), jax.jit(d3pm.posterior_kl)(process, logits, x0, xt, t)
    yield Figure("posterior_kl", found, right, 1 + right + c.largest)
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
            "losses.stochastic_bound", total(process, found, x0, jnp.asarray(p_t)), expected, D / p_t
        )
    if c.kind == "absorbing":
        yield Figure("steps * posterior_kl", T * found, T * right, T * (1 + right + c.largest))


def cloneofsimo(c: Chain) -> Iterator[Figure]:
    process, (logits, x0, xt, t) = c.process(), c.arrays()
    ones = np.log(c.onehot + 1e-6)
    true, model = (c.with_eps(softmax(z, -1), log_softmax(z, -1)) for z in (ones, c.logits))
    right = kl(log_softmax(true, -1), log_softmax(model, -1))

    @jax.jit
    def vb(process, logits, x0, xt, t):
        x0_logits = jnp.log(jax.nn.one_hot(x0, process.K) + 1e-6)
        true, model = (compat.p_logits(process, z, xt, t) for z in (x0_logits, logits))
        return d3pm.kl_logits(d3pm.log_normalize(true), model)

    yield Figure("kl_logits of cloneofsimo", vb(process, logits, x0, xt, t), right, 1 + right + c.largest)


def udlm(c: Chain) -> Iterator[Figure]:
    rng, (logits, x0, xt, _) = np.random.default_rng(1), c.arrays()
    time = np.float32(np.append(0.999, rng.random(T - 1))).astype(np.float64)
    alpha = (1 - time)[:, None, None]
    ours, theirs = (c.K * alpha * p + 1 - alpha for p in (c.onehot, softmax(c.logits, -1)))
    r, s = (x / np.take_along_axis(x, c.xt[..., None], -1) for x in (ours, theirs))
    right = (r * np.log(r / s) - r + s).sum(-1) / (c.K * alpha[..., 0])
    nelbo = jax.jit(partial(d3pm.losses.continuous.uniform_nelbo, d3pm.schedules.continuous.linear))
    found = nelbo(logits, x0, xt, jnp.asarray(time))
    scale = right + (1 + c.largest) / alpha[..., 0]
    yield Figure("losses.continuous.uniform_nelbo", found, right, scale)


@cache
def half_masked() -> Chain:
    """15 categories and a mask, which half of x_t is."""
    c = Chain("uniform", "cosine", 16)
    c.xt = np.where(np.random.default_rng(3).random((T, D)) < 0.5, 15, c.xt % 15)
    return c


def mask_beta_diagonal() -> Iterator[Figure]:
    """Of the text code: one-step matrices follow the schedule, cumulative ones 1 / (T - t)."""
    c, beta, gamma = half_masked(), BETAS["cosine"], 1 / (T / 0.66666 - np.arange(T))
    keep, left = np.append(1, np.cumprod(1 - gamma)), 1 - np.arange(T) / T
    one, bar = (_on_top(1 - b, k) for b, k in ((beta, 1 - gamma), (1 - left, keep[:-1])))
    back = one[c.t[:, None] - 1, :, c.xt]
    joints = (back * (p @ bar) for p in (c.onehot, softmax(c.logits, -1)))
    with np.errstate(divide="ignore"):
        log_q, log_p = (np.log(z / z.sum(-1, keepdims=True)) for z in joints)
    gammas = d3pm.reciprocal(T, 1 / 0.66666)
    ones, bars = (d3pm.masked(d3pm.uniform(b, 15), gammas) for b in (d3pm.cosine(T), d3pm.reciprocal(T)))

    @jax.jit
    def term(one, bar, logits, x0, xt, t):
        back = one.log_q_back(xt, t)
        log_q = d3pm.log_normalize(back + bar.log_q_probs(x0, t - 1))
        return d3pm.kl(log_q, d3pm.log_normalize(back + bar.log_push(d3pm.log_p_x0(bar, logits), t - 1)))

    found, right = term(ones, bars, *c.arrays()), kl(log_q, log_p)
    yield Figure("kl of mask-beta-diagonal", found, right, 1 + right + c.largest)


def _on_top(stay: np.ndarray, keep: np.ndarray) -> np.ndarray:
    """keep (stay I + (1 - stay) / 15) with a mask on top, [T, 16, 16]."""
    Q = np.zeros((len(stay), 16, 16))
    Q[:, :-1, :-1] = keep[:, None, None] * (stay[:, None, None] * np.eye(15) + (1 - stay)[:, None, None] / 15)
    Q[:, :-1, -1], Q[:, -1, -1] = 1 - keep[:, None], 1
    return Q


def vq_diffusion() -> Iterator[Figure]:
    alpha_bar, keep_bar = np.linspace(0.99, 0.009, T), 1 - np.linspace(0.001, 0.9, T)
    c, stay_bar = half_masked(), alpha_bar / keep_bar
    stay, keep = (x / np.append(1, x[:-1]) for x in (stay_bar, keep_bar))
    one, bar = _on_top(stay, keep), np.concatenate([np.eye(16)[None], _on_top(stay_bar, keep_bar)])
    p = softmax(c.logits[..., :-1], -1) / bar[c.t[:, None], :-1, c.xt]
    with np.errstate(divide="ignore"):
        right = np.log(one[c.t[:, None] - 1, :, c.xt] * (p @ bar[:-1, :-1]))
    inner = d3pm.uniform(d3pm.from_alpha_bar(np.append(1, stay_bar)), 15)
    process = d3pm.masked(inner, d3pm.from_alpha_bar(np.append(1, keep_bar)))

    @jax.jit
    def reverse(process, logits, xt, t):
        return d3pm.p_logits(process, d3pm.forbid(logits - process.log_q_x0(xt, t), 15), xt, t)

    found = reverse(process, jnp.asarray(c.logits), i32(c.xt), i32(c.t))
    seen = right > -np.inf
    assert (np.isfinite(found) == seen).all()
    scale = (1 + abs(right) + c.largest[..., None])[seen]
    yield Figure("p_logits of VQ-Diffusion", np.asarray(found)[seen], right[seen], scale)


def tauldr() -> Iterator[Figure]:
    K, time = 16, 0.5 * 100 ** (2 * np.arange(T + 1) / T)
    R = np.diag(np.ones(K - 1), 1) + np.diag(np.ones(K - 1), -1)
    R -= np.diag(R.sum(1))
    process, shown = d3pm.from_rate(R, np.diff(time)), np.arange(0, T + 1, 50)
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
            error = np.max(abs(np.asarray(figure.found, np.float64) - figure.right) / figure.scale)
            assert np.isfinite(error), figure.call
            worst[figure.call] = max(worst.get(figure.call, 0.0), float(error))
    return worst


if __name__ == "__main__":
    found = []
    for x64 in (False, True):
        with jax.enable_x64(x64):
            found.append(measure())
    for call, error in found[0].items():
        print(f"| {call} | {error:.2e} | {found[1][call]:.2e} |")
