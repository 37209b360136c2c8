"""Measures what a forward process does to one element: how much of x_0 each step leaves."""

import bisect
import math
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
import scipy
from jaxtyping import Array

from d3pm_jax.processes import Process

ENTRIES = 2**20  # of the largest array of probabilities


class Effect(NamedTuple):
    """Holds the effect of t steps on one element with uniform p(x_0)."""

    unchanged: float  # q(x_t = x_0 | x_0), the mean diagonal of Qbar[t]: alpha_bar_t for an extra mask
    lost: float  # H(x_0 | x_t) / H(x_0): the part of the information I(x_t; x_0) that is gone


def spread_categories(K: int, levels: int) -> Array:
    """Returns the categories of an element, int32: 0..levels - 1, or fewer of them for a very large K.

    Fewer, evenly spread, where the probabilities of all of them would be more than ENTRIES numbers.

    Raises:
        ValueError: levels are not in 2..K.
    """
    if not 2 <= levels <= K:
        raise ValueError(f"levels = {levels}: data of a process with K = {K} has 2..{K} categories")
    n = min(levels, max(2, ENTRIES // K))
    categories = np.linspace(0, levels - 1, n)
    return jnp.asarray(categories.round(), jnp.int32)


def compute_effect(process: Process, x0: Array, t: int) -> Effect:
    """Computes the effect of steps 1..t.

    Args:
        process: the forward process.
        x0: [N], the categories that the element may be, at least 2.
        t: a step 0..T.
    """
    N = len(x0)
    log_q = process.log_q_probs(x0, jnp.asarray(t, jnp.int32))
    q = np.exp(np.asarray(log_q, np.float64))  # q(x_t | x_0), [N, K]
    p_xt = q.mean(0)  # [K]
    posterior = q / np.where(p_xt > 0, p_xt * N, 1.0)  # p(x_0 | x_t), [N, K]
    entropy = scipy.special.entr(posterior).sum(0) @ p_xt  # H(x_0 | x_t)
    unchanged = q[np.arange(N), x0].mean()
    return Effect(float(unchanged), float(entropy / math.log(N)))


def cross_entropy_weight(before: Effect, after: Effect) -> float:
    """(I(x_{t-1}; x_0) - I(x_t; x_0)) / H(x_0 | x_t): nats of the bound at t per nat of cross entropy.

    Both for the ideal network of one element with uniform p(x_0). For an absorbing process it is the weight
    (alpha_bar_{t-1} - alpha_bar_t) / (1 - alpha_bar_t) of the cross entropy of a masked element. NaN where
    x_t is certain of x_0.
    """
    if not after.lost > 0:
        return math.nan
    return (after.lost - before.lost) / after.lost


def find_half_life(process: Process, x0: Array) -> int | None:
    """Finds the t at which the information left is nearest to a half; None if more than that is left at T."""

    def lost(t: int) -> float:
        return compute_effect(process, x0, t).lost

    # What is lost grows with t, so the first t with a half or more is found by halving.
    t = bisect.bisect_left(range(process.T + 1), 0.5, key=lost)
    if t > process.T:
        return None
    return min((t - 1, t), key=lambda t: abs(lost(t) - 0.5))
