"""A language whose exact belief is known: a Markov chain, of which a network would know everything at best.

The belief of a place given all others follows by sums forward and backward along the text, whatever was done
to its places independently: masked, or drawn from a uniform distribution.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float, Int

from d3pm_jax.processes.base import Process
from d3pm_jax.sampling import laws

CATEGORIES = 8
LENGTH = 64
RESAMPLES = 200  # of the bootstrap


class Language(NamedTuple):
    """Holds the law of a stationary Markov chain of 8 categories."""

    step: np.ndarray  # [K, K], p(next | this)
    start: np.ndarray  # [K], its stationary law

    @property
    def entropy(self) -> float:
        """Returns nats of a text of LENGTH places."""
        of_start = -np.sum(self.start * np.log(self.start))
        of_step = -np.sum(self.start[:, None] * self.step * np.log(self.step))
        return float(of_start + (LENGTH - 1) * of_step)

    def pairs(self) -> np.ndarray:
        """Returns the law of neighbours, [K, K]."""
        return self.start[:, None] * self.step

    def triples(self) -> np.ndarray:
        """Returns the law of three in a row, [K, K, K]."""
        return self.pairs()[:, :, None] * self.step[None]

    def negative_log_p(self, x: np.ndarray) -> np.ndarray:
        """Returns -log p of each text, nats, [N]."""
        steps = np.log(self.step)[x[:, :-1], x[:, 1:]]
        return -(np.log(self.start)[x[:, 0]] + steps.sum(axis=1))

    def draw(self, rng: np.random.Generator, num: int) -> np.ndarray:
        """Draws texts, [num, LENGTH]."""
        ends = np.cumsum(self.step, axis=1)
        x = np.zeros((num, LENGTH), np.int64)
        x[:, 0] = rng.choice(CATEGORIES, num, p=self.start)
        for place in range(1, LENGTH):
            u = rng.random((num, 1))
            x[:, place] = np.minimum((ends[x[:, place - 1]] < u).sum(axis=1), CATEGORIES - 1)
        return x


def make_language(seed: int = 0) -> Language:
    """Returns a language whose categories prefer a few others, and exclude none."""
    preferred = np.random.default_rng(seed).dirichlet(np.full(CATEGORIES, 0.3), CATEGORIES)
    step = 0.95 * preferred + 0.05 / CATEGORIES
    start = np.linalg.matrix_power(step, 1000)[0]
    return Language(step, start / start.sum())


def make_denoise(language: Language, process: Process) -> Callable[[Array, Array], Array]:
    """Returns the best network there is: (x_t, time) -> exact leave-one-out logits of x_0.

    Args:
        language: of the data.
        process: uniform, or absorbing with a mask behind the categories; before it is respaced.
    """
    has_mask = laws.mask_of(process) is not None
    alpha_bar = process.alpha_bar

    def evidence(x: Int[Array, "B L"], time: Int[Array, " B"]) -> Float[Array, "B L K"]:
        is_same = x[..., None] == jnp.arange(CATEGORIES).reshape(1, 1, -1)
        if has_mask:
            is_masked = (x == CATEGORIES)[..., None]
            return jnp.where(is_masked, 1.0, is_same.astype(jnp.float32))
        alpha = alpha_bar[time].reshape(-1, 1, 1)
        return alpha * is_same + (1 - alpha) / CATEGORIES

    def denoise(x: Array, time: Array) -> Array:
        return leave_one_out(language, evidence(x, time), process.K)

    return denoise


def leave_one_out(language: Language, evidence: Float[Array, "B L K"], width: int) -> Array:
    """Returns log p(x_0 at a place | evidence of all other places) [B, L, width], -inf behind K."""
    step = jnp.asarray(language.step, evidence.dtype)
    start = jnp.broadcast_to(jnp.asarray(language.start, evidence.dtype), evidence[:, 0].shape)

    def forward(before: Array, here: Array) -> tuple[Array, Array]:
        after = jnp.matmul(before * here, step, precision=lax.Precision.HIGHEST)
        return after / jnp.sum(after, axis=-1, keepdims=True), before

    def backward(behind: Array, here: Array) -> tuple[Array, Array]:
        before = jnp.matmul(behind * here, step.T, precision=lax.Precision.HIGHEST)
        return before / jnp.sum(before, axis=-1, keepdims=True), behind

    by_place = jnp.moveaxis(evidence, 1, 0)  # [L, B, K]
    _, from_left = lax.scan(forward, start, by_place)
    _, from_right = lax.scan(backward, jnp.ones_like(start), by_place, reverse=True)
    logits = jnp.moveaxis(jnp.log(from_left * from_right), 0, 1)
    padding = ((0, 0), (0, 0), (0, width - CATEGORIES))
    return jnp.pad(logits, padding, constant_values=-jnp.inf)


class Figures(NamedTuple):
    """Holds how far samples are from a language, with standard errors."""

    nats: float  # mean -log p of a place
    nats_error: float
    pairs: float  # KL of the law of neighbours from the true one, nats
    pairs_error: float
    triples: float
    triples_error: float


def measure(language: Language, x: np.ndarray) -> Figures:
    """Returns the figures of samples [N, L]."""
    nats = language.negative_log_p(x) / LENGTH
    pairs, pairs_error = _divergence(_count(x, 2), language.pairs().ravel())
    triples, triples_error = _divergence(_count(x, 3), language.triples().ravel())
    return Figures(
        float(nats.mean()),
        float(nats.std(ddof=1) / np.sqrt(len(nats))),
        pairs,
        pairs_error,
        triples,
        triples_error,
    )


def _count(x: np.ndarray, places: int) -> np.ndarray:
    """Counts in each sample how often each category is followed by each other, [N, K^places]."""
    code = np.zeros((len(x), LENGTH - places + 1), np.int64)
    for i in range(places):
        code = code * CATEGORIES + x[:, i : LENGTH - places + 1 + i]
    size = CATEGORIES**places
    counts = np.bincount((np.arange(len(x))[:, None] * size + code).ravel(), minlength=len(x) * size)
    return counts.reshape(len(x), size)


def _divergence(counts: np.ndarray, law: np.ndarray) -> tuple[float, float]:
    """Returns KL of the frequencies from a law, and its standard error by resampling whole samples."""

    def kl(frequencies: np.ndarray) -> np.ndarray:
        p = frequencies / frequencies.sum(axis=-1, keepdims=True)
        ratio = np.where(p > 0, p / law, 1.0)
        return np.sum(p * np.log(ratio), axis=-1)

    rng = np.random.default_rng(0)
    weights = rng.multinomial(len(counts), np.full(len(counts), 1 / len(counts)), RESAMPLES)
    resampled = weights.astype(np.float64) @ counts
    return float(kl(counts.sum(axis=0))), float(kl(resampled).std(ddof=1))
