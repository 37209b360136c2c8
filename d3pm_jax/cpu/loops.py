"""Ends a loop of a program, so that LLVM compiles what stands before and what stands after one by one."""

from typing import Any

import jax


def materialize(x: Any) -> Any:
    """Returns the arrays of a tree, which on CPUs are in memory before anything reads them.

    XLA makes one loop over the elements of all that an element needs. With JAX 0.10.2 that always compiled.
    The vectoriser of the LLVM that comes with JAX 0.12 asks of each number whether only its first lane is
    used, and answers by the same question of all that use that number, without a memory of the answers. Each
    number of a `double_float.two_sum` is used two or three times. So the time grows exponentially with the
    length of a chain of such sums, where the loop has a call behind it, such as exp, abs or the minimum of
    two numbers: two searches of seven sums, one behind the other, took a minute and a half, and a draw from a
    row of 256 categories never ended. `benchmarks/vectoriser.py` has the program and the stack.

    So a search by such sums is a loop of its own, and its results leave it by this function: one or a few
    numbers for each element, where the search has read all categories.
    """
    return jax.lax.platform_dependent(
        x,
        # One barrier for all would give each leaf the mesh axes that any of them varies over.
        cpu=lambda x: jax.tree.map(jax.lax.optimization_barrier, x),
        default=lambda x: x,
    )
