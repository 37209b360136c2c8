"""Multiplies rows by a kernel; on CPUs the gradient of a narrowing kernel is computed transposed."""

from functools import partial
from typing import Any

import jax
from jaxtyping import Array

from d3pm_jax.cpu.loops import materialize


def dot_of_flax(x: Array, kernel: Array, dimensions: Any, **options: Any) -> Array:
    """Computes x @ kernel with the signature that `nnx.Linear` calls.

    The gradient of the kernel is x^T g, [n, m], for g that of the result. XLA on a CPU turns x for it. Where
    n > m this takes longer than g^T x, [m, n], which turns g: a linear map and its gradients take 0.79 to
    0.98 of their time by the second. So a kernel of more rows than columns is turned first, which makes the
    gradient that of the turned kernel.

    Args:
        x: [*S, n].
        kernel: [n, m].
        dimensions: the last axis of x and the first of the kernel, as `jax.lax.dot_general` has them.
        options: of `jax.lax.dot_general`.
    """
    multiply = partial(jax.lax.dot_general, dimension_numbers=dimensions, **options)
    n, m = kernel.shape
    if x.ndim != 2 or n <= m:
        return multiply(x, kernel)

    def multiply_by_turned(x: Array, kernel: Array) -> Array:
        # In memory, since XLA would turn the gradient back to x^T g.
        turned = materialize(kernel.T)  # [m, n]
        return jax.lax.dot_general(turned, x, (((1,), (1,)), ((), ())), **options).T

    return jax.lax.platform_dependent(x, kernel, cpu=multiply_by_turned, default=multiply)
