"""Makes a loss of many elements together with its gradient, part by part.

A loss of an element depends on the logits of that element alone, so that its gradient can be made together
with its value, while the numbers in between are still in the cache (`numerics.tiles`).
"""

from collections.abc import Callable
from functools import cache, partial, singledispatch
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array

from d3pm_jax.beliefs import Belief, to_leave_one_out
from d3pm_jax.losses.cross_entropy import denoiser_cross_entropy
from d3pm_jax.numerics import tiles
from d3pm_jax.processes.base import Process

Loss = Callable[..., Array]  # (process, logits [*S, K], x0 [*S], xt [*S], t) -> nats [*S]
WithGradient = Callable[..., tuple[Array, Array]]  # the same -> nats [*S], their gradient [*S, K]


@singledispatch
def numbers_per_element(process: Process) -> int:
    """Counts the numbers that a loss with a t for each element reads for it: by default a matrix [K, K]."""
    return process.K**2


def by_autodiff(loss: Loss, process: Process, logits: Array, *rest: Array) -> tuple[Array, Array]:
    """Returns any loss and its gradient, as a `WithGradient` does."""
    value, pull = jax.vjp(lambda x: loss(process, x, *rest), logits)
    return value, pull(jnp.ones_like(value))[0]


@cache
def of_denoiser(loss: Loss, with_gradient: WithGradient) -> tuple[Loss, WithGradient]:
    """Returns the two for logits of a denoiser: they take its leave-one-out posterior."""

    def converted(f: Callable[..., Any], process: Process, logits: Array, x0: Array, xt: Array, t: Array):
        return f(process, to_leave_one_out(process, logits, xt, t), x0, xt, t)

    return partial(converted, loss), partial(converted, with_gradient)


def ce_by_parts(process: Process, logits: Array, x0: Array, xt: Array, t: Array, belief: Belief) -> Array:
    """Computes `denoiser_cross_entropy`, by parts where the logits have to be converted."""
    if belief != "leave_one_out":
        return denoiser_cross_entropy(process, logits, x0, xt, t, belief)
    return by_parts(_converted_ce, _converted_ce_and_gradient, process.K, process, logits, x0, xt, t)


def by_parts(
    loss: Loss,
    with_gradient: WithGradient,
    per_element: int,
    process: Process,
    logits: Array,
    x0: Array,
    xt: Array,
    t: Array,
) -> Array:
    """Returns loss(process, logits, x0, xt, t) [*S], made by parts together with its gradient for the logits.

    Args:
        loss: of a part, whose t is (), [B] or [B, n].
        with_gradient: the same with its gradient.
        per_element: numbers that an element with a t of its own takes in the largest array of the loss.
        process: the forward process.
        logits: [*S, K].
        x0, xt: [*S].
        t: its shape is a prefix of *S.
    """
    shared = t.ndim <= 1
    if not shared:
        t = jnp.broadcast_to(jnp.reshape(t, t.shape + (1,) * (x0.ndim - t.ndim)), x0.shape)
    size = logits.shape[-1] if shared else per_element
    return _compiled(loss, with_gradient, shared, size, process, logits, x0, xt, t)


_converted_ce = partial(denoiser_cross_entropy, belief="leave_one_out")
_converted_ce_and_gradient = partial(by_autodiff, _converted_ce)


@partial(jax.custom_vjp, nondiff_argnums=(0, 1, 2, 3))
def _by_parts(
    loss: Loss,
    _: WithGradient,
    shared: bool,
    size: int,
    process: Process,
    logits: Array,
    x0: Array,
    xt: Array,
    t: Array,
) -> Array:
    def values(logits: Array, *rows: Array) -> tuple[Array]:
        return (loss(process, logits, *rows, *((t,) if shared else ())),)

    return tiles.over_parts(values, logits, x0, xt, *(() if shared else (t,)), floats=size)[0]


def _forward(
    _: Loss,
    with_gradient: WithGradient,
    shared: bool,
    size: int,
    process: Process,
    logits: Array,
    x0: Array,
    xt: Array,
    t: Array,
):
    def both(logits: Array, *rows: Array) -> tuple[Array, Array]:
        return with_gradient(process, logits, *rows, *((t,) if shared else ()))

    value, gradient = tiles.over_parts(both, logits, x0, xt, *(() if shared else (t,)), floats=size)
    return value, jnp.where(jnp.isinf(value)[..., None], 0.0, gradient)


def _backward(loss: Loss, with_gradient: WithGradient, shared: bool, size: int, gradient: Array, g: Array):
    return None, g[..., None] * gradient, None, None, None


_by_parts.defvjp(_forward, _backward)
_compiled = jax.jit(_by_parts, static_argnums=(0, 1, 2, 3))
