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

from d3pm_jax.beliefs import Belief, to_denoiser, to_leave_one_out
from d3pm_jax.losses.cross_entropy import cross_entropy, denoiser_cross_entropy
from d3pm_jax.numerics import tiles
from d3pm_jax.processes.base import Process

Loss = Callable[..., Array]  # (process, logits [*S, K], x0 [*S], xt [*S], t) -> nats [*S]
WithGradient = Callable[..., tuple[Array, Array]]  # the same -> nats [*S], their gradient [*S, K]
Losses = tuple[Loss, ...]
WithGradients = tuple[WithGradient, ...]


@singledispatch
def numbers_per_element(process: Process) -> int:
    """Counts the numbers that a loss with a t for each element reads for it: by default a matrix [K, K]."""
    return process.K**2


def by_autodiff(loss: Loss, process: Process, logits: Array, *rest: Array) -> tuple[Array, Array]:
    """Returns any loss and its gradient, as a `WithGradient` does."""
    value, pull = jax.vjp(lambda x: loss(process, x, *rest), logits)
    return value, pull(jnp.ones_like(value))[0]


def kl_and_ce(
    kl: Loss,
    kl_and_gradient: WithGradient,
    process: Process,
    logits: Array,
    x0: Array,
    xt: Array,
    t: Array,
    belief: Belief,
) -> tuple[Array, Array]:
    """Makes `variational.dispatch_kl_and_ce` of the KL for leave-one-out logits, by parts, for any belief.

    Args:
        kl: of a part; like the next argument, the same function each time, for what was compiled of it.
        kl_and_gradient: the same with its gradient.
        process, logits, x0, xt, t, belief: as for `variational.hybrid`.
    """
    if belief == "leave_one_out":
        losses, with_gradients = (kl, _converted_ce), (kl_and_gradient, _converted_ce_and_gradient)
        first, ce = by_parts(losses, with_gradients, process, logits, x0, xt, t)
        return first, ce
    if belief == "denoiser":
        kl, kl_and_gradient = _of_denoiser(kl), _of_denoiser(kl_and_gradient)
    (found,) = by_parts((kl,), (kl_and_gradient,), process, logits, x0, xt, t)
    return found, cross_entropy(process, logits, x0)


@cache
def _of_denoiser(f: Callable[..., Any]) -> Callable[..., Any]:
    """Returns f for logits of a denoiser. What is added to them is constant: the gradient stays the same."""

    def converted(process: Process, logits: Array, x0: Array, xt: Array, t: Array) -> Any:
        return f(process, to_leave_one_out(process, logits, xt, t), x0, xt, t)

    return converted


_converted_ce = partial(denoiser_cross_entropy, belief="leave_one_out")


def _converted_ce_and_gradient(
    process: Process, logits: Array, x0: Array, xt: Array, t: Array
) -> tuple[Array, Array]:
    """Computes the cross entropy of `to_denoiser`, and its gradient p - onehot(x_0): one exp for both."""
    denoiser = to_denoiser(process, logits, xt, t)
    top = jnp.max(denoiser, axis=-1, keepdims=True)
    weights = jnp.exp(denoiser - jnp.where(top == -jnp.inf, 0.0, top))
    total = jnp.sum(weights, axis=-1, keepdims=True)
    at_x0 = jnp.take_along_axis(denoiser, x0[..., None], axis=-1)
    value = jnp.where(at_x0 == -jnp.inf, jnp.inf, jnp.log(total) + top - at_x0)[..., 0]
    is_x0 = x0[..., None] == jnp.arange(process.K).reshape((1,) * x0.ndim + (-1,))
    return value, weights * (1 / total) - is_x0


def by_parts(
    losses: Losses,
    with_gradients: WithGradients,
    process: Process,
    logits: Array,
    x0: Array,
    xt: Array,
    t: Array,
) -> tuple[Array, ...]:
    """Returns each loss(process, logits, x0, xt, t), made by parts together with its gradient for the logits.

    Args:
        losses: of a part, whose t is (), [B] or [B, n].
        with_gradients: the same with their gradients.
        process: the forward process.
        logits: [*S, K].
        x0, xt: [*S].
        t: its shape is a prefix of *S.

    Returns:
        Nats of each, [*S].
    """
    shared = t.ndim <= 1
    if not shared:
        t = jnp.broadcast_to(jnp.reshape(t, t.shape + (1,) * (x0.ndim - t.ndim)), x0.shape)
    size = logits.shape[-1] if shared else numbers_per_element(process)
    return _compiled(losses, with_gradients, shared, size, process, logits, x0, xt, t)


@partial(jax.custom_vjp, nondiff_argnums=(0, 1, 2, 3))
def _by_parts(
    losses: Losses,
    _: WithGradients,
    shared: bool,
    size: int,
    process: Process,
    logits: Array,
    x0: Array,
    xt: Array,
    t: Array,
) -> tuple[Array, ...]:
    def values(logits: Array, *rows: Array) -> tuple[Array, ...]:
        return tuple(loss(process, logits, *rows, *((t,) if shared else ())) for loss in losses)

    return tiles.over_parts(values, logits, x0, xt, *(() if shared else (t,)), floats=size)


def _forward(
    _: Losses,
    with_gradients: WithGradients,
    shared: bool,
    size: int,
    process: Process,
    logits: Array,
    x0: Array,
    xt: Array,
    t: Array,
):
    def both(logits: Array, *rows: Array) -> tuple[Array, ...]:
        found = [f(process, logits, *rows, *((t,) if shared else ())) for f in with_gradients]
        finite = [jnp.where(jnp.isinf(value)[..., None], 0.0, gradient) for value, gradient in found]
        return *(value for value, _ in found), *finite

    found = tiles.over_parts(both, logits, x0, xt, *(() if shared else (t,)), floats=size)
    return found[: len(with_gradients)], found[len(with_gradients) :]


def _backward(
    _: Losses, __: WithGradients, shared: bool, size: int, gradients: tuple[Array, ...], g: tuple[Array, ...]
):
    parts = [each[..., None] * gradient for each, gradient in zip(g, gradients, strict=True)]
    return None, sum(parts[1:], parts[0]), None, None, None


_by_parts.defvjp(_forward, _backward)
_compiled = jax.jit(_by_parts, static_argnums=(0, 1, 2, 3))
