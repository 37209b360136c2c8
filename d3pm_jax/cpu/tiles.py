"""Works on many elements, a cache-sized part of them at a time: on CPUs.

What is computed of an element depends on that element alone, so that its numbers in between are still in the
cache when they are read again: no array in between is larger than a part. Parts are cut from the axes behind
the first, which may be spread over devices: with one axis there is one part.

The device is known when a program is lowered. An accelerator takes all elements at once and needs no loop,
unless an element takes more memory than its row of logits. Do not differentiate what is made here (the
gradient would keep what both devices need): call it in the rules of a `jax.custom_vjp`.
"""

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array

# Numbers in the largest array of a part: for the cache of a CPU, and for the memory of an accelerator.
FLOATS = 2**19
MOST_FLOATS = 2**28


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
        floats: how many numbers an element takes in the largest array of a part; K by default.
        least: how many elements of each example a part has at least, whatever they take.
        otherwise: takes the place of f where f has left a NaN in its first output, and for elements near by.
            It may take more memory for each element than f, and so takes parts for the cache of a CPU on
            accelerators too.

    Returns:
        The outputs of f for all elements, [*S] or [*S, K].
    """
    S = logits.shape[:-1]
    K = logits.shape[-1]
    inputs = [_flatten(x, S) for x in (logits, *rows)]  # [B, N, K] or [B, N]
    size_on_cpu, size_elsewhere = _choose_part_sizes(S, K, floats or K, least)
    work = partial(_loop, f, otherwise, size_on_cpu)
    outputs = _call_by_device(work, inputs, size_on_cpu, size_elsewhere)
    return tuple(jnp.reshape(o, S + o.shape[2:]) for o in outputs)


def update_by_parts(f: Callable[..., Array], array: Array, *rows: Array, floats: int) -> Array:
    """Replaces an array [*S, K] by f(array, *rows), one part of the elements after the other, in its memory.

    Args:
        f: (array [B, n, K], *rows [B, n] or [B, n, K]) -> array [B, n, K].
        array: [*S, K].
        rows: arrays [*S] or [*S, K].
        floats: how many numbers an element takes in the largest array of a part.
    """
    S = array.shape[:-1]
    K = array.shape[-1]
    inputs = [_flatten(x, S) for x in (array, *rows)]  # [B, N, K] or [B, N]
    size_on_cpu, size_elsewhere = _choose_part_sizes(S, K, floats)
    updated = _call_by_device(partial(_update, f), inputs, size_on_cpu, size_elsewhere)
    return jnp.reshape(updated, array.shape)


def _call_by_device(work: Callable[..., Any], inputs: list[Array], on_cpu: int, elsewhere: int) -> Any:
    """Returns work(inputs, size), with the size of a part on CPUs or the one elsewhere."""
    # A program lowered for one device holds its branch alone. Where both are the same, there is none to
    # choose.
    if on_cpu == elsewhere:
        return work(inputs, on_cpu)
    return jax.lax.platform_dependent(
        inputs, cpu=lambda inputs: work(inputs, on_cpu), default=lambda inputs: work(inputs, elsewhere)
    )


def _choose_part_sizes(S: tuple[int, ...], K: int, floats: int, least: int = 1) -> tuple[int, int]:
    """Returns how many elements of each example a part has, on CPUs and elsewhere."""
    B, N = _count_examples_and_elements(S)

    def fit(most_floats: int) -> int:
        size = max(least, most_floats // max(1, B * floats))
        return max(1, min(N, size))

    on_cpu = fit(FLOATS)
    elsewhere = fit(MOST_FLOATS)

    # Elsewhere parts only save memory. Where no array of a part is larger than its logits, which are in
    # memory as a whole, there is nothing to save.
    if floats <= K:
        elsewhere = max(1, N)
    return on_cpu, elsewhere


def _count_examples_and_elements(S: tuple[int, ...]) -> tuple[int, int]:
    """Returns the length of the first axis of S and the product of the others, 1 where there are none."""
    if not S:
        return 1, 1
    return S[0], math.prod(S[1:])


def _flatten(x: Array, S: tuple[int, ...]) -> Array:
    """Makes one axis of all axes of S behind the first: [B, N, ..]."""
    B, N = _count_examples_and_elements(S)
    return jnp.reshape(x, (B, N, *x.shape[len(S) :]))


def _slice_part(start: Array | int, size: int, inputs: list[Array]) -> tuple[Array, list[Array]]:
    """Slices a part of so many elements out of arrays [B, N, ..].

    Returns:
        Where the part begins, and the slices. The last part begins earlier rather than be short.
    """
    start = jnp.minimum(start, inputs[0].shape[1] - size)
    return start, [jax.lax.dynamic_slice_in_dim(x, start, size, axis=1) for x in inputs]


def _write_part(outputs: tuple[Array, ...], part: tuple[Array, ...], start: Array) -> tuple[Array, ...]:
    """Writes a part of each of the outputs, from there on."""
    pairs = zip(outputs, part, strict=True)
    return tuple(jax.lax.dynamic_update_slice_in_dim(o, p, start, axis=1) for o, p in pairs)


def _loop(
    f: Callable[..., tuple[Array, ...]],
    otherwise: Callable[..., tuple[Array, ...]] | None,
    size_on_cpu: int,
    inputs: list[Array],
    size: int,
) -> tuple[Array, ...]:
    """Computes `apply_by_parts` for inputs [B, N, ..], in parts of so many elements of each example."""
    B, N = inputs[0].shape[:2]
    if size == N and B > 0:
        outputs = f(*inputs)
        if otherwise is None:
            return outputs
        if size_on_cpu < N:
            return _repair(otherwise, inputs, outputs, size_on_cpu)
        return jax.lax.cond(jnp.any(jnp.isnan(outputs[0])), lambda: otherwise(*inputs), lambda: outputs)
    shapes = jax.eval_shape(f, *(jax.ShapeDtypeStruct((B, size, *x.shape[2:]), x.dtype) for x in inputs))
    empty = tuple(jnp.zeros((B, N, *s.shape[2:]), s.dtype) for s in shapes)
    if B * N == 0:
        return empty

    def step(i: Array | int, outputs: tuple[Array, ...]) -> tuple[Array, ...]:
        # The last part computes some elements a second time, to the same numbers.
        start, part = _slice_part(i * size, size, inputs)
        return _write_part(outputs, f(*part), start)

    outputs = jax.lax.fori_loop(0, -(-N // size), step, empty)
    if otherwise is None:
        return outputs
    return _repair(otherwise, inputs, outputs, max(1, size // 4))


def _repair(
    otherwise: Callable[..., tuple[Array, ...]], inputs: list[Array], outputs: tuple[Array, ...], size: int
) -> tuple[Array, ...]:
    """Replaces the outputs of `size` elements from each first NaN on, until no NaN is left.

    Mostly there is none. A condition in the loop before would have XLA copy the outputs of every part. The
    size is smaller than that of a part, as `otherwise` takes more memory for each element than f.
    """

    def step(carry: tuple[Array, tuple[Array, ...]]) -> tuple[Array, tuple[Array, ...]]:
        is_left, outputs = carry
        start, part = _slice_part(jnp.argmax(is_left), size, inputs)
        # Elements are ticked off whatever `otherwise` gives, also where that is NaN again: so the loop ends.
        is_left = jax.lax.dynamic_update_slice_in_dim(is_left, jnp.zeros(size, bool), start, axis=0)
        return is_left, _write_part(outputs, otherwise(*part), start)

    is_left = jnp.any(jnp.isnan(outputs[0]), axis=0)  # [N], in any example
    return jax.lax.while_loop(lambda carry: jnp.any(carry[0]), step, (is_left, outputs))[1]


def _update(f: Callable[..., Array], inputs: list[Array], size: int) -> Array:
    """Computes `update_by_parts` for inputs [B, N, ..]."""
    array, *rows = inputs
    B, N = array.shape[:2]
    if size == N or B * N == 0:
        return f(array, *rows)

    def step(i: Array | int, array: Array) -> Array:
        start, (part, *rows_of_part) = _slice_part(i * size, size, [array, *rows])
        # The last part begins among elements that are done, and f must not be applied to them twice.
        is_new = start + jnp.arange(size) >= i * size
        updated = jnp.where(is_new[None, :, None], f(part, *rows_of_part), part)
        return jax.lax.dynamic_update_slice_in_dim(array, updated, start, axis=1)

    return jax.lax.fori_loop(0, -(-N // size), step, array)


def add_product(total: Array, left: Array, right: Array) -> Array:
    """Returns total + left^T right, [m, k] of [n, m] and [n, k], summed over n in the type of the total."""
    summed = (((0,), (0,)), ((), ()))
    return total + jax.lax.dot_general(left, right, summed, preferred_element_type=total.dtype)


def add_product_by_parts(total: Array, left: Array, right: Array, axis: int, size: int) -> Array:
    """Returns total + left^T right, some entries of an axis at a time.

    XLA on CPUs makes an array of a product before it is added, which is as large as the total.

    Args:
        total: [m, k].
        left, right: [n, m] and [n, k].
        axis: of the total, along which it is cut.
        size: how many entries of this axis a part has.
    """
    length = total.shape[axis]
    size = min(size, length)

    def step(i: Array | int, total: Array) -> Array:
        # The last part begins earlier rather than be short, and some of it is done.
        start = jnp.minimum(i * size, length - size)
        is_new = start + jnp.arange(size, dtype=jnp.int32) >= i * size
        factors = [left, right]
        part = jax.lax.dynamic_slice_in_dim(factors[axis], start, size, axis=1)
        factors[axis] = jnp.where(is_new[None], part, 0.0)
        before = jax.lax.dynamic_slice_in_dim(total, start, size, axis)
        after = add_product(before, *factors)
        return jax.lax.dynamic_update_slice_in_dim(total, after, start, axis)

    return jax.lax.fori_loop(0, -(-length // size), step, total)
