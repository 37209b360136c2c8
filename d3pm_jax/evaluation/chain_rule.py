"""Computes the exact likelihood of filling in masks one after the other, for `bound.evaluate_bound`."""

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from d3pm_jax import likelihood
from d3pm_jax.checks import bare
from d3pm_jax.evaluation.bound import Compiled
from d3pm_jax.sampling.noise import EVALUATION, per_example

Order = Callable[[jax.Array, tuple[int, ...]], jax.Array]  # index [B], *S -> numbers in [0, 1) [B, *S]


def left_to_right(index: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    """Returns numbers that rise from the first element to the last."""
    n = math.prod(shape)
    return jnp.broadcast_to((jnp.arange(n) / n).reshape(1, *shape), (len(index), *shape))


def at_random(seed: int) -> Order:
    """Makes an order of its own for every example, from its number alone."""
    key = jax.random.fold_in(jax.random.key(seed), EVALUATION)
    return lambda index, shape: per_example(key, index, shape)(jnp.asarray(0, jnp.int32))


def exact_nats(predict: Callable[..., jax.Array], mask_id: int, order: Order) -> Compiled:
    """Makes the jitted (params, process, x0, index, more) -> -log p(x_0) [B] of `likelihood.chain_rule`.

    Args:
        predict: a network that sees no time, told label and weight where there are any.
        mask_id: which category the mask is.
        order: of the elements; padding is not attended to, and costs nothing.
    """

    @jax.jit
    def nats(params: Any, process: Any, x0: Any, index: Any, more: dict[str, Any]) -> jax.Array:
        fill_in = partial(predict, params, t=jnp.ones(len(x0), jnp.int32), **more)
        weight = more.get("weight", jnp.ones(x0.shape))
        each = bare(likelihood.chain_rule)(fill_in, x0, order(index, x0.shape[1:]), mask_id)
        return jnp.where(weight > 0, weight * each, 0.0).reshape(len(x0), -1).sum(1)

    return nats
