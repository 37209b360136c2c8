"""Counts what Pallas kernels move and multiply, from the jaxpr of a function that calls them.

The text of a compiled program shows the operands of such a kernel once, however often it reads them, and no
operation. Its jaxpr shows each load, store and product, in the loops around them, and the grid over which the
kernel runs. `compiled.products` has the products.
"""

import contextlib
import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.extend.core import ClosedJaxpr, Jaxpr, Literal

from d3pm_jax.program.compiled.flops import inner_programs
from d3pm_jax.program.compiled.products import count_products
from d3pm_jax.program.compiled.programs import SECTOR, CallCount

# An array, or a block of one, of at most so many bytes is read from the memory of a card once by each load:
# all further reads are from caches.
CACHED = 2**20
# What calls a kernel: Triton's, and Mosaic GPU's.
CALLS = frozenset(["pallas_call", "mpmd_map"])
LOADS = frozenset(["get", "masked_load", "load"])
STORES = frozenset(["swap", "masked_swap", "addupdate", "store"])


def count_calls(jaxprs: Iterable[ClosedJaxpr]) -> dict[tuple[str, int], CallCount]:
    """Counts calls of Pallas kernels, by their name and the bytes of their operands and results.

    Those of one name are summed under 0 bytes too: for a call in a program for several cards, whose operands
    are a part of these. It moves a part of the bytes and does a part of the products, in the same ratio.

    What a kernel moves are its loads and stores, times the trips of the loops inside and of the grid.
    Elements beyond the end of an array, which a mask leaves out, do not count. Of branches the one that moves
    most counts, of a loop of unknown length one round. Of elements that lie apart whole sectors are moved;
    loads that follow each other share those that they are both in. What a load reads again of a block that
    a cache holds, as of the keys and values of a head in attention, which many programs of the grid read,
    does not count. Kernels for Mosaic GPU copy such blocks by hand: their operands and results count once.
    """
    counts: dict[tuple[str, int], CallCount] = {}
    for jaxpr in jaxprs:
        for call in _find_calls(jaxpr.jaxpr):
            shown = sum(_num_bytes(var.aval) for var in [*call.invars, *call.outvars])
            moved = shown
            if call.primitive.name == "pallas_call":
                moved = _count_call(call)
            count = CallCount(shown, moved, count_products(call))
            name = str(call.params["name"])
            for key in ((name, shown), (name, 0)):
                before = counts.get(key, CallCount(0, 0, Counter()))
                counts[key] = CallCount(
                    before.shown + count.shown, before.moved + count.moved, before.flops + count.flops
                )
    return counts


@contextlib.contextmanager
def watch_calls() -> Iterator[list[ClosedJaxpr]]:
    """Collects the jaxprs of the Pallas calls that are traced in the block.

    A call that is made only when a program is lowered for a card, or spread over cards, stands in no jaxpr of
    that program: the block has to hold the lowering and the compiling too. Calls for Mosaic GPU are in the
    jaxpr of the program alone.
    """
    jaxprs: list[ClosedJaxpr] = []
    pallas_call = pl.pallas_call

    def watched_pallas_call(*args: Any, **options: Any) -> Any:
        call = pallas_call(*args, **options)

        def watched_call(*operands: Any) -> Any:
            # An operand may be a tree of arrays, or None.
            shapes = jax.tree.map(lambda array: jax.ShapeDtypeStruct(array.shape, array.dtype), operands)
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
        if equation.primitive.name in CALLS:
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
    definitions = {variable: equation for equation in kernel.eqns for variable in equation.outvars}
    accesses: Counter[Any] = Counter()
    for equation in kernel.eqns:
        name = equation.primitive.name
        if name in LOADS or name in STORES:
            reference = equation.invars[0]
            if reference in references:
                block = equation.invars[1] if name == "addupdate" else equation.outvars[0]
                # Of a store what is stored comes before the index.
                indices = equation.invars[1 if name in LOADS else 2 :]
                distance = _find_distance(block.aval.shape, indices, definitions)
                accesses[name in LOADS, reference, block.aval.shape, distance] += 1
            # A swap returns what was there: a load too, where that is used.
            continue
        branches = [
            _count_inner(equation, inner, references, trips) for inner in inner_programs(equation.params)
        ]
        if name == "cond":
            total += max(branches, default=0)
        else:
            total += sum(branches)
    for (_, reference, shape, distance), number in accesses.items():
        array = references[reference]
        # A reference of the kernel is to a block of the array.
        is_cached = min(_num_bytes(array), _num_bytes(reference.aval)) <= CACHED
        total += _count_accesses(shape, array, trips, number, distance, is_cached=is_cached)
    return total


def _find_distance(shape: tuple[int, ...], indices: Any, definitions: Mapping[Any, Any]) -> int:
    """Returns how many elements an access of such a block goes on by for the next one, as far as it is known.

    Args:
        shape: of the block.
        indices: operands of the access, of which the index of each element counts.
        definitions: the equation that each variable is a result of.
    """
    axes = [axis for axis, size in enumerate(shape) if size > 1]
    for index in indices:
        if axes and index.aval.shape == shape and jnp.issubdtype(index.aval.dtype, jnp.integer):
            return max(1, _find_step(index, axes[-1], definitions))
    return 1


def _find_step(index: Any, axis: int, definitions: Mapping[Any, Any]) -> int:
    """Returns how much an index grows along an axis: of counts, their sums and multiples; 0 of all else."""
    is_single = index.aval.shape[axis : axis + 1] in ((), (1,))
    if is_single or isinstance(index, Literal) or index not in definitions:
        return 0
    equation = definitions[index]
    name = equation.primitive.name
    if name == "iota":
        return int(equation.params["dimension"] == axis)
    if name == "broadcast_in_dim":
        axes = equation.params["broadcast_dimensions"]
        return _find_step(equation.invars[0], axes.index(axis), definitions) if axis in axes else 0
    if name == "add":
        return sum(_find_step(operand, axis, definitions) for operand in equation.invars)
    if name == "mul" and isinstance(equation.invars[1], Literal):
        return int(equation.invars[1].val) * _find_step(equation.invars[0], axis, definitions)
    return 0


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


def _count_accesses(
    shape: Sequence[int], array: Any, trips: int, number: int, distance: int, *, is_cached: bool
) -> int:
    """Counts the bytes of so many loads or stores of a block of an array, which run so often.

    Each element costs its sector, and all of them at most what lies between them, or what they are.
    """
    if len(shape) == len(array.shape):
        shape = [min(sizes) for sizes in zip(shape, array.shape, strict=True)]
    elements = math.prod(shape) * trips
    apart = distance * array.dtype.itemsize
    taken = _limit_to_array(elements * array.dtype.itemsize, array, is_cached)
    of_sectors = _limit_to_array(elements * min(number * min(apart, SECTOR), apart), array, is_cached)
    return max(number * taken, of_sectors)


def _limit_to_array(moved: int, array: Any, is_cached: bool) -> int:
    """Returns how many of the bytes that are moved of an array come from memory, and belong to it."""
    whole = _num_bytes(array)
    # The lengths of blocks are powers of two, so that blocks which cover an array once reach less than twice
    # as far, and a mask leaves out what is beyond it.
    if is_cached or moved < 2 * whole:
        return min(moved, whole)
    return moved


def _num_bytes(array: Any) -> int:
    return math.prod(array.shape) * array.dtype.itemsize
