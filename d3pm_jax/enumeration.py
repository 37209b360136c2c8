"""Enumerates laws of small examples: what a chain, or an order and a network that fills in, can draw.

A law is log p of each of the K^D examples, in the order of `list_examples`.
"""

import math
from collections.abc import Callable
from typing import Annotated

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from d3pm_jax import numerics
from d3pm_jax.beliefs import Belief
from d3pm_jax.checks import (
    CATEGORIES,
    INDEX,
    LOG_PROBABILITY,
    SCORES,
    Called,
    Categories,
    at_least,
    check_range,
    declared,
    is_known,
)
from d3pm_jax.posteriors import p_logits
from d3pm_jax.processes.base import Process
from d3pm_jax.projection import all_logits
from d3pm_jax.sampling import CURE_OF_LOGITS, Network, check_agrees

MOST_EXAMPLES = 2_000_000
MOST_STATES = 4096
MOST_STEPS = 100
MOST_INPUTS = 1024  # in one call of a network
MOST_LOGITS = 2**20

SIZES = at_least(0, 2**31 - 1)
# A network that sees no time, called with any number of examples. It may have logits of a mask too.
FillInMany = Annotated[Callable[[Int[Array, " N *S"]], Float[Array, " N *S C"]], Called("xt", CURE_OF_LOGITS)]


@declared(shape=SIZES)
def list_examples(shape: tuple[int, ...], K: Categories) -> Int[np.ndarray, " N *S"]:
    """Returns all K^D examples in the order of their flat index: the first element changes slowest.

    Args:
        shape: *S of an example.
        K: the number of categories.

    Returns:
        int32 [K^D, *S], on the host.

    Raises:
        ValueError: there are more than 2 million.
    """
    D = _count_places(shape, K, "examples", MOST_EXAMPLES)
    return _list_examples(D, K).reshape(K**D, *shape)


@declared(shape=SIZES, mask_id=INDEX)
def fill_in_law(
    fill_in: FillInMany, shape: tuple[int, ...], K: Categories, mask_id: int
) -> Float[np.ndarray, " N"]:
    """log p(x_0) of drawing an order of the elements and filling in one after the other, of all x_0.

    It is the mixture over all orders, `-orders.all_orders`, of every example at once: all (K + 1)^D partial
    examples are visited. A partial example is reached from each with an element less,

        p(reach y) = sum over visible i of p(reach y without i) p(y_i | y without i) / (hidden elements + 1).

    Args:
        fill_in: the network, x_t int32 [N, *S] with masks -> logits of x_0 [N, *S, K or more]. It is compiled
            once, for one N.
        shape: *S of an example.
        K: the number of categories that x_0 can take, 0..K - 1.
        mask_id: which category the mask is; it may be K.

    Returns:
        Nats in float64, on the host, [K^D]. They sum to 1 if the network leaves nothing for a category that
        x_0 cannot take, such as a mask among its logits.

    Raises:
        ValueError: there are more than 2 million partial examples, or the logits are too few, or NaN.
        TypeError: it is called under `jit`.
    """
    D = _count_places(shape, K + 1, "partial examples", MOST_EXAMPLES)
    states = _list_examples(D, K + 1)  # [(K + 1)^D, D], where K is a hidden element
    num_hidden = np.sum(states == K, axis=1)
    # How far apart states are in this list that differ by 1 in an element.
    strides = (K + 1) ** np.arange(D - 1, -1, -1)
    network = jax.jit(fill_in)
    batch = min(MOST_INPUTS, max(MOST_LOGITS // (max(D, 1) * K), 1), len(states))

    log_reach = np.full(len(states), -np.inf)
    log_reach[-1] = 0.0  # all hidden
    for h in range(D, 0, -1):
        level = np.flatnonzero(num_hidden == h)
        for start in range(0, len(level), batch):
            rows = level[start : start + batch]  # [n]
            xt = np.where(states[rows] == K, mask_id, states[rows]).astype(np.int32)  # [n, D]
            # The last batch is filled up with what it begins with, so that one program serves them all.
            logits = network(jnp.asarray(np.resize(xt, (batch, *shape))))
            if not is_known(logits):
                raise TypeError("fill_in(xt) is traced by jit: call fill_in_law outside of it")
            if logits.shape[-1] < K:
                raise ValueError(f"fill_in(xt) has shape {logits.shape}, and K = {K}: {CURE_OF_LOGITS}")
            by_place = np.asarray(logits, np.float64).reshape(batch, D, -1)[: len(rows)]
            for place in range(D):
                is_hidden = states[rows, place] == K
                log_p = _normalize(by_place[is_hidden, place])[:, :K]  # [m, K]
                before = rows[is_hidden][:, None]
                # No two of these are one state, so that each is added to once.
                after = before + (np.arange(K) - K) * strides[place]  # [m, K]
                log_arriving = log_reach[before] + log_p - math.log(h)
                log_reach[after] = np.logaddexp(log_reach[after], log_arriving)
    return log_reach[num_hidden == 0]


def _normalize(logits: np.ndarray) -> np.ndarray:
    """Does on the host what `numerics.log_normalize` does."""
    check_range("fill_in(xt)", logits, SCORES, {})
    total = np.logaddexp.reduce(logits, axis=-1, keepdims=True)
    return logits - np.where(total == -np.inf, 0.0, total)


@declared(shape=SIZES)
def chain_law(
    denoise: Network, process: Process, shape: tuple[int, ...], belief: Belief = "d3pm"
) -> Float[Array, " N"]:
    """log p(x_0) of ancestral sampling in T steps, of all x_0: the prior times T matrices of all states.

    Args:
        denoise: the network, (xt, process.time[t]) -> logits of x_0. One that was trained on times in
            [0, 1] stands in a `sampling.Denoiser(.., time="unit")`.
        process: the forward process; one with fewer steps has another law.
        shape: *S of an example.
        belief: what the logits of x_0 are (see `beliefs`). Of a `Denoiser` pass its own.

    Returns:
        Nats in the widest float type that JAX has, [K^D] with the K of the process, a mask included.

    Raises:
        ValueError: K^D is above 4,096 or T above 100; `denoise` is a `sampling.Denoiser` of another belief,
            K or last step.
    """
    check_agrees(denoise, process, belief, p_logits)
    if process.T > MOST_STEPS:
        raise ValueError(
            f"process.T = {process.T} is above {MOST_STEPS}: pass a process of fewer steps, such as "
            f"processes.respace(process, grid), or estimate by likelihood.trajectory_log_weight"
        )
    D = _count_places(shape, process.K, "states", MOST_STATES)
    states = jnp.asarray(list_examples(shape, process.K))  # [N, *S]

    def step_back(log_law: Array, t: Array) -> tuple[Array, None]:
        ts = jnp.full(len(states), t)
        logits = all_logits(denoise(states, process.time[ts]))  # [N, *S, K]
        log_p = p_logits(process, logits, states, ts, belief).reshape(len(states), D, process.K)
        # What a state says that cannot be reached counts for nothing, whatever it is.
        log_p = jnp.where(log_law[:, None, None] == -jnp.inf, 0.0, log_p.astype(log_law.dtype))
        # Of the matrix of all states only its two factors are kept: examples are pairs of their halves.
        log_first = log_law[:, None] + _join_places(log_p[:, : D // 2])
        log_second = _join_places(log_p[:, D // 2 :])
        return numerics.log_sum(log_first.T[:, None] + log_second.T[None]).reshape(-1), None

    prior = jnp.broadcast_to(process.log_prior(), (*shape, process.K)).reshape(D, process.K)
    steps = jnp.arange(process.T, 0, -1, dtype=jnp.int32)
    log_law, _ = jax.lax.scan(step_back, _join_places(prior.astype(float)), steps)
    return log_law


@declared(log_law=LOG_PROBABILITY, x0=CATEGORIES)
def conditional(
    log_law: Float[Array, " N"], x0: Int[Array, " B *S"], given: Bool[Array, " B *S"], K: Categories
) -> Float[Array, " B"]:
    """-log p(the rest of x_0 | what is given), by Bayes' rule in a law: log p(the given) - log p(x_0).

    Args:
        log_law: log p of all K^D examples, in the order of `list_examples`.
        x0: examples.
        given: which of their elements are given.
        K: the number of categories of the law.

    Returns:
        Nats per example; +inf where the law never draws it.

    Raises:
        ValueError: the law has not K^D entries.
    """
    D = math.prod(x0.shape[1:])
    # K^D may have very many digits, which are more than any law has.
    if len(log_law) != K ** min(D, 64):
        raise ValueError(f"log_law has shape {log_law.shape}, expected K^D = {K}^{D} entries, as in x0 and K")
    examples = jnp.asarray(_list_examples(D, K))  # [N, D]

    def nats_of(example: Array, is_given: Array) -> Array:
        is_equal = examples == example[None]  # [N, D]
        agrees = jnp.all(is_equal | ~is_given[None], axis=-1)  # [N]
        is_whole = jnp.all(is_equal, axis=-1)
        log_given = numerics.log_sum(jnp.where(agrees, log_law, -jnp.inf))
        log_whole = numerics.log_sum(jnp.where(is_whole, log_law, -jnp.inf))
        is_never = log_whole == -jnp.inf
        return jnp.where(is_never, jnp.inf, log_given - jnp.where(is_never, 0.0, log_whole))

    flat = (len(x0), D)
    return jax.lax.map(lambda pair: nats_of(*pair), (x0.reshape(flat), given.reshape(flat)))


def _count_places(shape: tuple[int, ...], K: int, what: str, most: int) -> int:
    """Returns D. Raises ValueError where K^D is above what can be enumerated."""
    D = math.prod(shape)
    if K ** min(D, 64) > most:
        raise ValueError(
            f"shape = {shape} has {K}^{D} {what}, more than {most:,}: take fewer elements, or estimate the "
            f"likelihood of single examples (d3pm_jax.orders, d3pm_jax.likelihood)"
        )
    return D


def _list_examples(D: int, K: int) -> np.ndarray:
    """Returns all examples of D elements, int32 [K^D, D]."""
    return np.indices((K,) * D, np.int32).reshape(D, K**D).T


def _join_places(log_p: Array) -> Array:
    """Returns the log-probabilities of all examples, [.., K^D], from those of each place, [.., D, K]."""
    lead = log_p.shape[:-2]
    joint = jnp.zeros((*lead, 1), log_p.dtype)
    for d in range(log_p.shape[-2]):
        joint = (joint[..., None] + log_p[..., d, None, :]).reshape(*lead, -1)
    return joint
