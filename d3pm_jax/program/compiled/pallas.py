"""Counts what Pallas kernels move, from the jaxpr of a function that calls them.

The text of a compiled program shows the operands of such a kernel once, however often it reads them. Its
jaxpr shows each load and store, in the loops around them, and the grid over which the kernel runs.
"""

import contextlib
import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import jax
from jax.experimental import pallas as pl
from jax.extend.core import ClosedJaxpr, Jaxpr, Literal

from d3pm_jax.program.compiled.flops import inner_programs

# An array of at most so many bytes is read from the memory of a card once: all further reads are from caches.
CACHED = 2**20
LOADS = frozenset(["get", "masked_load", "load"])
STORES = frozenset(["swap", "masked_swap", "addupdate", "store"])


def count_ratios(jaxprs: Iterable[ClosedJaxpr]) -> dict[str, float]:
    """Returns how many bytes each Pallas kernel moves for each byte of its operands and results, by name.

    What it moves are its loads and stores, times the trips of the loops inside and of the grid. Elements
    beyond the end of an array, which a mask leaves out, do not count. Of branches the one that moves most
    counts, of a loop of unknown length one round. A device that holds a part of the operands moves a part of
    the bytes, in the same ratio.
    """
    moved: Counter[str] = Counter()
    operands: Counter[str] = Counter()
    for jaxpr in jaxprs:
        for call in _find_calls(jaxpr.jaxpr):
            name = str(call.params["name"])
            moved[name] += _count_call(call)
            operands[name] += sum(_num_bytes(var.aval) for var in [*call.invars, *call.outvars])
    return {name: moved[name] / max(operands[name], 1) for name in operands}


@contextlib.contextmanager
def watch_calls() -> Iterator[list[ClosedJaxpr]]:
    """Collects the jaxprs of the Pallas calls that are traced in the block.

    A call that is made only when a program is lowered for a card, or spread over cards, stands in no jaxpr of
    that program: the block has to hold the lowering and the compiling too.
    """
    jaxprs: list[ClosedJaxpr] = []
    pallas_call = pl.pallas_call

    def watched_pallas_call(*args: Any, **options: Any) -> Any:
        call = pallas_call(*args, **options)

        def watched_call(*operands: Any) -> Any:
            shapes = [jax.ShapeDtypeStruct(operand.shape, operand.dtype) for operand in operands]
            jaxprs.append(jax.make_jaxpr(call)(*shapes))
            return call(*operands)

        return watched_call

    pl.pallas_call = watched_pallas_call
    try:
        yield jaxprs
    finally:
        pl.pallas_call = pallas_call


def _find_calls(jaxpr: Jaxpr) -> Iterator[Any]:
    """Yields the calls of Pallas kernels in a program, also those in functions, loops and branches."""
    for equation in jaxpr.eqns:
        if equation.primitive.name == "pallas_call":
            yield equation
            continue
        for inner in inner_programs(equation.params):
            yield from _find_calls(inner)


def _count_call(call: Any) -> int:
    """Counts the bytes that one call of a kernel moves."""
    kernel = call.params["jaxpr"]
    # The arguments of the kernel are references to operands, then to results; scratch memory comes last.
    arrays = [var.aval for var in [*call.invars, *call.outvars]]
    references = dict(zip(kernel.invars, arrays, strict=False))
    return _count_kernel(kernel, references, math.prod(call.params["grid_mapping"].grid))


def _count_kernel(kernel: Any, references: Mapping[Any, Any], trips: int) -> int:
    """Counts the bytes of the loads and stores in a program that runs so often.

    Args:
        kernel: the program.
        references: the array behind each variable that refers to one.
        trips: how often it runs.
    """
    total = 0
    for equation in kernel.eqns:
        name = equation.primitive.name
        if name in LOADS or name in STORES:
            array = references.get(equation.invars[0])
            if array is not None:
                block = equation.invars[1] if name == "addupdate" else equation.outvars[0]
                total += _count_accesses(block.aval, array, trips)
            # A swap returns what was there: a load too, where that is used.
            continue
        branches = [
            _count_inner(equation, inner, references, trips) for inner in inner_programs(equation.params)
        ]
        if name == "cond":
            total += max(branches, default=0)
        else:
            total += sum(branches)
    return total


def _count_inner(equation: Any, inner: Any, references: Mapping[Any, Any], trips: int) -> int:
    """Counts a function, loop or branch inside a kernel."""
    name = equation.primitive.name
    operands = equation.invars
    if name == "cond":
        operands = operands[1:]
    if name == "while":
        # The constants of the condition come first, then those of the body, then what is carried.
        params = equation.params
        num_condition = params["cond_nconsts"]
        if inner is params["cond_jaxpr"].jaxpr:
            operands = [*operands[:num_condition], *operands[num_condition + params["body_nconsts"] :]]
        else:
            operands = operands[num_condition:]
    if name == "scan":
        trips *= equation.params["length"]
    inner_references = {
        variable: references[operand]
        for variable, operand in zip(inner.invars, operands, strict=False)
        if not isinstance(operand, Literal) and operand in references
    }
    return _count_kernel(inner, inner_references, trips)


def _count_accesses(block: Any, array: Any, trips: int) -> int:
    """Counts the bytes of a load or store of a block of an array, which runs so often."""
    shape = block.shape
    if len(shape) == len(array.shape):
        shape = [min(sizes) for sizes in zip(shape, array.shape, strict=True)]
    moved = math.prod(shape) * array.dtype.itemsize * trips
    whole = _num_bytes(array)
    # The lengths of blocks are powers of two, so that blocks which cover an array once reach less than twice
    # as far, and a mask leaves out what is beyond it.
    if whole <= CACHED or moved < 2 * whole:
        return min(moved, whole)
    return moved


def _num_bytes(array: Any) -> int:
    return math.prod(array.shape) * array.dtype.itemsize
