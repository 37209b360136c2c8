"""Multiplies rows by a kernel; on CPUs the gradient of a narrowing kernel is computed transposed."""

from typing import Any

import jax
from jaxtyping import Array

from d3pm_jax.cpu.loops import materialize


def dot_of_flax(x: Array, kernel: Array, dimensions: Any, **options: Any) -> Array:
    """Computes x @ kernel with the signature that `nnx.Linear` calls.

    The gradient of the kernel is x^T g, [n, m], for g that of the result. XLA on a CPU turns x for it. Where
    n > m it takes a little to half as long again as g^T x, [m, n], which turns g. So a kernel of more rows
    than columns is turned first, which makes the gradient that of the turned kernel.

    Args:
        x: [*S, n].
        kernel: [n, m].
        dimensions: the last axis of x and the first of the kernel, as `jax.lax.dot_general` has them.
        options: of `jax.lax.dot_general`.
    """
    n, m = kernel.shape
    if x.ndim != 2 or n <= m:
        return jax.lax.dot_general(x, kernel, dimensions, **options)
    # In memory, since XLA would turn the gradient back to x^T g.
    turned = materialize(kernel.T)  # [m, n]
    return jax.lax.dot_general(turned, x, (((1,), (1,)), ((), ())), **options).T
