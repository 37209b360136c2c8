"""Makes orders of elements, and one likelihood of the likelihoods that a network has in many orders.

A network that fills in masks has an exact likelihood for each order of the elements, `likelihood.chain_rule`.
Whoever draws an order and fills in by it draws from the mixture of these laws, which is at least as likely as
they are on average: -log mean exp(-nats) <= mean nats.

An order is a number in [0, 1) for each element, lowest first.
"""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from d3pm_jax import numerics
from d3pm_jax.checks import CATEGORIES, INDEX, NOISE, declared
from d3pm_jax.likelihood import FillIn
from d3pm_jax.numerics.logspace import at_least_float32
from d3pm_jax.projection import by_rows
from d3pm_jax.sampling.steering import effective_size

MOST_PLACES = 16  # all_orders keeps 2^D numbers of each example


class Mixture(NamedTuple):
    """Holds the likelihood of a mixture, and how many of its parts count."""

    nats: Float[Array, " *B"]  # -log of the mean probability
    effective: Float[Array, " *B"]  # (sum w)^2 / sum w^2 of the probabilities w, in 1..M; 0 where all are 0


@declared()
def mixture(nats: Float[Array, " M *B"]) -> Mixture:
    """-log((1 / M) sum_m exp(-nats_m)): the likelihood of drawing one of M laws, and then from it.

    Of M orders that are the same for all examples it is exact, a law that sums to 1. With M orders drawn anew
    for each example its exponential is unbiased for the mixture over all orders, so that its mean is a bound
    on that, which falls with M. The same holds of log weights, negated, such as those of
    `likelihood.trajectory_log_weight`.

    Args:
        nats: -log p of each example under each law, summed over its elements; +inf for probability 0.

    Returns:
        Nats, +inf where all of them are, and the effective number of laws, which has no gradient.

    Raises:
        ValueError: M is 0.
    """
    M = len(nats)
    if M == 0:
        raise ValueError(f"nats has shape {nats.shape}, M = 0 laws: a mixture needs at least one")
    log_p = jnp.moveaxis(-at_least_float32(nats), 0, -1)  # [*B, M]
    effective = effective_size(jax.lax.stop_gradient(log_p).reshape(-1, M))
    return Mixture(math.log(M) - numerics.log_sum(log_p), effective.reshape(nats.shape[1:]))


@declared(x0=CATEGORIES, mask_id=INDEX)
def all_orders(fill_in: FillIn, x0: Int[Array, " B *S"], mask_id: int) -> Float[Array, " B"]:
    """-log of the mean over all D! orders of p(x_0 in that order), from the 2^D sets of visible elements.

    Let h(V) be the probability of all that is left when V is visible, over random orders of it. Then
    h(all) = 1, h(V) = mean over i outside of V of p(x_i | V) h(V and i), and h(none) is what is returned.

    Args:
        fill_in: the network, x_t int32 [B, *S] with masks -> logits of x_0 [B, *S, K]; it is called once for
            each set of visible elements.
        x0: examples of at most 16 elements.
        mask_id: which category the mask is.

    Returns:
        Nats per example, in the widest float type that JAX has. The memory is 2^D B numbers.

    Raises:
        ValueError: an example has more elements.
    """
    D = math.prod(x0.shape[1:])
    if D > MOST_PLACES:
        raise ValueError(
            f"x0 has D = {D} elements, and all orders of more than {MOST_PLACES} are too many: take the "
            f"mixture of some, orders.mixture of likelihood.chain_rule"
        )
    if x0.size == 0:
        return jnp.zeros(len(x0), float)
    flat = x0.reshape(len(x0), D)
    bits = jnp.left_shift(1, jnp.arange(D, dtype=jnp.int32))

    def log_prob(logits: Array, x0: Array) -> Array:
        return numerics.log_prob(at_least_float32(logits), x0)

    # visible is a set of elements, as the sum of their bits. Larger sets have larger numbers: going down, h
    # of each set with an element more is there.
    def fill_in_rest(log_rest: Array, visible: Array) -> tuple[Array, None]:
        is_visible = (visible & bits)[None] > 0  # [1, D]
        xt = jnp.where(is_visible, flat, mask_id).reshape(x0.shape)
        log_p = by_rows(fill_in(xt), log_prob, x0).reshape(flat.shape).astype(log_rest.dtype)  # [B, D]
        log_rest_after = log_rest[visible | bits].T  # [B, D]
        log_terms = jnp.where(is_visible, -jnp.inf, log_p + log_rest_after)
        num_hidden = jnp.sum(~is_visible).astype(log_rest.dtype)
        return log_rest.at[visible].set(numerics.log_sum(log_terms) - jnp.log(num_hidden)), None

    # Of all elements nothing is left: log h = 0.
    log_rest = jnp.zeros((2**D, len(x0)), float)
    sets = jnp.arange(2**D - 2, -1, -1, dtype=jnp.int32)
    log_rest, _ = jax.lax.scan(fill_in_rest, log_rest, sets)
    return -log_rest[0]


# In what the next two return each number depends on all that its example has: one that is out of range marks
# them all, which it does as they have no axis of its elements by name.
@declared(order=NOISE)
def given_first(order: Float[Array, " B *S"], given: Bool[Array, " B *S"]) -> Float[Array, " B *ordered"]:
    """Returns an order in which what is given comes first, and all else keeps its order.

    The nats that `likelihood.chain_rule` then has of the other elements sum to -log p(the rest | the given),
    exactly, of the order that begins with them.

    Args:
        order: in [0, 1). Of equal numbers the first comes first.
        given: which elements are given.

    Returns:
        Distinct numbers in [0, 1), the shape of `order`, in the widest float type that JAX has.
    """
    D = math.prod(order.shape[1:])
    rank = _rank(order.reshape(len(order), D))  # [B, D]
    rank = jnp.where(given.reshape(len(order), D), rank, rank + D)
    return (_rank(rank) / D).reshape(order.shape)


@declared(block_order=NOISE, inner_order=NOISE)
def by_block(
    block_order: Float[Array, "B F"], inner_order: Float[Array, "B F *R"]
) -> Float[Array, "B G *ordered"]:
    """Returns an order that takes one block after the other, and inside of a block its elements by an order.

    Args:
        block_order: in [0, 1), the order of F blocks, such as the frames of a film. Rising numbers take them
            as they come.
        inner_order: in [0, 1), of the elements of each block. Of equal numbers the first comes first.

    Returns:
        Distinct numbers in [0, 1), the shape of `inner_order`, in the widest float type that JAX has.
    """
    D = math.prod(inner_order.shape[1:])
    size = math.prod(inner_order.shape[2:])
    rank_inside = _rank(inner_order.reshape(*block_order.shape, size))  # [B, F, R]
    rank = _rank(block_order)[..., None] * size + rank_inside
    return (rank / D).reshape(inner_order.shape)


def _rank(x: Array) -> Array:
    """Returns as which of its row each number comes, from 0, as floats."""
    return jnp.argsort(jnp.argsort(x, axis=-1, stable=True), axis=-1).astype(float)
