"""Counts the products of matrices in Pallas kernels, for all places of their grid at once.

A kernel asks where it is in its grid, and what it multiplies may depend on it: blocks beyond a diagonal are
left out, of a group of threads one copies and others multiply, and a loop ends where the work of a place
does. So the whole numbers of a kernel that follow from its place are computed here, for each place.
"""

import itertools
import math
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from jax.extend.core import Jaxpr, Literal

from d3pm_jax.program.compiled.flops import inner_programs

# Products of Triton's kernels, and those of Mosaic GPU for an H100, an A100 and a B200.
PRODUCTS = frozenset(["dot_general", "wgmma_ref", "wgmma", "mma", "tcgen05_mma"])
# Operations of whole numbers, from which bounds of loops and choices of branches are made.
NUMBERS: Mapping[str, Callable[..., Any]] = {
    "add": np.add,
    "sub": np.subtract,
    "mul": np.multiply,
    # Towards zero, as those of XLA.
    "div": lambda x, y: (x - np.fmod(x, y)) // y,
    "rem": np.fmod,
    "max": np.maximum,
    "min": np.minimum,
    "neg": np.negative,
    "sign": np.sign,
    "clamp": lambda low, x, high: np.clip(x, low, high),
    "eq": np.equal,
    "ne": np.not_equal,
    "lt": np.less,
    "le": np.less_equal,
    "gt": np.greater,
    "ge": np.greater_equal,
    "and": np.bitwise_and,
    "or": np.bitwise_or,
    "xor": np.bitwise_xor,
    "not": np.invert,
    "select_n": lambda which, *cases: np.choose(which.astype(int), cases),
    "convert_element_type": lambda x: x,
}
# By variable, or by axis of a grid: its number at each place [P], or at all of them [1]; None where it is not
# known.
Known = Mapping[Any, Any]


def count_products(call: Any) -> Counter[str]:
    """Counts the operations of the products of one call of a kernel, by type as in `programs.Kernel.flops`.

    What is done element by element does not count. Of branches that depend on data the one that multiplies
    most counts, of a loop of unknown length one round.
    """
    # A division by zero is one of a place that does not come to it.
    with np.errstate(all="ignore"):
        if call.primitive.name == "mpmd_map":
            return _count_meshes(call, {}, np.ones(1, int))
        grid_mapping = call.params["grid_mapping"]
        # Axes that vmap has added have no number that the kernel could ask for.
        added = grid_mapping.vmapped_dims
        sizes = [size for axis, size in enumerate(grid_mapping.grid) if axis not in added]
        repeats = math.prod(grid_mapping.grid[axis] for axis in added)
        known, runs = _spread(dict(enumerate(sizes)), {}, np.full(1, repeats))
        return _count_program(call.params["jaxpr"], [], known, runs)[0]


def _spread(sizes: Mapping[Any, int], known: Known, runs: Any) -> tuple[dict[Any, Any], Any]:
    """Puts the places of a grid into each place; returns what is known there, and how often each runs."""
    number = math.prod(sizes.values())
    axes = np.indices(tuple(sizes.values())).reshape(len(sizes), number)
    spread = {
        name: np.repeat(np.broadcast_to(value, runs.shape), number)
        for name, value in known.items()
        if value is not None
    }
    places = {axis: np.tile(place, len(runs)) for axis, place in zip(sizes, axes, strict=True)}
    return {**spread, **places}, np.repeat(runs, number)


def _count_meshes(call: Any, known: Known, runs: Any) -> Counter[str]:
    """Counts kernels of Mosaic GPU, each of which runs on a mesh of blocks and threads."""
    total: Counter[str] = Counter()
    for program, mesh in zip(call.params["jaxprs"], call.params["meshes"], strict=True):
        inside = {**known, **dict(zip(program.invars, _find_numbers(call.invars, known), strict=False))}
        total += _count_program(program, [], *_spread(mesh.shape, inside, runs))[0]
    return total


def _find_numbers(operands: Sequence[Any], known: Known) -> list[Any]:
    """Returns whole numbers; None for what is not one, or not known."""
    values = [
        np.atleast_1d(operand.val) if isinstance(operand, Literal) else known.get(operand)
        for operand in operands
    ]
    return [value if value is not None and value.dtype.kind in "iub" else None for value in values]


def _count_program(
    program: Jaxpr, values: Sequence[Any], known: Known, runs: Any
) -> tuple[Counter[str], list[Any]]:
    """Counts a program that runs so often at each place; returns its results too, where they are known."""
    # What a program closes over are its constants, and then its only operands.
    numbers = {**known, **dict(zip([*program.constvars, *program.invars], values, strict=False))}
    total: Counter[str] = Counter()
    for equation in program.eqns:
        flops, results = _count_equation(equation, numbers, runs)
        total += flops
        numbers |= zip(equation.outvars, results, strict=False)
    return total, _find_numbers(program.outvars, numbers)


def _count_equation(equation: Any, known: Known, runs: Any) -> tuple[Counter[str], list[Any]]:
    """Counts one operation, and what is inside of it."""
    name = equation.primitive.name
    params = equation.params
    values = _find_numbers(equation.invars, known)
    if name in PRODUCTS:
        kind, flops = _count_product(equation)
        return Counter({kind: flops * int(runs.sum())}), []
    if name in ("program_id", "axis_index"):
        return Counter(), [known.get(params.get("axis", params.get("axis_name")))]
    are_known = all(value is not None for value in values)
    if name in NUMBERS and are_known and equation.outvars[0].aval.dtype.kind in "iub":
        return Counter(), [NUMBERS[name](*values)]
    if name == "mpmd_map":
        return _count_meshes(equation, known, runs), []
    if name == "while":
        return _count_loop(equation, values, known, runs)
    if name == "cond":
        which, *values = values
        counted = [
            _count_program(branch.jaxpr, values, known, runs * (which is None or which == number))[0]
            for number, branch in enumerate(params["branches"])
        ]
        return max(counted, key=Counter.total) if which is None else sum(counted, Counter()), []

    if name == "scan":
        # In a kernel it goes over no arrays: what is carried comes last, and changes.
        values = values[: len(values) - len(equation.outvars)]
        runs = runs * params["length"]
    counted = [_count_program(inner, values, known, runs) for inner in inner_programs(params)]
    results = counted[0][1] if len(counted) == 1 and name != "scan" else []
    return sum((flops for flops, _ in counted), Counter()), results


def _count_loop(equation: Any, values: list[Any], known: Known, runs: Any) -> tuple[Counter[str], list[Any]]:
    """Counts a loop round by round, at each place as many as it does, where that is known."""
    params = equation.params
    # The constants of the condition come first, then those of the body.
    num_condition = params["cond_nconsts"]
    num_constants = num_condition + params["body_nconsts"]
    carried = values[num_constants:]
    total: Counter[str] = Counter()
    while True:
        arguments = [*values[:num_condition], *carried]
        (goes_on,) = _count_program(params["cond_jaxpr"].jaxpr, arguments, known, runs)[1]
        rounds = runs if goes_on is None else runs * goes_on
        if not rounds.any():
            return total, carried
        arguments = [*values[num_condition:num_constants], *carried]
        flops, results = _count_program(params["body_jaxpr"].jaxpr, arguments, known, rounds)
        total += flops
        if goes_on is None:
            return total, []
        carried = [
            None if before is None or after is None else np.where(goes_on, after, before)
            for before, after in zip(carried, results, strict=True)
        ]


def _count_product(equation: Any) -> tuple[str, int]:
    """Returns the type of a product, and the operations of one run of it at one place."""
    params = equation.params
    arrays = [operand.aval for operand in equation.invars]
    if equation.primitive.name == "dot_general":
        (contracted, _), _ = params["dimension_numbers"]
        length = math.prod(arrays[0].shape[axis] for axis in contracted)
        return _find_type(arrays[0], params), 2 * equation.outvars[0].aval.size * length

    # What the product is added to comes first, then its factors. What transforms of references take comes
    # last, in the same order. Of a pair of blocks each adds to its own sums, with the halves of a factor that
    # both hold: sums and the first factor tell how much that is.
    trees = {
        name: tree for name, tree in params.items() if name.endswith("transforms_tree") and tree is not None
    }
    leaves = iter(arrays[len(arrays) - sum(tree.num_leaves for tree in trees.values()) :])
    for place, name in enumerate(("acc_transforms_tree", "a_transforms_tree")):
        if name in trees:
            taken = itertools.islice(leaves, trees[name].num_leaves)
            for transform in trees[name].unflatten(taken):
                arrays[place] = transform.transform_type(arrays[place])
    return _find_type(arrays[1], params), 2 * math.prod(arrays[0].shape) * arrays[1].shape[1]


def _find_type(factor: Any, params: Mapping[str, Any]) -> str:
    """Returns the arithmetic of a product, as `programs` names it."""
    if factor.dtype.itemsize == 4:
        return "f32" if re.search("HIGHEST|F32_F32_F32", str(params.get("precision"))) else "tf32"
    return "f64" if factor.dtype.itemsize == 8 else "bf16"
