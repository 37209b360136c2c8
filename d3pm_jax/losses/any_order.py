"""Computes the loss of networks that fill in masks in any order, without time (ARDM).

The bound of an absorbing process in continuous time, with the number of masks drawn in the place of time
(Hoogeboom et al. 2022, arXiv 2110.02037): x_t has exactly n masks, n uniform in 1..L.
"""

import math
from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from d3pm_jax import numerics
from d3pm_jax.checks import CATEGORIES, CATEGORY, INDEX, NOISE, at_least, declared
from d3pm_jax.losses.continuous import NO_MASK
from d3pm_jax.numerics.logspace import at_least_float32
from d3pm_jax.processes.tables import expand_trailing


# What is drawn has no axis of elements by name: one of them that is out of range marks its whole example.
@declared(x0=INDEX, n=INDEX, u=NOISE, mask_id=INDEX, weight=at_least(0))
def any_order_draw(
    x0: Int[Array, " B *S"],
    n: Int[Array, " B"],
    u: Float[Array, " B *S"],
    mask_id: int,
    weight: Float[Array, " B *S"] | None = None,
) -> Int[Array, " B *drawn"]:
    """Draws x_t with exactly n masks: at the places with the n lowest u among those that have weight.

    Args:
        x0: categories.
        n: how many masks each example has; all places with weight where there are no more.
        u: uniform noise in [0, 1). Of equal numbers the first comes first.
        mask_id: which category the mask is.
        weight: of each element, 1 without; where it is 0, as on padding or a prompt, x_t is x_0.

    Returns:
        int32 categories, the shape of x0.
    """
    counts = _has_weight(x0, weight)
    D = math.prod(x0.shape[1:])
    order = jnp.where(counts, u, 1.0).reshape(len(x0), D)  # what counts comes before 1
    rank = jnp.argsort(jnp.argsort(order, axis=1, stable=True), axis=1).reshape(x0.shape).astype(jnp.int32)
    return jnp.where(counts & (rank < expand_trailing(n, x0.shape)), mask_id, x0).astype(jnp.int32)


@declared(x0=CATEGORIES, xt=CATEGORIES, mask_id=CATEGORY, weight=at_least(0), logits_x0=NO_MASK)
def any_order_nelbo(
    logits_x0: Float[Array, " B *S K"],
    x0: Int[Array, " B *S"],
    xt: Int[Array, " B *S"],
    mask_id: int,
    weight: Float[Array, " B *S"] | None = None,
) -> Float[Array, " B *S"]:
    """L / n times -log p(x_0 | x_t) at the n masks of x_t, else 0: a bound in the mean over n in 1..L.

    The mean over x_t of `any_order_draw` and n, summed over elements, is that of `likelihood.chain_rule` over
    all orders, and equals the mean of `continuous.absorbing_nelbo` over time, for a network that sees no time
    (ARDM, equation 6).

    Args:
        logits_x0: the network's unnormalised log p(x_0 | x_t), -inf at mask_id.
        x0, xt: categories.
        mask_id: which category the mask is.
        weight: of each element, 1 without: L and n count those that have one.

    Returns:
        Nats, +inf where the prediction rules x_0 out; of an element without weight 0.

    Raises:
        ValueError: the logits do not forbid the mask where x_t is it; under `jit` the loss is NaN there.
    """
    return weigh_masks(logits_x0, x0, count_masks(x0, xt, mask_id, weight))


class Masked(NamedTuple):
    """Says which places are masks, and how many there are."""

    is_masked: Array  # bool [B, *S]
    L: Array  # places of each example that have weight, [B]
    n: Array  # how many of them are masks, [B]


def count_masks(x0: Array, xt: Array, mask_id: int, weight: Array | None = None) -> Masked:
    """Counts the masks of x_t at places that have weight."""
    counts = _has_weight(x0, weight)
    is_masked = counts & (xt == mask_id)
    of_example = tuple(range(1, x0.ndim))
    return Masked(is_masked, counts.sum(axis=of_example), is_masked.sum(axis=of_example))


def weigh_masks(logits_x0: Array, x0: Array, masked: Masked) -> Array:
    """Computes `any_order_nelbo` of masks that are counted; of some places alone all are [n]."""
    ce = -numerics.log_prob(at_least_float32(logits_x0), x0)  # [B, *S]
    share = masked.L.astype(ce.dtype) / jnp.maximum(masked.n, 1).astype(ce.dtype)
    return jnp.where(masked.is_masked, expand_trailing(share, x0.shape) * ce, 0.0)


def _has_weight(x0: Array, weight: Array | None) -> Array:
    """Tells which elements have a weight above 0; without weights all have."""
    if weight is None:
        return jnp.ones(x0.shape, bool)
    return weight > 0
