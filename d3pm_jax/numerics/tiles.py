"""Works on many elements, a cache-sized part of them at a time: for CPUs.

What is computed of an element depends on that element alone, so that its numbers in between are still in the
cache when they are read again: no array in between is larger than a part. Parts are cut from the axes behind
the first, which may be spread over devices: with one axis there is one part.
"""

import math
from collections.abc import Callable
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array

FLOATS = 2**19  # in the largest array of a part
Rows = TypeVar("Rows")  # a tree of arrays [*S]


def over_parts(
    f: Callable[..., tuple[Array, ...]], logits: Array, *rows: Array, floats: int | None = None
) -> tuple[Array, ...]:
    """Applies f to parts of the elements, one after the other.

    Args:
        f: (logits [B, n, K], *rows [B, n]) -> arrays [B, n] or [B, n, K].
        logits: [*S, K].
        rows: arrays [*S].
        floats: that an element takes in the largest array of a part; K by default.

    Returns:
        Its outputs for all elements, [*S] or [*S, K].
    """
    S = logits.shape[:-1]
    B, N = _flat(S)
    inputs = [jnp.reshape(x, (B, N, *x.shape[len(S) :])) for x in (logits, *rows)]
    each = logits.shape[-1] if floats is None else floats
    size = _size(B, N, each)
    outputs = f(*inputs) if size == N and B > 0 else _loop(f, inputs, size)
    return tuple(jnp.reshape(o, S + o.shape[2:]) for o in outputs)


def update_by_parts(f: Callable[..., Array], array: Array, *rows: Array, floats: int) -> Array:
    """Replaces an array [*S, K] by f(array, *rows), one part of the elements after the other, in its memory.

    Args:
        f: (array [B, n, K], *rows [B, n] or [B, n, K]) -> array [B, n, K].
        array: [*S, K].
        rows: arrays [*S] or [*S, K].
        floats: that an element takes in the largest array of a part.
    """
    S = array.shape[:-1]
    B, N = _flat(S)
    whole, *others = (jnp.reshape(x, (B, N, *x.shape[len(S) :])) for x in (array, *rows))
    size = _size(B, N, floats)
    if size == N or B * N == 0:
        return jnp.reshape(f(whole, *others), array.shape)

    def step(i: Array, whole: Array) -> Array:
        start, (part, *given) = _part(i, size, [whole, *others])
        new = start + jnp.arange(size) >= i * size  # the last part begins among elements that are done
        changed = jnp.where(new[None, :, None], f(part, *given), part)
        return lax.dynamic_update_slice_in_dim(whole, changed, start, axis=1)

    return jnp.reshape(lax.fori_loop(0, -(-N // size), step, whole), array.shape)


def materialize(f: Callable[..., Rows], args: Any) -> Rows:
    """Makes f(*args) for trees of arrays [*S] once, by a loop over two halves, before anything reads it.

    XLA on a CPU merges whatever leads from a sum over K to the next pass over [*S, K] with that pass, and
    makes it anew for each of the K. It does not look into a loop; with one axis there is nothing to halve.
    Whether it is still needed: put `return f(*args)` in the place of the body, and compare the rows uniform
    and absorbing of `python benchmarks/kernels.py loss`. With jax 0.10.2 on an AMD EPYC (Zen 3) a loss
    without it takes 0.92 to 0.94 of the time; other CPUs have not been measured again since it was written.
    """
    leaves, tree = jax.tree.flatten(args)
    S = leaves[0].shape
    B, N = _flat(S)

    def half(*leaves: Array) -> tuple[Array, ...]:
        return tuple(jax.tree.leaves(f(*jax.tree.unflatten(tree, leaves))))

    outputs = _loop(half, [jnp.reshape(x, (B, N)) for x in leaves], -(-N // 2))
    structure = jax.tree.structure(jax.eval_shape(f, *args))
    return jax.tree.unflatten(structure, [jnp.reshape(o, S) for o in outputs])


def _flat(S: tuple[int, ...]) -> tuple[int, int]:
    """Returns the first axis, and all others as one."""
    return (S[0], math.prod(S[1:])) if S else (1, 1)


def _size(B: int, N: int, floats: int) -> int:
    """Returns how many of N elements a part has."""
    return max(1, min(N, FLOATS // max(1, B * floats)))


def _part(i: Array, size: int, inputs: list[Array]) -> tuple[Array, list[Array]]:
    """Returns where part i of arrays [B, N, ..] begins, and the parts; the last ends with them."""
    start = jnp.minimum(i * size, inputs[0].shape[1] - size)
    return start, [lax.dynamic_slice_in_dim(x, start, size, axis=1) for x in inputs]


def _loop(f: Callable[..., tuple[Array, ...]], inputs: list[Array], size: int) -> tuple[Array, ...]:
    """Computes `over_parts` for inputs [B, N, ..]."""
    B, N = inputs[0].shape[:2]
    shapes = jax.eval_shape(f, *(jax.ShapeDtypeStruct((B, size, *x.shape[2:]), x.dtype) for x in inputs))
    empty = tuple(jnp.zeros((B, N, *s.shape[2:]), s.dtype) for s in shapes)

    def step(i: Array, outputs: tuple[Array, ...]) -> tuple[Array, ...]:
        start, given = _part(i, size, inputs)  # the last part repeats some elements rather than be short
        part = f(*given)
        return tuple(
            lax.dynamic_update_slice_in_dim(o, p, start, axis=1) for o, p in zip(outputs, part, strict=True)
        )

    return lax.fori_loop(0, -(-N // size), step, empty) if B * N > 0 else empty
