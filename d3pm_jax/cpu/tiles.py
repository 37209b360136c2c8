"""Works on many elements, a cache-sized part of them at a time: on CPUs.

What is computed of an element depends on that element alone, so that its numbers in between are still in the
cache when they are read again: no array in between is larger than a part. Parts are cut from the axes behind
the first, which may be spread over devices: with one axis there is one part.

Which device it is is known when a program is lowered: an accelerator takes all elements at once, and needs no
loop, but where an element alone takes more than its own row of logits. Do not differentiate what is made here
(the gradient would keep what both devices need): call it in the rules of a `jax.custom_vjp`.
"""

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array

FLOATS = 2**19  # in the largest array of a part, for the cache of a CPU
MOST_FLOATS = 2**28  # the same for the memory of an accelerator


def apply_by_parts(
    f: Callable[..., tuple[Array, ...]],
    logits: Array,
    *rows: Array,
    floats: int | None = None,
    least: int = 1,
    otherwise: Callable[..., tuple[Array, ...]] | None = None,
) -> tuple[Array, ...]:
    """Applies f to parts of the elements, one after the other; on an accelerator to all at once.

    Args:
        f: (logits [B, n, K], *rows [B, n]) -> arrays [B, n] or [B, n, K].
        logits: [*S, K].
        rows: arrays [*S].
        floats: that an element takes in the largest array of a part; K by default.
        least: elements that a part has of each example, whatever they take.
        otherwise: what takes the place of f where f has left a NaN in its first output, and near by.

    Returns:
        Its outputs for all elements, [*S] or [*S, K].
    """
    S, K = logits.shape[:-1], logits.shape[-1]
    inputs = [_flat(x, S) for x in (logits, *rows)]
    outputs = _by_device(partial(_loop, f, otherwise), inputs, *_sizes(S, K, floats or K, least))
    return tuple(jnp.reshape(o, S + o.shape[2:]) for o in outputs)


def update_by_parts(f: Callable[..., Array], array: Array, *rows: Array, floats: int) -> Array:
    """Replaces an array [*S, K] by f(array, *rows), one part of the elements after the other, in its memory.

    Args:
        f: (array [B, n, K], *rows [B, n] or [B, n, K]) -> array [B, n, K].
        array: [*S, K].
        rows: arrays [*S] or [*S, K].
        floats: that an element takes in the largest array of a part.
    """
    S, K = array.shape[:-1], array.shape[-1]
    inputs = [_flat(x, S) for x in (array, *rows)]
    updated = _by_device(partial(_update, f), inputs, *_sizes(S, K, floats))
    return jnp.reshape(updated, array.shape)


def _by_device(work: Callable[..., Any], inputs: list[Array], on_cpu: int, elsewhere: int) -> Any:
    """Returns work(inputs, size), with the size of a part that the device asks for."""
    if on_cpu == elsewhere:
        return work(inputs, on_cpu)
    return lax.platform_dependent(
        inputs, cpu=lambda inputs: work(inputs, on_cpu), default=lambda inputs: work(inputs, elsewhere)
    )


def _sizes(S: tuple[int, ...], K: int, floats: int, least: int = 1) -> tuple[int, int]:
    """Returns how many elements of each example a part has, on CPUs and elsewhere."""
    B, N = (S[0], math.prod(S[1:])) if S else (1, 1)
    sizes = (max(1, min(N, max(least, most // max(1, B * floats)))) for most in (FLOATS, MOST_FLOATS))
    on_cpu, elsewhere = sizes
    if floats <= K:  # nothing is larger than the logits, which are there as a whole
        elsewhere = max(1, N)
    return on_cpu, elsewhere


def _flat(x: Array, S: tuple[int, ...]) -> Array:
    """Makes one axis of all behind the first of S."""
    return jnp.reshape(x, (*S[:1], math.prod(S[1:]), *x.shape[len(S) :]) if S else (1, 1, *x.shape))


def _part(start: Array, size: int, inputs: list[Array]) -> tuple[Array, list[Array]]:
    """Returns the parts of arrays [B, N, ..] from there on, and where they begin: the last ends with them."""
    start = jnp.minimum(start, inputs[0].shape[1] - size)
    return start, [lax.dynamic_slice_in_dim(x, start, size, axis=1) for x in inputs]


def _put(outputs: tuple[Array, ...], part: tuple[Array, ...], start: Array) -> tuple[Array, ...]:
    """Writes a part of each of the outputs."""
    pairs = zip(outputs, part, strict=True)
    return tuple(lax.dynamic_update_slice_in_dim(o, p, start, axis=1) for o, p in pairs)


def _loop(
    f: Callable[..., tuple[Array, ...]],
    otherwise: Callable[..., tuple[Array, ...]] | None,
    inputs: list[Array],
    size: int,
) -> tuple[Array, ...]:
    """Computes `apply_by_parts` for inputs [B, N, ..]."""
    B, N = inputs[0].shape[:2]
    if size == N and B > 0:
        found = f(*inputs)
        if otherwise is None:
            return found
        return lax.cond(jnp.any(jnp.isnan(found[0])), lambda: otherwise(*inputs), lambda: found)
    shapes = jax.eval_shape(f, *(jax.ShapeDtypeStruct((B, size, *x.shape[2:]), x.dtype) for x in inputs))
    empty = tuple(jnp.zeros((B, N, *s.shape[2:]), s.dtype) for s in shapes)
    if B * N == 0:
        return empty

    def step(i: Array, outputs: tuple[Array, ...]) -> tuple[Array, ...]:
        start, given = _part(i * size, size, inputs)  # the last part repeats some rather than be short
        return _put(outputs, f(*given), start)

    outputs = lax.fori_loop(0, -(-N // size), step, empty)
    return outputs if otherwise is None else _repair(otherwise, inputs, outputs, max(1, size // 4))


def _repair(
    otherwise: Callable[..., tuple[Array, ...]], inputs: list[Array], outputs: tuple[Array, ...], size: int
) -> tuple[Array, ...]:
    """Replaces the outputs of so many elements from each first NaN on: mostly there is none.

    A condition in the loop before would have XLA copy the outputs of every part. Fewer elements than there
    have been in a part, as what comes in its place takes more memory for each.
    """

    def step(carry: tuple[Array, tuple[Array, ...]]) -> tuple[Array, tuple[Array, ...]]:
        left, outputs = carry
        start, given = _part(jnp.argmax(left), size, inputs)
        left = lax.dynamic_update_slice_in_dim(left, jnp.zeros(size, bool), start, axis=0)
        return left, _put(outputs, otherwise(*given), start)

    left = jnp.any(jnp.isnan(outputs[0]), axis=0)
    return lax.while_loop(lambda carry: jnp.any(carry[0]), step, (left, outputs))[1]


def _update(f: Callable[..., Array], inputs: list[Array], size: int) -> Array:
    """Computes `update_by_parts` for inputs [B, N, ..]."""
    whole, *others = inputs
    B, N = whole.shape[:2]
    if size == N or B * N == 0:
        return f(whole, *others)

    def step(i: Array, whole: Array) -> Array:
        start, (part, *given) = _part(i * size, size, [whole, *others])
        new = start + jnp.arange(size) >= i * size  # the last part begins among elements that are done
        changed = jnp.where(new[None, :, None], f(part, *given), part)
        return lax.dynamic_update_slice_in_dim(whole, changed, start, axis=1)

    return lax.fori_loop(0, -(-N // size), step, whole)
