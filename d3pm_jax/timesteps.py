"""Chooses which steps to train on: from uniform noise to t in 1..T."""

from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from d3pm_jax.checks import (
    NOISE,
    NUM_STEPS,
    POSITIVE,
    SHARE,
    at_least,
    check_range,
    declared,
    is_known,
    promote_types,
    steps,
)
from d3pm_jax.numerics import inverse_cdf
from d3pm_jax.numerics.logspace import at_least_float32


@declared(u=NOISE, T=NUM_STEPS)
def uniform(u: Float[Array, " B"], T: int) -> Int[Array, " B"]:
    """t = floor(u T) + 1: independent uniform steps.

    Args:
        u: uniform noise in [0, 1), one per example.
        T: number of steps, below 2^23 (the grid of a float32 uniform).

    Returns:
        int32 in 1..T.
    """
    # u T can round up to T. The remainder then gives T % T + 1 = 1, step 1.
    return jnp.floor(at_least_float32(u) * T).astype(jnp.int32) % T + 1


@declared(u=NOISE, B=at_least(1, 2**24), T=NUM_STEPS)
def low_discrepancy(u: Float[Array, ""], B: int, T: int) -> Int[Array, " B"]:
    """Spreads steps evenly over 1..T by one shared offset: t_i = floor(((u + i / B) mod 1) T) + 1.

    Each t_i alone is uniform, so the mean loss is unbiased; together they cover 1..T, so it varies less
    (Kingma et al. 2021, appendix I.1).

    Args:
        u: one uniform in [0, 1).
        B: batch size.
        T: number of steps.

    Returns:
        int32 [B] in 1..T.
    """
    return uniform((u + jnp.arange(B) / B) % 1.0, T)


@declared(u=NOISE, B=at_least(1, 2**24))
def antithetic(u: Float[Array, ""], B: int) -> Float[Array, " B"]:
    """Spreads real times evenly over (0, 1] by one shared offset: time_i = 1 - ((u + i / B) mod 1).

    `low_discrepancy` in continuous time (Kingma et al. 2021, appendix I.1): each time alone is uniform.

    Args:
        u: one uniform in [0, 1).
        B: batch size.

    Returns:
        [B] in (0, 1].
    """
    return 1.0 - (u + jnp.arange(B) / B) % 1.0


@declared(u=NOISE, T=NUM_STEPS)
def stratified(u: Float[Array, "n B"], T: int) -> tuple[Int[Array, "n B"], Int[Array, " n"]]:
    """Draws a t in each of n strata of 1..T: t_j = a_j + floor(u_j size_j) + 1, a_j = floor((j - 1) T / n).

    Args:
        u: uniform noise in [0, 1).
        T: number of steps, at least n; n need not divide it.

    Returns:
        t int32 in 1..T, and the sizes of the strata, which differ by at most 1.

    Raises:
        ValueError: n is above T.
    """
    n = u.shape[0]
    if n > T:
        raise ValueError(f"{n} strata of T = {T} steps: use at most {T}")
    ends = np.arange(n + 1) * T // n
    first = jnp.asarray(ends[:-1], jnp.int32)  # [n]
    size = jnp.asarray(np.diff(ends), jnp.int32)  # [n]
    # u size can round up to size, so the minimum below.
    wide_u = at_least_float32(u)  # 16 bits do not count so far
    inside = jnp.floor(wide_u * size[:, None].astype(wide_u.dtype)).astype(jnp.int32)  # [n, B]
    return first[:, None] + jnp.minimum(inside, size[:, None] - 1) + 1, size


class StepNoise(NamedTuple):
    """Holds the random numbers of a step, but for those of dropout.

    They are arrays of JAX, or of NumPy where they were drawn in advance.
    """

    t: Any  # int32 [B] in 1..T, or in continuous time float32 [B] in (0, T]
    p_t: Any  # [B]  the probability of each t
    u: Any  # [B, *S]  uniform in [0, 1), from which x_t is drawn


class LossHistory(NamedTuple):
    """Holds what `probabilities` knows of each step; entry t - 1 belongs to step t.

    What takes a history checks it, as pytrees are also made of what is no array.
    """

    mean_square: Float[Array, " T"]  # running mean of kl^2, kl the summed nats of an example
    counts: Int[Array, " T"]  # examples seen

    @property
    def T(self) -> int:
        """Counts the steps."""
        return np.size(self.counts)


def _check_known_entries(history: LossHistory) -> None:
    """Raises ValueError for an entry below 0, or NaN, where it can be read: a program has no marks for it."""
    for name, array in history._asdict().items():
        if is_known(array):
            check_range(f"{name} of history", array, at_least(0), {})


@declared(T=NUM_STEPS)
def empty_history(T: int) -> LossHistory:
    """Returns the history before the first batch."""
    return LossHistory(jnp.zeros(T), jnp.zeros(T, jnp.int32))


@declared(least_count=at_least(0, 2**31 - 1), inner=POSITIVE, outer=at_least(0))
def probabilities(
    history: LossHistory, least_count: int = 10, inner: float = 1e-10, outer: float = 1e-4
) -> Float[Array, " T"]:
    """Makes p_t proportional to sqrt(mean_square_t + inner) + outer, which varies least, once it is known.

    The rule of Multinomial Diffusion (Hoogeboom et al. 2021; Nichol and Dhariwal 2021): step 1
    is as likely as step 2, and all are equally likely until each has been seen more than least_count times.

    Args:
        history: of the steps so far.
        least_count: examples of every step that are not enough.
        inner, outer: keep a step with a small loss from never being drawn again.

    Returns:
        Probabilities of t = 1..T.

    Raises:
        TypeError, ValueError: the history is none: its arrays differ in length, or hold NaN.
    """
    _check_known_entries(history)
    weight = jnp.sqrt(history.mean_square + inner) + outer
    if weight.size > 1:
        # As in the reference, which writes the weight of step 2 over that of the decoder term, step 1.
        weight = jnp.concatenate([weight[1:2], weight[1:]])
    all_seen = jnp.all(history.counts > least_count)
    return jnp.where(all_seen, weight / jnp.sum(weight), 1.0 / weight.size)


@declared(u=NOISE, p=SHARE)
def importance(u: Float[Array, " B"], p: Float[Array, " T"]) -> tuple[Int[Array, " B"], Float[Array, " B"]]:
    """Draws the first t with p_1 + ... + p_t > u, by `numerics.categorical`, and gives its p_t.

    The mean of loss_t / p_t is unbiased for the sum of the losses of all t.

    Args:
        u: uniform noise in [0, 1), one per example.
        p: probabilities of t = 1..T.

    Returns:
        (t, p_t), t int32 in 1..T; -1 and NaN where all p are 0 and only the program knows it.

    Raises:
        ValueError: all p are 0, or their sum is not 1 up to rounding.
    """
    if is_known(p):
        total = np.asarray(p, np.float64).sum()
        if total == 0:
            raise ValueError(f"p holds {p.size} probabilities that are all 0: one of them must be above 0")
        # Types of 16 bits have such roundings.
        if abs(total - 1) > 0.01:
            raise ValueError(f"p has the sum {total:g}: divide it by that, so that it is 1")
    log_p = jnp.broadcast_to(jnp.log(p), (*u.shape, p.size))  # [B, T]: the same row for every example
    index = inverse_cdf.categorical(log_p, u)  # t - 1
    is_drawn = index >= 0
    return jnp.where(is_drawn, index + 1, -1), jnp.where(is_drawn, p[index], jnp.nan)


@declared(t=steps(1), decay=SHARE)
def update(
    history: LossHistory, t: Int[Array, " B"], kl: Float[Array, " B"], decay: float = 0.9
) -> LossHistory:
    """mean_square_t <- decay mean_square_t + (1 - decay) kl^2, and counts, for the t of a batch.

    Several examples of one t count by the mean of their kl^2, so their order does not matter; the reference
    keeps an arbitrary one of them.

    Args:
        history: of the steps so far.
        t: steps 1..T.
        kl: the term of the bound of each example, in nats, summed over its elements; one that is not finite
            is passed over.
        decay: of what is old.

    Returns:
        The next history.

    Raises:
        TypeError, ValueError: the history is none: its arrays differ in length, or hold NaN.
    """
    _check_known_entries(history)
    # float16 has no squares above 65504.
    kl = kl.astype(promote_types(kl.dtype, history.mean_square.dtype))
    # A table [B, T] of which example counts for which step. Its sums are added up in one order, where a
    # scatter on an accelerator would add in any.
    of_step = (t[:, None] == jnp.arange(1, history.T + 1, dtype=jnp.int32)[None]) & jnp.isfinite(kl)[:, None]
    seen = jnp.sum(of_step, axis=0, dtype=jnp.int32)  # [T]
    total = jnp.sum(jnp.where(of_step, jnp.square(kl)[:, None], 0.0), axis=0)  # [T]
    mean_square = history.mean_square.astype(total.dtype)
    moved = decay * mean_square + (1 - decay) * (total / jnp.maximum(seen, 1).astype(total.dtype))
    return LossHistory(jnp.where(seen > 0, moved, mean_square), history.counts + seen)
