"""Computes the variational bound on -log p(x_0), at all or at some of its steps, and converts its units.

A bound with fewer steps (strided) is that of `processes.respace(process, grid)`: the functions here take it
as any other process.
"""

import math
from collections.abc import Callable
from typing import Annotated, NamedTuple, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Key

from d3pm_jax import beliefs, numerics, timesteps
from d3pm_jax.checks import (
    CATEGORIES,
    INDEX,
    NOISE,
    PART_OF_STEPS,
    Called,
    at_least,
    declared,
    marked,
)
from d3pm_jax.losses import posterior_kl, prior_kl
from d3pm_jax.numerics.logspace import at_least_float32
from d3pm_jax.posteriors import p_logits, q_sample
from d3pm_jax.processes.base import Process
from d3pm_jax.projection import at_places, by_rows_of
from d3pm_jax.sampling import CURE_OF_LOGITS, Logits, Network, Noise, check_agrees, per_example

# What a step costs, such as `posterior_kl`: of examples, N = B, or of places that a `Projection` makes, N of
# them and no more axes.
Term = Annotated[
    Callable[
        [Process, Float[Array, " N *R K"], Int[Array, " N *R"], Int[Array, " N *R"], Int[Array, " N"]],
        Float[Array, " N *R"],
    ],
    Called("process, logits, x0, xt, t", "return the nats of each element as floats, not their sum"),
]

# A network of an absorbing process that sees no time.
FillIn = Annotated[Callable[[Int[Array, " B *S"]], Logits], Called("xt", CURE_OF_LOGITS)]


class Bound(NamedTuple):
    """Holds the bound in parts, in nats per example, summed over its elements."""

    # Row t - 1 is the term of step t; row 0 is the reconstruction -log p(x_0 | x_1).
    steps: Float[Array, "T B"]
    prior: Float[Array, " B"]  # KL(q(x_T | x_0) || p(x_T))

    def total(self) -> Array:
        """Returns the bound on -log p(x_0), in nats per example, [B]."""
        return jnp.sum(self.steps, axis=0) + self.prior


@declared(x0=CATEGORIES, noise=NOISE, weight=at_least(0))
def all_t_bound(
    denoise: Network,
    process: Process,
    x0: Int[Array, " B *S"],
    noise: Noise,
    term: Term = posterior_kl,
    belief: beliefs.Belief = "d3pm",
    weight: Float[Array, " B *S"] | None = None,
) -> Bound:
    """-log p(x_0) <= prior KL + sum_t KL_t (D3PM eq. 1), every t once, each at one x_t ~ q(x_t | x_0).

    Args:
        denoise: the network, (xt, process.time[t]) -> logits of x_0. One that was trained on times in
            [0, 1] stands in a `sampling.Denoiser(.., time="unit")`.
        process: the forward process.
        x0: examples.
        noise: t -> uniforms [B, *S]; called with each t in 1..T.
        term: what the logits cost at a step: `posterior_kl` for logits of x_0.
        belief: what the logits of x_0 are (see `beliefs`): passed on to `term`. Of a `Denoiser` pass its own.
        weight: of each element, 1 without; 0 on padding, of which `denoise` has to know by itself.

    Returns:
        The parts of the bound; their expectation over the noise is the bound.

    Raises:
        ValueError: `denoise` is a `sampling.Denoiser` of another belief, K or last step.
    """
    check_agrees(denoise, process, belief, term)
    term = beliefs.with_belief(belief, term)

    @marked
    def term_of_step(t: Array) -> Float[Array, " B"]:
        ts = jnp.broadcast_to(t, x0.shape[:1])  # [B]
        xt = q_sample(process, x0, ts, noise(t))  # [B, *S]
        logits = denoise(xt, process.time[ts])  # [B, *S, K]
        return _sum_per_example(by_rows_of(process, logits, term, x0, xt, ts), weight)

    # One step after the other: no more than one t has its logits in memory.
    steps = jax.lax.map(term_of_step, jnp.arange(1, process.T + 1, dtype=jnp.int32))  # [T, B]
    return Bound(steps, _sum_per_example(prior_kl(process, x0), weight))


@declared(x0=CATEGORIES, index=INDEX, weight=at_least(0))
def estimate_bound(
    key: Key[Array, ""],
    denoise: Network,
    process: Process,
    x0: Int[Array, " B *S"],
    index: Int[Array, " B"],
    term: Term = posterior_kl,
    belief: beliefs.Belief = "d3pm",
    weight: Float[Array, " B *S"] | None = None,
) -> Bound:
    """Computes `all_t_bound` with noise that depends on (key, index_b, t) alone.

    Args:
        key: a typed key.
        denoise: the network, (xt, process.time[t]) -> logits of x_0.
        process: the forward process.
        x0: examples.
        index: the number of each example in its data set.
        term: what the logits cost at a step.
        belief: what the logits of x_0 are: of a `Denoiser` its own.
        weight: of each element, 1 without; 0 on padding.

    Returns:
        The parts of the bound.

    Raises:
        ValueError: `denoise` is a `sampling.Denoiser` of another belief, K or last step.
    """
    return all_t_bound(denoise, process, x0, per_example(key, index, x0.shape[1:]), term, belief, weight)


@declared(x0=CATEGORIES, u=NOISE, noise=NOISE, weight=at_least(0))
def strata_bound(
    denoise: Network,
    process: Process,
    x0: Int[Array, " B *S"],
    u: Float[Array, "n B"],
    noise: Noise,
    term: Term = posterior_kl,
    belief: beliefs.Belief = "d3pm",
    weight: Float[Array, " B *S"] | None = None,
) -> Float[Array, " B"]:
    """prior KL + sum over n strata of 1..T of (its size) KL_t, at one t in each (`timesteps.stratified`).

    n network calls in place of T. Unbiased for the total of `all_t_bound`; the terms vary smoothly with t,
    so it varies much less than n independent t would.

    Args:
        denoise: the network, (xt, process.time[t]) -> logits of x_0.
        process: the forward process.
        x0: examples.
        u: uniform noise in [0, 1), for t.
        noise: j -> uniforms [B, *S] for x_t, called with the strata j = 1..n.
        term: what the logits cost at a step.
        belief: what the logits of x_0 are: of a `Denoiser` its own.
        weight: of each element, 1 without; 0 on padding.

    Returns:
        Nats per example. The examples are independent, so the standard error of their mean (`mean_and_se`)
        covers the choice of examples, of t and of x_t.

    Raises:
        ValueError: `denoise` is a `sampling.Denoiser` of another belief, K or last step.
    """
    check_agrees(denoise, process, belief, term)
    term = beliefs.with_belief(belief, term)
    t, sizes = timesteps.stratified(u, process.T)  # [n, B] and [n]

    @marked
    def term_of_stratum(j: Array) -> Float[Array, " B"]:
        ts = t[j]  # [B]
        xt = q_sample(process, x0, ts, noise(j + 1))  # [B, *S]
        logits = denoise(xt, process.time[ts])  # [B, *S, K]
        nats = _sum_per_example(by_rows_of(process, logits, term, x0, xt, ts), weight)  # [B]
        # One t stands for all steps of its stratum.
        return sizes[j].astype(nats.dtype) * nats

    terms = jax.lax.map(term_of_stratum, jnp.arange(u.shape[0], dtype=jnp.int32))  # [n, B]
    return jnp.sum(terms, axis=0) + _sum_per_example(prior_kl(process, x0), weight)


@declared(x0=CATEGORIES, index=INDEX, n=PART_OF_STEPS, weight=at_least(0))
def stratified_bound(
    key: Key[Array, ""],
    denoise: Network,
    process: Process,
    x0: Int[Array, " B *S"],
    index: Int[Array, " B"],
    n: int,
    term: Term = posterior_kl,
    belief: beliefs.Belief = "d3pm",
    weight: Float[Array, " B *S"] | None = None,
) -> Float[Array, " B"]:
    """Computes `strata_bound` with noise that depends on (key, index_b) and n alone.

    Args:
        key: a typed key.
        denoise: the network, (xt, process.time[t]) -> logits of x_0.
        process: the forward process.
        x0: examples.
        index: the number of each example in its data set.
        n: how many strata, 1..T.
        term: what the logits cost at a step.
        belief: what the logits of x_0 are: of a `Denoiser` its own.
        weight: of each element, 1 without; 0 on padding.

    Returns:
        Nats per example.

    Raises:
        ValueError: `denoise` is a `sampling.Denoiser` of another belief, K or last step.
    """
    key_t, key_q = jax.random.split(key)
    u = per_example(key_t, index, (n,))(jnp.asarray(0, jnp.int32))  # [B, n]
    noise = per_example(key_q, index, x0.shape[1:])
    return strata_bound(denoise, process, x0, u.T, noise, term, belief, weight)


@declared(x0=CATEGORIES, order=NOISE, mask_id=INDEX)
def chain_rule(
    fill_in: FillIn,
    x0: Int[Array, " B *S"],
    order: Float[Array, " B *S"],
    mask_id: int,
) -> Float[Array, " B *S"]:
    """-log p(x_i | the elements before i), elements from the lowest entry of `order` to the highest.

    The exact likelihood of filling in one element after the other with the network of an absorbing process
    that sees no time. From left to right for increasing entries; the mean over random orders is the bound in
    continuous time (Hoogeboom et al. 2022, arXiv 2110.02037).

    Args:
        fill_in: the network, x_t int32 [B, *S] with masks -> logits of x_0 [B, *S, K]; it is called once for
            each element.
        x0: examples.
        order: in [0, 1): uniform noise for random orders, rising numbers for one from left to right. Of equal
            numbers the first comes first.
        mask_id: which category the mask is.

    Returns:
        Nats of each element, in float32 or wider; their sum is -log p(x_0) in this order.
    """
    if x0.size == 0:
        return at_least_float32(jnp.zeros(x0.shape, order.dtype))
    flat = x0.reshape(len(x0), -1)  # [B, D]
    # places[b, i] is the i-th element to be filled in, and rank[b, d] says as which the element d is.
    places = jnp.argsort(order.reshape(flat.shape), axis=1)  # [B, D]
    rank = jnp.argsort(places, axis=1).astype(jnp.int32)  # [B, D]

    def cost_of_next(i: Array) -> Array:
        xt = jnp.where(rank < i, flat, mask_id).reshape(x0.shape)
        place = places[:, i, None]  # [B, 1]
        logits_at_place = at_places(fill_in(xt), place)  # [B, 1, K]
        x0_at_place = jnp.take_along_axis(flat, place, axis=1)  # [B, 1]
        return -numerics.log_prob(at_least_float32(logits_at_place), x0_at_place)[:, 0]

    costs = jax.lax.map(cost_of_next, jnp.arange(flat.shape[1], dtype=jnp.int32))  # [D, B], in their order
    return jnp.take_along_axis(costs.T, rank, axis=1).reshape(x0.shape)


@declared(x0=CATEGORIES, noise=NOISE)
def trajectory_log_weight(
    denoise: Network,
    process: Process,
    x0: Int[Array, " B *S"],
    noise: Noise,
    belief: beliefs.Belief = "d3pm",
) -> Float[Array, " B"]:
    """log p(x_0, .., x_T) - log q(x_1, .., x_T | x_0) of one path x_1, .., x_T ~ q(. | x_0).

    The mean of its exponential over paths is p(x_0), the law of ancestral sampling in T steps. Minus its own
    mean is the bound of `all_t_bound`, and `orders.mixture` of several, negated, is a bound that falls to
    -log p(x_0) with their number, as the IWBO of a variational autoencoder does (arXiv 1509.00519). A chain
    under the belief "official" may end in x_0 by an x_1 that q never takes from there; then the mean is less
    than p(x_0) by these paths.

    Args:
        denoise: the network, (xt, process.time[t]) -> logits of x_0. One that was trained on times in
            [0, 1] stands in a `sampling.Denoiser(.., time="unit")`.
        process: the forward process.
        x0: examples.
        noise: t -> uniforms [B, *S]; called with each t in 1..T, for x_t given x_{t-1}.
        belief: what the logits of x_0 are (see `beliefs`). Of a `Denoiser` pass its own.

    Returns:
        Nats per example; -inf for a path that the chain cannot take.

    Raises:
        ValueError: `denoise` is a `sampling.Denoiser` of another belief, K or last step.
    """
    check_agrees(denoise, process, belief, p_logits)

    def log_ratio(process: Process, logits: Array, xt: Array, x_prev: Array, t: Array) -> Array:
        log_p = _at_category(p_logits(process, logits, xt, t, belief), x_prev)
        return log_p - _at_category(process.log_q_back(xt, t), x_prev)

    @marked
    def step_forward(x_prev: Array, t: Array) -> tuple[Int[Array, " B *S"], Float[Array, " B"]]:
        ts = jnp.broadcast_to(t, x0.shape[:1])  # [B]
        xt = process.draw_step(x_prev, ts, noise(t))  # [B, *S]
        logits = denoise(xt, process.time[ts])  # [B, *S, K]
        return xt, _sum_per_example(by_rows_of(process, logits, log_ratio, xt, x_prev, ts), None)

    steps = jnp.arange(1, process.T + 1, dtype=jnp.int32)
    xT, log_ratios = jax.lax.scan(step_forward, x0, steps)  # [B, *S] and [T, B]
    log_prior = process.log_prior()
    if log_prior.ndim == 1:
        log_p = jnp.take(log_prior, xT)
    else:
        # Each place has its own, [*S, K].
        log_p = _at_category(jnp.broadcast_to(log_prior, (*x0.shape, process.K)), xT)
    return jnp.sum(log_ratios, axis=0) + _sum_per_example(log_p, None)


@declared()
def mean_and_se(x: Float[Array, " N"]) -> tuple[Float[Array, ""], Float[Array, ""]]:
    """Returns the mean of independent values and its standard error sqrt(sum (x - mean)^2 / (N - 1) / N).

    Args:
        x: for example nats per example.

    Returns:
        (mean, standard error).

    Raises:
        ValueError: N is below 2.
    """
    if x.size < 2:
        raise ValueError(f"x has N = {x.size}: a standard error needs at least 2 values")
    return jnp.mean(x), jnp.std(x, ddof=1) / math.sqrt(x.size)


Nats = TypeVar("Nats", Array, np.ndarray, float)


@declared(D=at_least(1))
def bits_per_dim(nats: Nats, D: int) -> Nats:
    """nats / (D ln 2): the one place where units change.

    Args:
        nats: of whole examples, any shape.
        D: the number of elements in an example.
    """
    return nats / (D * math.log(2.0))


def _at_category(log_p: Array, x: Array) -> Array:
    """Returns the entry of each row [*S, K] that belongs to the category of x [*S]."""
    return jnp.take_along_axis(log_p, x[..., None], axis=-1)[..., 0]


def _sum_per_example(x: Array, weight: Array | None) -> Array:
    """Sums weight x over the elements of each example; where the weight is 0 it counts 0, whatever x is."""
    if weight is not None:
        # Padding may have an infinite cost, and 0 inf is NaN.
        x = jnp.where(weight > 0, weight * x, 0.0)
    return jnp.sum(x.reshape(x.shape[0], math.prod(x.shape[1:])), axis=1)
