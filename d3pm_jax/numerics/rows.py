"""Computes a function of each row of logits and a few numbers in one read of the row: on NVIDIA GPUs.

XLA splits such a function into several kernels, each of which reads the logits, or what was made of them,
from memory. On an NVIDIA GPU a *row function* is one kernel of Pallas instead: it loads a block of rows,
computes in registers, and writes what it returns. Elsewhere, and where a kernel cannot be (float64, an
export), XLA takes the same function of all rows at once.

A row function is f(settings, row, numbers, tables):

    settings: hashable, and part of what is compiled.
    row: a `Row`.
    numbers: arrays [R], one number for each row.
    tables: arrays [1, P], the same for all rows.
    returns: a tuple of arrays [R] or [R, P].

It is `jnp`, of what Triton has: no gathers, no concatenation, no `any`. What is at a category x is picked by
a comparison with `row.categories`. Blocks of Triton have powers of two as their lengths, so that P >= K: what
is beyond K has the logit -inf and the entry 0 of a table, and sums have to leave it out where that does not
do so.
"""

import dataclasses
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
from jax.sharding import NamedSharding, PartitionSpec
from jaxtyping import Array

from d3pm_jax.numerics import kernel_check, sliced_rows
from d3pm_jax.numerics.sliced_rows import takes_slices

# Elements of a block, and of a warp: more of them spill registers to memory.
BLOCK = 512
PER_WARP = 256
# The longest row that a block holds. A longer one goes to XLA.
LONGEST = 8192
# A kernel counts the elements of all rows by int32.
LARGEST_INDEX = 2**31 - 1
# What a program for CUDA is made of.
KERNEL = "kernel"
XLA = "XLA"


class Row(NamedTuple):
    """Holds a block of rows."""

    logits: Any  # [R, P], float32, or float64 for such logits; None where the row function makes them
    categories: Array  # [1, P], int32: 0, 1, ..
    exists: Array  # [1, P], bool: whether a category is below K
    K: int


RowFunction = Callable[[Any, Any, Sequence[Array], Sequence[Array]], tuple[Array, ...]]


@dataclasses.dataclass(frozen=True)
class MakesLogits:
    """Marks a row function that makes its logits of its numbers, the first of which stands in their place."""

    f: RowFunction
    K: int

    @property
    def __name__(self) -> str:
        return self.f.__name__

    def __call__(self, settings: Any, row: Row, numbers: Sequence[Array], tables: Sequence[Array]) -> Any:
        return self.f(settings, row._replace(logits=None), [row.logits, *numbers], tables)


def _shape_of_rows(f: RowFunction, logits: Any) -> tuple[tuple[int, ...], int]:
    """Returns *S and K."""
    shape = tuple(logits.shape)
    if isinstance(f, MakesLogits):
        return shape, f.K
    return shape[:-1], shape[-1]


def map_rows(
    f: RowFunction,
    settings: Hashable,
    logits: Array,
    numbers: Sequence[Array],
    tables: Sequence[Array] = (),
) -> tuple[Array, ...]:
    """Applies a row function to every row of the logits.

    Args:
        f: a function of a module, whose results it is compiled once for.
        settings: what f is passed first.
        logits: [*S, K], of any float type; the first number [*S] for an f that `MakesLogits`.
        numbers: arrays [*S], or of a shape that *S begins with.
        tables: arrays [K].

    Returns:
        The outputs of f for all rows: [*S], or [*S, K] in the type of the logits.
    """
    arguments = (logits, *numbers, *tables)
    _, K = _shape_of_rows(f, logits)
    fits = takes_slices(f) or K <= LONGEST
    can_be_kernel = fits and _float_type(*arguments) == jnp.float32
    form = XLA
    if can_be_kernel and kernel_check.may_use_kernels():
        form = _choose_form(f, settings, len(numbers), K, tuple(x.dtype for x in arguments))
    return _map_rows(f, settings, form, logits, numbers, tables)


def _map_rows(
    f: RowFunction,
    settings: Hashable,
    form: str,
    logits: Array,
    numbers: Sequence[Array],
    tables: Sequence[Array],
) -> tuple[Array, ...]:
    @custom_vmap
    def apply(logits: Array, numbers: Sequence[Array], tables: Sequence[Array]) -> list[Array]:
        return _spread_over_devices(len(numbers), form)(f, settings, logits, *numbers, *tables)

    @apply.def_vmap
    def _(
        size: int, is_batched: Any, logits: Array, numbers: Sequence[Array], tables: Sequence[Array]
    ) -> Any:
        if any(is_batched[2]):
            # Rows of a kernel share their tables.
            by_xla = partial(_by_xla, f, settings, len(numbers))
            in_axes = [0 if batched else None for batched in jax.tree.leaves(is_batched)]
            outputs = jax.vmap(by_xla, in_axes, axis_size=size)(logits, *numbers, *tables)
            return outputs, [True] * len(outputs)
        batch = [
            x if batched else jnp.broadcast_to(x, (size, *x.shape))
            for x, batched in zip((logits, *numbers), (is_batched[0], *is_batched[1]), strict=True)
        ]
        outputs = list(_map_rows(f, settings, form, batch[0], batch[1:], tables))
        return outputs, [True] * len(outputs)

    return tuple(apply(logits, list(numbers), list(tables)))


@lru_cache(maxsize=256)
def _choose_form(f: RowFunction, settings: Hashable, num_numbers: int, K: int, types: tuple) -> str:
    """Returns KERNEL, or XLA where the kernel does not give the same on the GPU of this process."""
    arguments = _arguments_of_rows(f, num_numbers, kernel_check.ROWS, K, types)
    kernel = partial(_by_pallas, f, settings, num_numbers)
    reference = partial(_by_xla, f, settings, num_numbers)
    if kernel_check.agrees(f.__name__, kernel, reference, K, arguments):
        return KERNEL
    return XLA


def _arguments_of_rows(f: RowFunction, num_numbers: int, N: int, K: int, types: tuple) -> list:
    """Returns shapes and types of the arguments of a row function for N rows."""
    first = (N,) if isinstance(f, MakesLogits) else (N, K)
    shapes = [first] + [(N,)] * num_numbers + [(K,)] * (len(types) - 1 - num_numbers)
    return [jax.ShapeDtypeStruct(*x) for x in zip(shapes, types, strict=True)]


# ---- Rows through XLA ----


def _by_xla(f: RowFunction, settings: Hashable, num_numbers: int, logits: Array, *rest: Array):
    S, K = _shape_of_rows(f, logits)
    wide = logits.astype(_float_type(logits, *rest))

    def as_row(x: Array) -> Array:
        return x.reshape((1,) * len(S) + (K,))

    categories = as_row(jnp.arange(K, dtype=jnp.int32))
    tables = [as_row(x) for x in rest[num_numbers:]]
    row = Row(wide, categories, jnp.ones_like(categories, bool), K)
    if takes_slices(f):
        row = sliced_rows.SlicesOfArray(wide, tables)
    numbers = [jnp.broadcast_to(x.reshape(x.shape + (1,) * (len(S) - x.ndim)), S) for x in rest[:num_numbers]]
    results = f(settings, row, numbers, tables)
    return [x.astype(logits.dtype) if x.shape == (*S, K) else x for x in results]


def _float_type(*arguments: Any) -> Any:
    """Returns the type that a row is computed in: the widest of the arguments, float32 at least."""
    return jnp.result_type(
        jnp.float32, *(x.dtype for x in arguments if jnp.issubdtype(x.dtype, jnp.floating))
    )


# ---- Rows by a kernel ----


def _by_pallas(
    f: RowFunction,
    settings: Hashable,
    num_numbers: int,
    logits: Array,
    *rest: Array,
    interpret: bool = False,
) -> list[Array]:

    from jax.experimental import pallas as pl
    from jax.experimental.pallas import triton

    S, K = _shape_of_rows(f, logits)
    N = math.prod(S)
    P = pl.next_power_of_2(K)
    R = max(1, BLOCK // P)
    warps = max(1, R * P // PER_WARP)
    if takes_slices(f):
        P, R, warps = sliced_rows.choose_block(K)
    outputs = _shapes(f, settings, num_numbers, logits, *rest)

    def kernel(*refs: Any) -> None:
        logits_ref, *others = refs
        number_refs = others[:num_numbers]
        table_refs = others[num_numbers : len(rest)]
        output_refs = others[len(rest) :]

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
            triton.load(ref.at[rows // (N // ref.shape[0])], mask=is_row, other=0) for ref in number_refs
        ]
        if takes_slices(f):
            row = sliced_rows.SlicesInMemory(logits_ref, table_refs, rows, is_row, K, P)
            for ref, result in zip(output_refs, f(settings, row, numbers, ()), strict=True):
                triton.store(ref.at[rows], result.astype(ref.dtype), mask=is_row)
            return

        if isinstance(f, MakesLogits):
            block = triton.load(logits_ref.at[rows], mask=is_row, other=0)
        else:
            block = triton.load(entries(logits_ref), mask=is_entry, other=-jnp.inf).astype(jnp.float32)
        tables = [triton.load(ref.at[categories], mask=exists, other=0)[None] for ref in table_refs]
        row = Row(block, categories[None], exists[None], K)
        results = f(settings, row, numbers, tables)
        for ref, result in zip(output_refs, results, strict=True):
            if result.ndim == 2:
                triton.store(entries(ref), result.astype(ref.dtype), mask=is_entry)
            else:
                triton.store(ref.at[rows], result.astype(ref.dtype), mask=is_row)

    flat = [x.reshape(-1) for x in (logits, *rest)]
    results = pl.pallas_call(
        kernel,
        out_shape=[jax.ShapeDtypeStruct((math.prod(x.shape),), x.dtype) for x in outputs],
        grid=(pl.cdiv(N, R),),
        compiler_params=triton.CompilerParams(num_warps=warps),
        name=f.__name__,
        interpret=interpret,
    )(*flat)
    return [result.reshape(x.shape) for result, x in zip(results, outputs, strict=True)]


# ---- The primitive, whose form is chosen when a program is lowered ----

map_rows_p = Primitive("map_rows")
map_rows_p.multiple_results = True


def _shapes(f: RowFunction, settings: Hashable, num_numbers: int, *arguments: Any) -> list:
    """Returns shapes and types of the outputs."""
    S, K = _shape_of_rows(f, arguments[0])
    outputs = _outputs_of_a_row(f, settings, num_numbers, K, tuple(x.dtype for x in arguments))
    return [jax.ShapeDtypeStruct((*S, *x.shape[1:]), x.dtype) for x in outputs]


@lru_cache(maxsize=256)
def _outputs_of_a_row(f: RowFunction, settings: Hashable, num_numbers: int, K: int, types: tuple) -> Any:
    arguments = _arguments_of_rows(f, num_numbers, 1, K, types)
    return jax.eval_shape(partial(_by_xla, f, settings, num_numbers), *arguments)


@map_rows_p.def_abstract_eval
def _(*arguments: Any, f: RowFunction, settings: Hashable, num_numbers: int, form: str) -> list:
    outputs = _shapes(f, settings, num_numbers, *arguments)
    return [ShapedArray(x.shape, x.dtype) for x in outputs]


@map_rows_p.def_impl
def _(*arguments: Any, f: RowFunction, settings: Hashable, num_numbers: int, form: str) -> Any:
    return _by_xla(f, settings, num_numbers, *arguments)


def _lower_for_xla(
    ctx: Any, *arguments: Any, f: RowFunction, settings: Hashable, num_numbers: int, form: str
) -> Any:
    return mlir.lower_fun(partial(_by_xla, f, settings, num_numbers), multiple_results=True)(ctx, *arguments)


def _lower_for_cuda(ctx: Any, *arguments: Any, form: str, **params: Any) -> Any:
    exported = ctx.module_context.lowering_parameters.for_export or len(ctx.module_context.platforms) > 1
    if form == XLA or exported or not 0 < ctx.avals_in[0].size <= LARGEST_INDEX:
        return _lower_for_xla(ctx, *arguments, form=form, **params)
    by_pallas = partial(_by_pallas, params["f"], params["settings"], params["num_numbers"])
    return mlir.lower_fun(by_pallas, multiple_results=True)(ctx, *arguments)


mlir.register_lowering(map_rows_p, _lower_for_xla)
mlir.register_lowering(map_rows_p, _lower_for_cuda, platform="cuda")

# ---- Rows that are spread over devices ----
#
# XLA knows nothing of what a kernel does, and would gather its arguments on every device. It is told that all
# axes but the last may be spread, each device taking its rows.


@lru_cache(maxsize=64)
def _spread_over_devices(num_numbers: int, form: str) -> Any:
    """Returns `map_rows_p` of so many numbers, which each device applies to its rows."""

    def apply(f: RowFunction, settings: Hashable, *arguments: Array) -> list[Array]:
        return map_rows_p.bind(*arguments, f=f, settings=settings, num_numbers=num_numbers, form=form)

    def partition(f: RowFunction, settings: Hashable, mesh: Any, arguments: Any, results: Any) -> tuple:
        sharding = arguments[0].sharding
        num_axes = len(_shape_of_rows(f, arguments[0])[0])
        axes = (tuple(sharding.spec) + (None,) * num_axes)[:num_axes]

        def spread(x: Any) -> NamedSharding:
            spec = (*axes, None)[: len(x.shape)]
            return NamedSharding(sharding.mesh, PartitionSpec(*spec))

        whole = NamedSharding(sharding.mesh, PartitionSpec())
        of_arguments = [spread(x) for x in arguments[: 1 + num_numbers]]
        of_arguments += [whole for _ in arguments[1 + num_numbers :]]
        return sharding.mesh, partial(apply, f, settings), [spread(x) for x in results], tuple(of_arguments)

    def make_rule(f: RowFunction, settings: Hashable, mesh: Any, arguments: Any, results: Any) -> tuple:
        num_axes = len(_shape_of_rows(f, arguments[0])[0])
        names = [f"s{i}" for i in range(num_axes)] + ["k"]
        of_rows = [" ".join(names[: len(x.shape)]) for x in arguments[: 1 + num_numbers]]
        of_tables = ["k"] * (len(arguments) - 1 - num_numbers)
        outputs = [" ".join(names[: len(x.shape)]) for x in results]
        rule = f"{', '.join(of_rows + of_tables)} -> {', '.join(outputs)}"
        return rule, {"need_replication_factors": ("k",)}

    spread_apply = custom_partitioning(apply, static_argnums=(0, 1))
    spread_apply.def_partition(partition=partition, sharding_rule=make_rule)
    return spread_apply
