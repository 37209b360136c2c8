"""Computes a function of each row of logits and a few numbers in one read of the row: on NVIDIA GPUs.

XLA splits such a function into several kernels, each of which reads the logits, or what was made of them,
from memory. On an NVIDIA GPU a *row function* is one kernel of Pallas instead: it loads a block of rows,
computes in registers, and writes what it returns. Elsewhere, and where a kernel cannot be (float64, an
export), XLA takes the same function of all rows at once.

A row function is f(settings, row, numbers, tables):

    settings: hashable, and part of what is compiled.
    row: a `RowBlock`.
    numbers: a pytree of arrays [R], one number for each row.
    tables: a pytree of arrays [1, P], the same for all rows.
    returns: a pytree of arrays [R] or [R, P].

It is `jnp`, of what Triton has: no gathers, no concatenation, no `any`. What is at a category x is picked by
a comparison with `row.categories`. Blocks of Triton have powers of two as their lengths, so that P >= K: what
is beyond K has the logit -inf and the entry 0 of a table, and sums have to leave it out where that does not
do so.
"""

import math
from collections.abc import Callable, Hashable, Sequence
from functools import lru_cache, partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.core import ShapedArray
from jax.custom_batching import custom_vmap
from jax.experimental.custom_partitioning import custom_partitioning
from jax.extend.core import Primitive
from jax.interpreters import mlir
from jax.sharding import NamedSharding, PartitionSpec, get_abstract_mesh
from jaxtyping import Array

from d3pm_jax.checks import promote_types
from d3pm_jax.errors import one_line
from d3pm_jax.numerics import kernel_check, sliced_rows

# Elements of a block, and of a warp: more of them spill registers to memory.
BLOCK = 512
PER_WARP = 256
# The longest row that a block holds. A longer one goes to XLA.
LONGEST = 8192
# A kernel counts the elements of all rows by int32.
LARGEST_INDEX = 2**31 - 1


class RowBlock(NamedTuple):
    """Holds a block of rows."""

    logits: Any  # [R, P], float32, or float64 for such logits; None where the row function makes them
    categories: Array  # [1, P], int32: 0, 1, ..
    exists: Array  # [1, P], bool: whether a category is below K
    K: int


RowFunction = Callable[[Any, Any, Any, Any], Any]


def map_rows(
    f: RowFunction,
    settings: Hashable,
    logits: Array | None,
    numbers: Any,
    tables: Any = (),
    K: int | None = None,
) -> Any:
    """Applies a row function to every row of the logits.

    Args:
        f: a function of a module, whose results it is compiled once for.
        settings: what f is passed first.
        logits: [*S, K], of any float type; None for an f that makes them of its numbers.
        numbers: a pytree of arrays [*S], or of a shape that *S begins with; without logits one has all of it.
        tables: a pytree of arrays [K].
        K: number of categories, where there are no logits.

    Returns:
        What f returns for all rows: arrays [*S], or [*S, K] in the type of the logits.
    """
    call, leaves = _describe(f, settings, logits, numbers, tables, K)
    mesh = get_abstract_mesh()
    if mesh.manual_axes and mesh.auto_axes:
        # In a `shard_map` over some axes alone rows may be cut along K over the others, of which a kernel
        # knows nothing.
        return _unflatten_outputs(call, leaves, _by_xla(call, *leaves))
    if kernel_check.ALLOWED and _may_be_kernel(call, _ranks(call, leaves), _types(leaves)):
        call = call._replace(may_be_kernel=True)
    return _unflatten_outputs(call, leaves, _apply(call, *leaves))


# ---- What is computed ----


class Call(NamedTuple):
    """Says what is computed of the leaves of logits, numbers and tables, laid one behind the other."""

    f: RowFunction
    settings: Hashable
    K: int
    has_logits: bool
    numbers: Any  # how the leaves are arranged
    tables: Any
    may_be_kernel: bool = False

    def split(self, leaves: Sequence[Any]) -> tuple[Any, list[Any], list[Any]]:
        """Returns the logits, or None, the leaves of the numbers, and those of the tables."""
        logits = None
        if self.has_logits:
            logits, *leaves = leaves
        n = self.numbers.num_leaves
        return logits, list(leaves[:n]), list(leaves[n:])

    def shape(self, leaves: Sequence[Any]) -> tuple[int, ...]:
        """Returns *S."""
        logits, numbers, _ = self.split(leaves)
        if logits is not None:
            return tuple(logits.shape[:-1])
        return max((tuple(x.shape) for x in numbers), key=len)

    def apply(self, row: Any, numbers: Sequence[Any], tables: Sequence[Any]) -> Any:
        """Returns what the row function returns."""
        numbers = jax.tree.unflatten(self.numbers, numbers)
        tables = jax.tree.unflatten(self.tables, tables)
        return self.f(self.settings, row, numbers, tables)


def _describe(
    f: RowFunction, settings: Hashable, logits: Array | None, numbers: Any, tables: Any, K: int | None
) -> tuple[Call, list[Array]]:
    if logits is not None:
        K = logits.shape[-1]
    assert K is not None
    has_logits = logits is not None
    call = Call(f, settings, K, has_logits, jax.tree.structure(numbers), jax.tree.structure(tables))
    return call, jax.tree.leaves((logits, numbers, tables))


def _unflatten_outputs(call: Call, leaves: Sequence[Any], outputs: Sequence[Array]) -> Any:
    return jax.tree.unflatten(jax.tree.structure(_outputs_of_a_row(call, _types(leaves))), outputs)


def _outputs(call: Call, leaves: Sequence[Any]) -> list[jax.ShapeDtypeStruct]:
    """Returns shapes and types of the leaves of the outputs."""
    S = call.shape(leaves)
    outputs = jax.tree.leaves(_outputs_of_a_row(call, _types(leaves)))
    return [jax.ShapeDtypeStruct((*S, *x.shape[1:]), x.dtype) for x in outputs]


@lru_cache(maxsize=256)
def _outputs_of_a_row(call: Call, types: tuple) -> Any:
    """Returns shapes and types of what f returns of one row."""
    return jax.eval_shape(
        partial(_apply_to_arrays, call), *_make_shapes(call, (1,), (1,) * len(types), types)
    )


def _ranks(call: Call, leaves: Sequence[Any]) -> tuple[int, ...]:
    """Returns how many axes of two an array has where S has two: what a kernel is compared for."""
    ndim = len(call.shape(leaves))
    _, numbers, tables = call.split(leaves)
    of_numbers = [2 if x.ndim == ndim else min(x.ndim, 1) for x in numbers]
    return (*[2] * call.has_logits, *of_numbers, *[0] * len(tables))


def _types(leaves: Sequence[Any]) -> tuple:
    return tuple(x.dtype for x in leaves)


def _make_shapes(
    call: Call, S: tuple[int, ...], ranks: Sequence[int], types: Sequence[Any]
) -> list[jax.ShapeDtypeStruct]:
    """Returns shapes and types of the leaves, with the first axes of S for the numbers."""
    prefixes = [S[:rank] for rank in ranks]
    _, numbers, tables = call.split(prefixes)
    shapes = [*[(*S, call.K)] * call.has_logits, *numbers, *[(call.K,)] * len(tables)]
    return [jax.ShapeDtypeStruct(*x) for x in zip(shapes, types, strict=True)]


def _float_type(types: Sequence[Any]) -> Any:
    """Returns the type that a row is computed in: the widest of the arguments, float32 at least."""
    return promote_types(jnp.float32, *(x for x in types if jnp.issubdtype(x, jnp.floating)))


@lru_cache(maxsize=256)
def _may_be_kernel(call: Call, ranks: tuple[int, ...], types: tuple) -> bool:
    """Says whether programs for CUDA take a kernel, which gives what XLA does on the GPU that is there."""
    fits = sliced_rows.takes_slices(call.f) or call.K <= LONGEST
    if not fits or _float_type(types) != jnp.float32 or not kernel_check.has_triton():
        return False
    shapes = _make_shapes(call, kernel_check.SHAPE, ranks, types)
    kernel = partial(_by_pallas, call)
    return kernel_check.agrees(call.f.__name__, kernel, partial(_by_xla, call), call.K, shapes)


def _widen(x: Array) -> Array:
    """Returns integers as int32: of uint8 256 would be 0."""
    if jnp.issubdtype(x.dtype, jnp.integer):
        return x.astype(jnp.int32)
    return x


# ---- Rows through XLA ----


def _by_xla(call: Call, *leaves: Array) -> list[Array]:
    return jax.tree.leaves(_apply_to_arrays(call, *leaves))


def _apply_to_arrays(call: Call, *leaves: Array) -> Any:
    """Returns what f returns of all rows as one; what has the shape of the logits in their type."""
    outputs = call.apply(*_row_of_arrays(call, *leaves))
    logits, _, _ = call.split(leaves)
    if logits is None:
        return outputs
    return jax.tree.map(lambda x: x.astype(logits.dtype) if x.shape == logits.shape else x, outputs)


def _row_of_arrays(call: Call, *leaves: Array) -> tuple[Any, list[Array], list[Array]]:
    """Returns all rows as one, and the numbers and tables beside it."""
    logits, numbers, tables = call.split(leaves)
    S = call.shape(leaves)

    def as_row(x: Array) -> Array:
        return x.reshape((1,) * len(S) + (call.K,))

    tables = [as_row(x) for x in tables]
    numbers = [jnp.broadcast_to(_widen(x).reshape(x.shape + (1,) * (len(S) - x.ndim)), S) for x in numbers]
    if logits is not None:
        logits = logits.astype(_float_type(_types(leaves)))
    if sliced_rows.takes_slices(call.f):
        assert logits is not None
        return sliced_rows.SlicesOfArray(logits, tables), numbers, tables
    categories = as_row(jnp.arange(call.K, dtype=jnp.int32))
    return RowBlock(logits, categories, jnp.ones_like(categories, bool), call.K), numbers, tables


# ---- Rows by a kernel ----


def _by_pallas(call: Call, *leaves: Array, interpret: bool = False) -> list[Array]:
    from jax.experimental import pallas as pl
    from jax.experimental.pallas import triton

    K = call.K
    N = math.prod(call.shape(leaves))
    P = pl.next_power_of_2(K)
    R = max(1, BLOCK // P)
    warps = max(1, R * P // PER_WARP)
    if sliced_rows.takes_slices(call.f):
        P, R, warps = sliced_rows.choose_block(call.f, K)
    outputs = _outputs(call, leaves)

    def kernel(*refs: Any) -> None:
        logits_ref, number_refs, table_refs = call.split(refs[: len(leaves)])
        output_refs = refs[len(leaves) :]

        # Blocks are not cut off at the end of an array: every load and store beyond it has to be masked, or
        # it would reach the next row.
        rows = pl.program_id(0) * R + jnp.arange(R)  # [R]
        categories = jnp.arange(P, dtype=jnp.int32)  # [P]
        is_row = rows < N
        exists = categories < K
        is_entry = is_row[:, None] & exists[None, :]

        def entries(ref: Any) -> Any:
            return ref.at[rows[:, None] * K + categories[None, :]]

        numbers = [
            _widen(triton.load(ref.at[rows // (N // ref.shape[0])], mask=is_row, other=0))
            for ref in number_refs
        ]
        if sliced_rows.takes_slices(call.f):
            # It takes its tables from the row.
            row = sliced_rows.SlicesInMemory(logits_ref, table_refs, rows, is_row, K, P)
            tables = table_refs  # which it does not read
        else:
            logits = None
            if logits_ref is not None:
                logits = triton.load(entries(logits_ref), mask=is_entry, other=-jnp.inf).astype(jnp.float32)
            row = RowBlock(logits, categories[None], exists[None], K)
            tables = [triton.load(ref.at[categories], mask=exists, other=0)[None] for ref in table_refs]
        results = jax.tree.leaves(call.apply(row, numbers, tables))
        for ref, result in zip(output_refs, results, strict=True):
            if result.ndim == 2:
                triton.store(entries(ref), result.astype(ref.dtype), mask=is_entry)
            else:
                triton.store(ref.at[rows], result.astype(ref.dtype), mask=is_row)

    results = pl.pallas_call(
        kernel,
        out_shape=[jax.ShapeDtypeStruct((math.prod(x.shape),), x.dtype) for x in outputs],
        grid=(pl.cdiv(N, R),),
        compiler_params=triton.CompilerParams(num_warps=warps),
        name=call.f.__name__,
        interpret=interpret,
    )(*[x.reshape(-1) for x in leaves])
    return [result.reshape(x.shape) for result, x in zip(results, outputs, strict=True)]


# ---- The primitive, whose form is chosen when a program is lowered ----

map_rows_p = Primitive("map_rows")
map_rows_p.multiple_results = True


@map_rows_p.def_abstract_eval
def _(*leaves: Any, call: Call) -> list:
    return [ShapedArray(x.shape, x.dtype) for x in _outputs(call, leaves)]


@map_rows_p.def_impl
def _(*leaves: Any, call: Call) -> Any:
    return _by_xla(call, *leaves)


def _lower_for_xla(ctx: Any, *leaves: Any, call: Call) -> Any:
    return mlir.lower_fun(partial(_by_xla, call), multiple_results=True)(ctx, *leaves)


def _lower_for_cuda(ctx: Any, *leaves: Any, call: Call) -> Any:
    exported = ctx.module_context.lowering_parameters.for_export or len(ctx.module_context.platforms) > 1
    sizes = [x.size for x in (*ctx.avals_in, *ctx.avals_out)]
    fits = min(sizes) > 0 and max(sizes) <= LARGEST_INDEX
    if not call.may_be_kernel or exported or not fits or not kernel_check.has_backend():
        return _lower_for_xla(ctx, *leaves, call=call)
    try:
        with kernel_check.silence_deprecation():
            return mlir.lower_fun(partial(_by_pallas, call), multiple_results=True)(ctx, *leaves)
    except Exception as error:  # of a compiler, whose errors have no type in common
        # What was written of the kernel before it failed is used by nothing, and XLA leaves it out.
        kernel_check.give_up_once(
            f"a kernel cannot be lowered, {one_line(error, 200)!r}: if that names no cure, please report this"
            f" line, with the version of jax ({jax.__version__})"
        )
        return _lower_for_xla(ctx, *leaves, call=call)


mlir.register_lowering(map_rows_p, _lower_for_xla)
mlir.register_lowering(map_rows_p, _lower_for_cuda, platform="cuda")

# ---- What JAX makes of it: derivatives, batches, and rows that are spread over devices ----


def _apply(call: Call, *leaves: Array) -> list[Array]:
    """Applies the primitive, with the rules of all transformations."""

    @custom_vmap
    def in_batches(*leaves: Array) -> list[Array]:
        return _over_devices(call)(*leaves)

    @in_batches.def_vmap
    def _(size: int, is_batched: Sequence[bool], *leaves: Array) -> tuple[list[Array], list[bool]]:
        logits_are_batched, _, tables_are_batched = call.split(is_batched)
        if any(tables_are_batched) or logits_are_batched is False:
            # Rows of a kernel share their tables, and logits that are not batched would be copied for it.
            in_axes = [0 if batched else None for batched in is_batched]
            outputs = jax.vmap(partial(_by_xla, call), in_axes, axis_size=size)(*leaves)
        else:
            logits, numbers, tables = call.split(leaves)
            _, numbers_are_batched, _ = call.split(is_batched)
            batch = [
                x if batched else jnp.broadcast_to(x, (size, *x.shape))
                for x, batched in zip(numbers, numbers_are_batched, strict=True)
            ]
            outputs = _apply(call, *[logits] * call.has_logits, *batch, *tables)
        return list(outputs), [True] * len(outputs)

    # What calls this has its gradient by hand. The derivative of that is of XLA's form.
    @jax.custom_jvp
    def differentiable(*leaves: Array) -> list[Array]:
        return vary_as(leaves, in_batches(*leaves))

    @differentiable.defjvp
    def _(leaves: Any, tangents: Any) -> Any:
        return jax.jvp(partial(_by_xla, call), leaves, tangents)

    return differentiable(*leaves)


def vary_as(arguments: Sequence[Array], results: Sequence[Array]) -> list[Array]:
    """Says of results that they vary over the axes of a `shard_map` over which arguments do."""
    varying = frozenset().union(*(jax.typeof(x).mat.varying for x in arguments))
    if not varying:
        return list(results)
    return [jax.lax.pcast(x, tuple(varying - jax.typeof(x).mat.varying), to="varying") for x in results]


def _bind(call: Call, *leaves: Array) -> list[Array]:
    return map_rows_p.bind(*leaves, call=call)


@lru_cache(maxsize=256)
def _over_devices(call: Call) -> Any:
    """Returns the primitive with the rules by which its rows are spread over devices.

    XLA knows nothing of what a kernel does, and would gather its arguments on every device. It is told that
    all axes but the last may be spread, each device taking its rows.
    """
    # The call is no static argument: JAX 0.12 would keep tracers then, which jax_check_tracer_leaks finds.
    spread = custom_partitioning(partial(_bind, call))
    spread.def_partition(partition=partial(_partition, call), sharding_rule=partial(_sharding_rule, call))
    return spread


def _partition(call: Call, mesh: Any, arguments: Any, results: Any) -> tuple:
    S = call.shape(arguments)
    sharding = next(x.sharding for x in arguments if tuple(x.shape[: len(S)]) == S)
    axes = (*sharding.spec, *(None,) * len(S))[: len(S)]

    def spread(x: Any) -> NamedSharding:
        spec = (*axes, None)[: len(x.shape)]
        return NamedSharding(sharding.mesh, PartitionSpec(*spec))

    whole = NamedSharding(sharding.mesh, PartitionSpec())
    _, _, tables = call.split(arguments)
    of_arguments = [spread(x) for x in arguments[: len(arguments) - len(tables)]]
    of_arguments += [whole] * len(tables)
    return sharding.mesh, partial(_bind, call), [spread(x) for x in results], tuple(of_arguments)


def _sharding_rule(call: Call, mesh: Any, arguments: Any, results: Any) -> tuple:
    _, _, tables = call.split(arguments)
    names = [f"s{i}" for i in range(len(call.shape(arguments)))] + ["k"]
    of_rows = [" ".join(names[: len(x.shape)]) for x in arguments[: len(arguments) - len(tables)]]
    outputs = [" ".join(names[: len(x.shape)]) for x in results]
    rule = f"{', '.join([*of_rows, *['k'] * len(tables)])} -> {', '.join(outputs)}"
    factors = {}
    if "k" in " ".join([*of_rows, *outputs]).split() or tables:
        factors = {"need_replication_factors": ("k",)}
    return rule, factors
