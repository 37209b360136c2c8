"""Counts the floating-point operations of a function and its gradient: products of matrices and convolutions.

XLA's own count takes the body of a loop once, however often it runs, and has what the backward pass computes
again. So this one is of the forward pass, and the backward pass follows from it.
"""

import math
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax.extend.core import ClosedJaxpr, Jaxpr, Literal

from d3pm_jax.projection import ROUNDS


def count_flops(f: Callable[..., Any], params: Any, *args: Any) -> int:
    """Counts the operations of f(params, *args) and of its gradient by params.

    What the backward pass computes again does not count.

    A product costs the backward pass as much again for each of its two operands that params reach: it counts
    three times in most of a network, twice where data comes in. Of branches the largest counts, of a loop of
    unknown length one round, or as many as its name says that there may be (`projection.ROUNDS`).

    Args:
        f: a function of trees of arrays.
        params, args: what it takes, arrays or their shapes.
    """
    jaxpr = jax.make_jaxpr(f)(params, *args).jaxpr
    num_params = len(jax.tree.leaves(params))
    on_params = [i < num_params for i in range(len(jaxpr.invars))]
    flops, _ = _count_program(jaxpr, on_params)
    return flops


def _count_program(jaxpr: Jaxpr, on_params: Sequence[bool]) -> tuple[int, list[bool]]:
    """Counts a program: all its operations, one after the other.

    Here and in the functions below, `on_params` says of each argument whether it depends on params. They
    return the number of operations, and the same of each result.
    """
    vars_on_params = {var for var, is_on_params in zip(jaxpr.invars, on_params, strict=True) if is_on_params}

    def are_on_params(variables: Sequence[Any]) -> list[bool]:
        return [not isinstance(var, Literal) and var in vars_on_params for var in variables]

    total = 0
    for equation in jaxpr.eqns:
        flops, results_on_params = _count_equation(equation, are_on_params(equation.invars))
        total += flops
        results: Any = zip(equation.outvars, results_on_params, strict=True)
        for var, is_on_params in results:
            # No gradient goes through integers.
            if is_on_params and jnp.issubdtype(var.aval.dtype, jnp.inexact):
                vars_on_params.add(var)
    return total, are_on_params(jaxpr.outvars)


def _count_equation(equation: Any, on_params: list[bool]) -> tuple[int, list[bool]]:
    """Counts one operation, and what is inside of it."""
    name = equation.primitive.name
    params = equation.params

    if name == "dot_general":
        # 2 m n k, once for each pair of matrices.
        (contracted, _), _ = params["dimension_numbers"]
        shape = equation.invars[0].aval.shape
        flops = 2 * equation.outvars[0].aval.size * math.prod(shape[axis] for axis in contracted)
        return flops * (1 + sum(on_params)), [any(on_params)]

    if name == "conv_general_dilated":
        # 2 for each number of the output and each of the kernel for its channel; zeros put in between apart.
        kernel = equation.invars[1].aval
        kernel_per_channel = kernel.size // kernel.shape[params["dimension_numbers"].rhs_spec[0]]
        dilation = math.prod(params["lhs_dilation"])
        flops = 2 * equation.outvars[0].aval.size * kernel_per_channel // dilation
        return flops * (1 + sum(on_params)), [any(on_params)]

    if name == "scan":
        # Before JAX 0.12 the parameters say how many are constants and how many are carried. Ranks say it in
        # every version: what a round gets a part of, or makes a part of, has one axis more outside the body.
        body = params["jaxpr"]
        num_carried = _count_equal_ranks(equation.outvars, body.jaxpr.outvars)
        num_consts = _count_equal_ranks(equation.invars, body.jaxpr.invars) - num_carried
        return _count_loop(body, on_params, num_consts, num_carried, params["length"])

    if name == "while":
        # The constants of the condition come first, and are no arguments of the body.
        on_params = on_params[params["cond_nconsts"] :]
        num_consts = params["body_nconsts"]
        rounds = re.search(ROUNDS, str(equation.source_info.name_stack))
        length = int(rounds[1]) if rounds else 1
        return _count_loop(params["body_jaxpr"], on_params, num_consts, len(on_params) - num_consts, length)

    if name == "cond":
        branches = [_count_program(branch.jaxpr, on_params[1:]) for branch in params["branches"]]
        by_result = zip(*(results for _, results in branches), strict=True)
        return max(flops for flops, _ in branches), [any(results) for results in by_result]

    num_devices = 1
    if name == "shard_map":
        # Its program is that of one device along these axes of the mesh.
        num_devices = math.prod(params["mesh"].shape[axis] for axis in params["newly_manual_axes"])

    num_results = len(equation.outvars)
    for inner in inner_programs(params)[:1]:
        # An inner program with other arguments is one of scalars, such as that of a scatter, and is not
        # counted.
        if len(inner.invars) == len(on_params) and len(inner.outvars) == num_results:
            flops, results_on_params = _count_program(inner, on_params)
            return num_devices * flops, results_on_params
    return 0, [any(on_params)] * num_results


def _count_equal_ranks(outside: Sequence[Any], inside: Sequence[Any]) -> int:
    """Counts variables that have as many axes outside a loop as inside its body."""
    return sum(len(x.aval.shape) == len(y.aval.shape) for x, y in zip(outside, inside, strict=True))


def inner_programs(params: Mapping[str, Any]) -> list[Jaxpr]:
    """Returns the programs among the parameters of an operation, such as the function of a jit."""
    programs = []
    for value in params.values():
        if not isinstance(value, tuple | list):
            value = [value]
        for inner in value:
            # A closed one holds its constants too; a kernel of Pallas is open.
            program = getattr(inner, "jaxpr", inner)
            if isinstance(program, Jaxpr):
                programs.append(program)
    return programs


def _count_loop(
    body: ClosedJaxpr, on_params: list[bool], num_consts: int, num_carried: int, length: int
) -> tuple[int, list[bool]]:
    """Counts a loop: what depends on params after one round does so in the next.

    Args:
        body: of one round.
        on_params: of constants, then what is carried from round to round, then what differs between rounds.
        num_consts: of the constants.
        num_carried: of what is carried.
        length: rounds.
    """
    while True:
        flops, results_on_params = _count_program(body.jaxpr, on_params)
        after_round = on_params.copy()
        for i in range(num_carried):
            after_round[num_consts + i] |= results_on_params[i]
        if after_round == on_params:
            return length * flops, results_on_params
        on_params = after_round
