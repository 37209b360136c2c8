"""Counts the floating-point operations of a function and its gradient: products of matrices and convolutions.

XLA's own count takes the body of a loop once, however often it runs, and has what the backward pass computes
again. So this one is of the forward pass, and the backward pass follows from it.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax.extend.core import ClosedJaxpr, Jaxpr, Literal


def count_flops(f: Callable[..., Any], params: Any, *args: Any) -> int:
    """Counts those of f(params, *args) and its gradient by params, without what is computed again.

    A product costs the backward pass as much again for each of its two operands that params reach: it counts
    three times in most of a network, twice where data comes in. Of branches the largest counts, of a loop of
    unknown length one round.

    Args:
        f: a function of trees of arrays.
        params, args: what it takes, arrays or their shapes.
    """
    jaxpr = jax.make_jaxpr(f)(params, *args).jaxpr
    given = len(jax.tree.leaves(params))
    return _walk(jaxpr, [i < given for i in range(len(jaxpr.invars))])[0]


def _walk(jaxpr: Jaxpr, reached: Sequence[bool]) -> tuple[int, list[bool]]:
    """Counts a program, and tells for its results, as `reached` for its arguments, if params reach them."""
    on = {var for var, yes in zip(jaxpr.invars, reached, strict=True) if yes}

    def tell(variables: Sequence[Any]) -> list[bool]:
        return [not isinstance(var, Literal) and var in on for var in variables]

    total = 0
    for equation in jaxpr.eqns:
        flops, found = _of_equation(equation, tell(equation.invars))
        total += flops
        results: Any = zip(equation.outvars, found, strict=True)
        on |= {var for var, yes in results if yes and jnp.issubdtype(var.aval.dtype, jnp.inexact)}
    return total, tell(jaxpr.outvars)


def _of_equation(equation: Any, reached: list[bool]) -> tuple[int, list[bool]]:
    """Counts one operation, and what is inside of it."""
    name, params = equation.primitive.name, equation.params
    if name == "dot_general":  # 2 m n k, once for each pair of matrices
        (contracted, _), _ = params["dimension_numbers"]
        shape = equation.invars[0].aval.shape
        flops = 2 * equation.outvars[0].aval.size * math.prod(shape[axis] for axis in contracted)
        return flops * (1 + sum(reached)), [any(reached)]
    if name == "conv_general_dilated":
        # 2 for each number of the output and each of the kernel for its channel; zeros put in between apart.
        kernel = equation.invars[1].aval
        each = kernel.size // kernel.shape[params["dimension_numbers"].rhs_spec[0]]
        flops = 2 * equation.outvars[0].aval.size * each // math.prod(params["lhs_dilation"])
        return flops * (1 + sum(reached)), [any(reached)]
    if name == "scan":
        return _of_loop(params["jaxpr"], reached, params["num_consts"], params["num_carry"], params["length"])
    if name == "while":
        reached = reached[params["cond_nconsts"] :]
        consts = params["body_nconsts"]
        return _of_loop(params["body_jaxpr"], reached, consts, len(reached) - consts, 1)
    if name == "cond":
        found = [_walk(branch.jaxpr, reached[1:]) for branch in params["branches"]]
        each = zip(*(results for _, results in found), strict=True)
        return max(flops for flops, _ in found), [any(results) for results in each]
    inner = next((x for x in params.values() if isinstance(x, Jaxpr | ClosedJaxpr)), None)
    inner = inner.jaxpr if isinstance(inner, ClosedJaxpr) else inner
    if inner is None or (len(inner.invars), len(inner.outvars)) != (len(reached), len(equation.outvars)):
        return 0, [any(reached)] * len(equation.outvars)  # an inner one is of scalars, as of a scatter
    return _walk(inner, reached)


def _of_loop(
    body: ClosedJaxpr, reached: list[bool], consts: int, carried: int, length: int
) -> tuple[int, list[bool]]:
    """Counts a loop: what params reach in one round they reach in the next."""
    while True:
        flops, found = _walk(body.jaxpr, reached)
        after = [*reached[:consts], *found[:carried], *reached[consts + carried :]]
        more = [a or b for a, b in zip(reached, after, strict=True)]
        if more == reached:
            return length * flops, found
        reached = more
