"""What rounding of float32 does to a place that is unmasked over many rows, by how its law is drawn.

A vocabulary has n groups; group g has 2^g categories, and all groups are as likely: about Zipf's law. A place
is masked, and the belief stays what it is, so that whatever the number of rows the category that it becomes
should follow the belief. alpha_bar falls evenly: the row from t to t - 1 unmasks with probability 1 / t.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

GRID = 2**23  # values of a float32 uniform of JAX


class Drawn(NamedTuple):
    """Says what a way of drawing makes of the belief."""

    entropy: float  # of what is drawn, nats
    nats: float  # mean -log of the belief at what is drawn
    rarest: float  # the share of the rarest group


class Vocabulary(NamedTuple):
    """Holds the belief: how many categories a group has, all groups as likely."""

    groups: int

    @property
    def sizes(self) -> np.ndarray:
        """Returns the number of categories of each group, [n]."""
        return 2 ** np.arange(self.groups)

    @property
    def p(self) -> np.ndarray:
        """Returns the probability of each category, [K]."""
        return np.repeat(1 / (self.groups * self.sizes), self.sizes)


def summarize(vocabulary: Vocabulary, law: np.ndarray) -> Drawn:
    """Returns the figures of a law over all categories."""
    held = law > 0
    entropy = -np.sum(law[held] * np.log(law[held]))
    nats = -np.sum(law * np.log(vocabulary.p))
    return Drawn(float(entropy), float(nats), float(law[-vocabulary.sizes[-1] :].sum()))


def law_of_inverse_cdf(vocabulary: Vocabulary, rows: int) -> np.ndarray:
    """Returns the law [K] of drawing x_s from its law by the inverse cdf of a float32 uniform, by counting.

    A category has the grid points that lie between the ends of its interval; those of the mask come last.
    """
    law = np.zeros(len(vocabulary.p))
    still_masked = 1.0
    ends = np.cumsum(vocabulary.p)
    for t in range(rows, 0, -1):
        points = np.diff(np.ceil(ends / t * GRID), prepend=0.0) / GRID
        if t == 1:
            points /= points.sum()
        law += still_masked * points
        still_masked *= 1 - points.sum()
    return law


def law_of_x0_and_coin(vocabulary: Vocabulary) -> np.ndarray:
    """Returns the law [K] of drawing x_0 by the inverse cdf of a float32 uniform: a coin changes nothing."""
    return np.diff(np.ceil(np.cumsum(vocabulary.p) * GRID), prepend=0.0) / GRID


def draw_by_gumbel(vocabulary: Vocabulary, rows: int, places: int, seed: int = 0) -> np.ndarray:
    """Counts groups [n] of what places become where each row takes argmax(log p + Gumbel) in float32.

    The largest of m uniforms on a grid of n points is below point j with probability (j / n)^m, so that the
    largest Gumbel of a group is drawn at once; what float32 makes of it is kept.
    """
    rng = np.random.default_rng(seed)
    counts = np.zeros(vocabulary.groups + 1, np.int64)
    masked = places
    for t in range(rows, 0, -1):
        winners = draw_row_by_gumbel(rng, vocabulary, t, masked)
        counts[:-1] += np.bincount(winners, minlength=len(counts))[:-1]
        masked = int(np.sum(winners == vocabulary.groups))
    return counts[:-1]


def draw_row_by_gumbel(rng: np.random.Generator, vocabulary: Vocabulary, t: int, places: int) -> np.ndarray:
    """Returns the group, or n of the mask, that each of masked places becomes in a row, [places]."""
    log_mask = np.log1p(-1 / t) if t > 1 else -np.inf
    log_law = np.append(-np.log(vocabulary.groups * vocabulary.sizes * t), log_mask).astype(np.float32)
    sizes = np.append(vocabulary.sizes, 1)
    u = rng.random((places, len(sizes)))
    points = np.ceil(GRID * u ** (1 / sizes)) - 1  # the largest of each group
    return np.argmax(log_law + gumbel_of_points(np.maximum(points, 0)), axis=1)


def gumbel_of_points(points: np.ndarray) -> np.ndarray:
    """-log(-log u) in float32, u = j / 2^23 or the smallest normal number, as `jax.random.gumbel` has it."""
    tiny = np.finfo(np.float32).tiny
    u = np.maximum((points / GRID).astype(np.float32), tiny)
    return -np.log(-np.log(u))


def count_first_row(vocabulary: Vocabulary, rows: int, places: int) -> tuple[np.ndarray, np.ndarray]:
    """Counts groups, the mask last, after the first row: by `jax.random.categorical`, and by groups."""
    log_law = np.log(np.append(vocabulary.p / rows, 1 - 1 / rows)).astype(np.float32)
    draw = jax.jit(lambda key: jax.random.categorical(key, jnp.asarray(log_law), shape=(100,)))
    keys = jax.random.split(jax.random.key(0), places // 100)
    categories = np.concatenate([np.asarray(draw(key)) for key in keys])
    group_of = np.append(np.repeat(np.arange(vocabulary.groups), vocabulary.sizes), vocabulary.groups)
    by_jax = np.bincount(group_of[categories], minlength=vocabulary.groups + 1)
    by_groups = np.bincount(
        draw_row_by_gumbel(np.random.default_rng(0), vocabulary, rows, places),
        minlength=vocabulary.groups + 1,
    )
    return by_jax, by_groups
