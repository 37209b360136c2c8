"""Stands for logits that are made where they are read, some places at a time: those of a large vocabulary.

With K = 50,257 and 4 x 1,024 places logits take 824 MB, and their gradient as much again. A `Projection`
holds what they are made of, hidden states and a kernel. `by_rows`, `at_places` and `weigh` take either.
"""

import dataclasses
import math
from collections.abc import Callable
from functools import partial, singledispatch
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.custom_derivatives import SymbolicZero
from jax.sharding import (
    AbstractMesh,
    Mesh,
    NamedSharding,
    PartitionSpec,
    get_abstract_mesh,
)
from jaxtyping import Array

from d3pm_jax.cpu import tiles
from d3pm_jax.numerics.logspace import at_least_float32
from d3pm_jax.numerics.rows import vary_as
from d3pm_jax.processes.base import Process
from d3pm_jax.processes.tables import expand_trailing
from d3pm_jax.types import Leaf

# Places whose logits are in memory at a time: on a CPU, and on an accelerator.
PLACES_ON_CPU = 256
PLACES = 1024
# Categories whose part of the gradient of a kernel is added at a time on CPUs, where a product is an array.
CATEGORIES_ON_CPU = 4096

# What counts a program reads in the name of a loop how often it runs at most.
ROUNDS = r"at_most_(\d+)_rounds"

# (output of a network [n, K], x_t [n]) -> logits [n, K]
Finish = Callable[[Array, Array], Array]


class Spread(NamedTuple):
    """Says how the places of a projection, and its categories, lie over devices."""

    mesh: Mesh | AbstractMesh
    places: tuple[str, ...]
    """axes of the mesh over which the first axis of *S is spread"""
    categories: str | None = None
    """one of several such axes, over which the kernel is cut along K; None: every device has all of it"""


@partial(
    jax.tree_util.register_dataclass,
    data_fields=["hidden", "kernel", "bias", "xt"],
    meta_fields=["finish", "tied", "spread"],
)
@dataclasses.dataclass(frozen=True, eq=False)
class Projection:
    """Stands for the logits finish(hidden @ kernel + bias, xt), [*S, K]."""

    hidden: Leaf
    """of each place, [*S, width]"""
    kernel: Leaf
    """[width, K]; of tied weights the embedding, [K, width]"""
    bias: Leaf | None
    """[K]; None: there is none"""
    xt: Leaf
    """what the network was given, int32 [*S]"""
    finish: Finish
    """(output [n, K], xt [n]) -> logits [n, K]: what a head makes of the output of a network"""
    tied: bool = False
    """whether the kernel is an embedding"""
    spread: Spread | None = None
    """how it lies over devices; None: on one, or as XLA decides"""

    @property
    def shape(self) -> tuple[int, ...]:
        """Returns the shape of the logits, [*S, K]."""
        return (*self.xt.shape, self.kernel.shape[0 if self.tied else 1])

    def output(self) -> Array:
        """Makes the output of the network, [*S, K]."""
        output = jnp.dot(self.hidden, self.kernel.T if self.tied else self.kernel)
        if self.bias is not None:
            output = output + jnp.broadcast_to(self.bias, output.shape)
        return output

    def logits(self) -> Array:
        """Makes all logits, [*S, K]."""
        return self.finish(self.output(), self.xt)

    @property
    def num_parts(self) -> int:
        """Returns into how many parts the kernel is cut along K."""
        if self.spread is None or self.spread.categories is None:
            return 1
        return self.spread.mesh.shape[self.spread.categories]

    def __getitem__(self, index: Any) -> "Projection":
        """Returns the same at some places, by an index of the axes of places, as logits[:, :5] is.

        Raises:
            IndexError: the index is of categories too, or may be.
        """
        indices = index if isinstance(index, tuple) else (index,)
        if any(part is Ellipsis for part in indices) or len(indices) > self.xt.ndim:
            raise IndexError(
                f"{index} may be of categories, which a Projection has not in memory: index the axes of "
                f"places, {list(self.xt.shape)}, alone, or take projection.all_logits of it"
            )
        return dataclasses.replace(self, hidden=self.hidden[index], xt=self.xt[index])

    def flatten(self) -> "Projection":
        """Returns the same with one axis of all places, [N, K]; spread only where devices get equal parts."""
        N = math.prod(self.xt.shape)
        spread = self.spread
        if spread is not None and N % math.prod(spread.mesh.shape[axis] for axis in spread.places):
            spread = None
        hidden = self.hidden.reshape(N, self.hidden.shape[-1])
        return dataclasses.replace(self, hidden=hidden, xt=self.xt.reshape(N), spread=spread)

    def take(self, index: Array) -> "Projection":
        """Returns the same at some places of the first axis; an index beyond them is the last."""
        return dataclasses.replace(self, hidden=_take(self.hidden, index), xt=_take(self.xt, index))


def _take(x: Array, index: Array) -> Array:
    return x.at[index].get(mode="clip")


def _flatten_rows(rows: Any, S: tuple[int, ...]) -> Any:
    """Returns arrays of a shape that *S begins with, as arrays [N] of all places."""
    return jax.tree.map(lambda x: jnp.broadcast_to(expand_trailing(x, S), S).reshape(-1), rows)


# ---- Functions of logits, or of a projection ----


@singledispatch
def all_logits(logits: Any) -> Array:
    """Returns logits [*S, K], which a `Projection` makes all at once."""
    return logits


@all_logits.register
def _(logits: Projection) -> Array:
    return logits.logits()


@singledispatch
def require_array(logits: Any, user: str) -> Array:
    """Returns logits [*S, K] for a user that needs all of them in memory.

    Args:
        logits: [*S, K].
        user: what needs them, for the message.

    Raises:
        ValueError: a `Projection` stands for them.
    """
    return logits


@require_array.register
def _(logits: Projection, user: str) -> Array:
    raise ValueError(
        f"{user} needs all logits in memory, and the network gives a Projection, which makes them some "
        f"places at a time: take another one, or let the network return projection.all_logits of it "
        f"(of a run: d3pm train CONFIG --resume --head.no-projected)"
    )


@singledispatch
def now_or_later(logits: Any, now: Callable[[], Any], later: Callable[[], Any]) -> Any:
    """Returns now(), or later() where a `Projection` stands for logits, which are made when they are read."""
    return now()


@now_or_later.register
def _(logits: Projection, now: Callable[[], Any], later: Callable[[], Any]) -> Any:
    return later()


@singledispatch
def check_process(logits: Any, process: Process) -> None:
    """Raises ValueError where a `Projection` stands for logits and the process goes by the place.

    Some of its places at a time have lost where they are.
    """


@check_process.register
def _(logits: Projection, process: Process) -> None:
    if process.positional or process.places:
        raise ValueError(
            f"{type(process).__name__} goes by the place, and a Projection makes logits of some places at a "
            f"time: let the network return projection.all_logits of it"
        )


@singledispatch
def spread_over(logits: Any, spread: Spread) -> Any:
    """Says of a `Projection` how it lies over devices; returns logits as they are, and tuples of either.

    A kernel whose K its devices do not divide is cut over none.
    """
    return logits


@spread_over.register
def _(logits: Projection, spread: Spread) -> Projection:
    if spread.categories is not None and logits.shape[-1] % spread.mesh.shape[spread.categories]:
        spread = spread._replace(categories=None)
    return dataclasses.replace(logits, spread=spread)


@spread_over.register
def _(logits: tuple, spread: Spread) -> tuple:
    return tuple(spread_over(x, spread) for x in logits)


@singledispatch
def at_places(logits: Any, places: Array) -> Array:
    """Returns the logits of some places of each example, [B, n, K].

    Args:
        logits: [B, *S, K], or a `Projection` that stands for them.
        places: their numbers in the order of memory, [B, n].
    """
    flat = logits.reshape(len(logits), math.prod(logits.shape[1:-1]), logits.shape[-1])
    return jnp.take_along_axis(flat, places[..., None], axis=1)


@at_places.register
def _(logits: Projection, places: Array) -> Array:
    in_line = (len(logits.xt), math.prod(logits.xt.shape[1:]))
    flat = logits.hidden.reshape(*in_line, logits.hidden.shape[-1])  # [B, places of an example, width]
    hidden = jnp.take_along_axis(flat, places[..., None], axis=1)
    xt = jnp.take_along_axis(logits.xt.reshape(in_line), places, axis=1)
    return dataclasses.replace(logits, hidden=hidden, xt=xt).logits()


@singledispatch
def by_rows(logits: Any, f: Callable[..., Any], *rows: Any) -> Any:
    """Returns f(logits, *rows), arrays with one number for each place.

    Args:
        logits: [*S, K], or a `Projection` that stands for them.
        f: of logits in memory it is called once; of a `Projection` with some places at a time, [n, K], and
            then to differentiate it is an error. What it returns of a place may depend on that place alone.
        rows: trees of arrays of a shape that *S begins with; of a `Projection` they come as [n].
    """
    return f(logits, *rows)


@by_rows.register
def _(logits: Projection, f: Callable[..., Any], *rows: Any) -> Any:
    spread = logits.spread
    if spread is not None:
        # Each device takes its places, of all categories.
        logits = dataclasses.replace(logits, spread=spread._replace(categories=None))
    return weigh(logits, f, rows, None)[1]


def by_rows_of(process: Process, logits: Any, f: Callable[..., Any], *rows: Any) -> Any:
    """Returns f(process, logits, *rows) as `by_rows` does, of a process that is the same at each place.

    Raises:
        ValueError: it is not, and a `Projection` stands for logits.
    """
    check_process(logits, process)
    return by_rows(logits, partial(f, process), *rows)


@singledispatch
def weigh(
    logits: Any,
    f: Callable[..., Any],
    rows: tuple,
    weight: Array | None,
    looks_at: Array | None = None,
) -> tuple[Array, Any]:
    """Returns the sum over places of weight times the first array that f returns, and all that it returns.

    A weight of 0 takes a place out, whatever f says of it. Of a `Projection` the gradient of the sum is made
    with it, of some places at a time, so that no array [N, K] is in memory; what f returns has no gradient
    then, and asking for one is an error; and of places without weight it is 0.

    Args:
        logits: [*S, K], or a `Projection` that stands for them.
        f: (logits, *rows) -> arrays with one number for each place, the first of which is summed. What it
            returns of a place may depend on that place alone.
        rows: arrays of a shape that *S begins with; of a `Projection` f is called with some of them, [n].
        weight: of each place, [*S]; None: 1.
        looks_at: bool [*S], False where the first array is 0 whatever the logits are: of a `Projection` no
            logits are made there. None: it is so nowhere.
    """
    values = f(logits, *rows)
    first = jax.tree.leaves(values)[0]
    if weight is None:
        return first.sum(), values
    return jnp.where(weight > 0, weight * first, 0.0).sum(), values


@weigh.register
def _(
    logits: Projection,
    f: Callable[..., Any],
    rows: tuple,
    weight: Array | None,
    looks_at: Array | None = None,
) -> tuple[Array, Any]:
    S = logits.xt.shape
    if weight is None:
        weight = jnp.ones(S)
    if weight.size == 0:
        return weigh(logits.logits(), f, rows, weight)
    if looks_at is not None:
        weight = jnp.where(looks_at, weight, 0.0)
    arguments = logits.flatten(), _flatten_rows(rows, S), weight.reshape(-1)
    # In a `shard_map` of the caller's own a kernel that its devices share gets the sum of their gradients.
    leaves, tree = jax.tree.flatten(arguments)
    # What f is bound to, as a process, is an argument of its own.
    f = f if isinstance(f, jax.tree_util.Partial) else jax.tree_util.Partial(f)
    total, values = _weighted_sum(f, *jax.tree.unflatten(tree, vary_as(leaves, leaves)))
    return total, jax.tree.map(lambda x: jnp.where(weight == 0, jnp.zeros((), x.dtype), x.reshape(S)), values)


# ---- The weighted sum of a projection, with its gradient ----
#
# The sum is a scalar, so that its gradient is made in the forward pass, while the logits of a round are in
# memory; the backward pass multiplies it by one number. For a cotangent of each place it would be wrong.

# (some places of a projection, their rows and weights, carry) -> their sum, arrays [n, ..], and the carry
Visit = Callable[[Projection, tuple, Array, Any], tuple[Array, Any, Any]]


def _sum_alone(
    f: Callable[..., Any], projection: Projection, rows: tuple, weight: Array
) -> tuple[Array, Any]:
    """Returns the weighted sum of the first array of f, and all of its arrays [N]."""

    def visit(part: Projection, rows: tuple, weight: Array, carry: tuple) -> tuple[Array, Any, tuple]:
        values = f(part.logits(), *rows)
        return _sum_of_first(values, weight), values, carry

    total, values, _ = _visit_weighted(visit, projection, rows, weight, ())
    return total, values


def _sum_of_first(values: Any, weight: Array) -> Array:
    """Returns the sum of weight times the first array, [n] each; a weight of 0 takes out what it is of."""
    first = jax.tree.leaves(values)[0]
    return jnp.where(weight == 0, 0.0, weight * first).sum()


def _forward(f: Any, projection: Any, rows: Any, weight: Any) -> tuple[Any, tuple]:
    for leaf in jax.tree.leaves((f, rows, weight)):
        if leaf.perturbed:
            raise ValueError(
                "weights, and what a loss takes beside logits, get no gradient here: pass them through "
                "jax.lax.stop_gradient"
            )
    f, projection, rows, weight = jax.tree.map(lambda leaf: leaf.value, (f, projection, rows, weight))

    def visit(part: Projection, rows: tuple, weight: Array, carry: Any) -> tuple[Array, Any, Any]:
        def sum_values(output: Array) -> tuple[Array, Any]:
            values = f(part.finish(output, part.xt), *rows)
            return _sum_of_first(values, weight), values

        total, pull, values = jax.vjp(sum_values, part.output(), has_aux=True)
        (g_output,) = pull(jnp.ones_like(total))  # [n, K]
        g_output = _cut(part, g_output, 1)
        g_kernel, g_bias = carry
        g_kernel = _add_product(g_kernel, part.hidden, g_output, part.tied)
        if g_bias is not None:
            g_bias = g_bias + g_output.sum(axis=0).astype(g_bias.dtype)
        return total, (values, _times_kernel(part, g_output)), (g_kernel, g_bias)

    # Sums over many places, of bfloat16 too, are made in float32.
    zeros = jax.tree.map(lambda x: jnp.zeros_like(at_least_float32(x)), (projection.kernel, projection.bias))
    total, (values, g_hidden), (g_kernel, g_bias) = _visit_weighted(visit, projection, rows, weight, zeros)
    g_hidden = g_hidden.sum(axis=1)
    if projection.spread is not None:
        of_places = NamedSharding(projection.spread.mesh, PartitionSpec(projection.spread.places))
        g_hidden = jax.lax.with_sharding_constraint(g_hidden, of_places)
    gradient = dataclasses.replace(projection, hidden=g_hidden, kernel=g_kernel, bias=g_bias, xt=None)
    types = jax.tree.map(lambda x: jnp.zeros((), x.dtype), dataclasses.replace(projection, xt=None))
    return (total, values), (gradient, types)


def _backward(residuals: tuple, cotangents: tuple[Any, Any]) -> tuple:
    gradient, types = residuals
    g_total, g_values = cotangents
    if not all(isinstance(g, SymbolicZero) for g in jax.tree.leaves(g_values)):
        raise ValueError(
            "values of places have no gradient where a Projection stands for logits, and their weighted sum "
            "has one: give each place its weight, and differentiate the sum"
        )
    if isinstance(g_total, SymbolicZero):
        return None, None, None, None
    scaled = jax.tree.map(lambda g, like: (g_total.astype(g.dtype) * g).astype(like.dtype), gradient, types)
    return None, scaled, None, None


_weighted_sum = jax.custom_vjp(_sum_alone)
_weighted_sum.defvjp(_forward, _backward, symbolic_zeros=True)


def _times_kernel(part: Projection, g_output: Array) -> Array:
    """Returns the gradient for hidden states, [n, parts, width], of which the sum over parts is it.

    Of a kernel that is cut each device makes its part, and all are added up once, behind the loop.
    """
    parts = part.num_parts
    if parts == 1:
        return jnp.dot(g_output, part.kernel if part.tied else part.kernel.T)[:, None]
    n, K = g_output.shape
    width = part.hidden.shape[1]
    g_output = g_output.reshape(n, parts, K // parts)
    if part.tied:
        g_hidden = jnp.einsum("npk,pkw->npw", g_output, part.kernel.reshape(parts, K // parts, width))
    else:
        g_hidden = jnp.einsum("npk,wpk->npw", g_output, part.kernel.reshape(width, parts, K // parts))
    return _cut(part, g_hidden, 1)


def _visit_weighted(
    visit: Visit, projection: Projection, rows: tuple, weight: Array, carry: Any
) -> tuple[Array, Any, Any]:
    """Visits places that have weight, some at a time; returns their sum, arrays [N, ..] and the carry.

    The carry begins with zeros. Where places are spread, each device visits its own, but for an axis along
    which the kernel is cut: its devices visit all places together, each with its categories.
    """

    def visit_part(projection: Projection, rows: tuple, weight: Array, carry: Any) -> tuple[Array, Any, Any]:
        work = partial(_visit_by_size, visit)
        return jax.lax.platform_dependent(
            projection,
            rows,
            weight,
            carry,
            cpu=partial(work, PLACES_ON_CPU),
            default=partial(work, PLACES),
        )

    spread = projection.spread
    if spread is None:
        return visit_part(projection, rows, weight, carry)
    axes = tuple(axis for axis in spread.places if axis != spread.categories)
    if not axes:
        raise ValueError(
            f"spread.places = {spread.places} has no axis beside spread.categories: add one to the mesh, of "
            f"one device"
        )

    def visit_and_add(*arguments: Any) -> tuple[Array, Any, Any]:
        total, outputs, carry = visit_part(*arguments)
        # XLA has no sum over an axis of one device beside others that are its own to spread over.
        several = tuple(axis for axis in axes if spread.mesh.shape[axis] > 1)
        total, carry = jax.lax.psum((total, carry), several)
        return total, outputs, carry

    of_places = PartitionSpec(axes)
    whole = PartitionSpec()
    return jax.shard_map(
        visit_and_add,
        mesh=spread.mesh,
        in_specs=(_specs(projection, of_places), of_places, of_places, whole),
        out_specs=(whole, of_places, whole),
        axis_names=set(axes),
        check_vma=False,
    )(projection, rows, weight, carry)


def _specs(projection: Projection, of_places: PartitionSpec) -> Any:
    """Returns a spec for each array of a projection, of which places are spread alone."""
    whole = jax.tree.map(lambda x: PartitionSpec(), projection)
    return dataclasses.replace(whole, hidden=of_places, xt=of_places)


def _cut(projection: Projection, x: Array, axis: int | None) -> Array:
    """Returns x, cut along an axis as the kernel is along K, or with all of it on each device (None)."""
    spread = projection.spread
    if spread is None or spread.categories is None:
        return x
    spec: list[str | None] = [None] * x.ndim
    if axis is not None:
        spec[axis] = spread.categories
    return jax.lax.with_sharding_constraint(x, NamedSharding(get_abstract_mesh(), PartitionSpec(*spec)))


def _visit_by_size(
    visit: Visit, size: int, projection: Projection, rows: tuple, weight: Array, carry: Any
) -> tuple[Array, Any, Any]:
    """Visits places [N] as `_visit_weighted` does, so many at a time, on a device."""
    N = weight.shape[0]
    size = max(1, min(N, size))
    rows, weight = jax.tree.map(lambda x: _cut(projection, x, None), (rows, weight))
    projection = dataclasses.replace(
        projection,
        hidden=_cut(projection, projection.hidden, None),
        kernel=_cut(projection, projection.kernel, 0 if projection.tied else 1),
    )

    # Places with weight come first, and rounds of others are not made. Behind the last place is N, which is
    # no place: what is read of it has weight 0, and what is written is dropped.
    places = jnp.argsort(weight == 0, stable=True).astype(jnp.int32)
    places = jnp.concatenate([places, jnp.full(size, N, jnp.int32)])
    rounds = -(-jnp.sum(weight != 0, dtype=jnp.int32) // size)

    def take_round(i: Array | int) -> tuple[Array, tuple[Projection, tuple, Array]]:
        index = jax.lax.dynamic_slice_in_dim(places, i * size, size)
        rows_of_part = jax.tree.map(lambda x: _take(x, index), rows)
        weight_of_part = jnp.where(index < N, _take(weight, index), 0.0)
        return index, (projection.take(index), rows_of_part, weight_of_part)

    def step(i: Array | int, state: tuple[Array, Any, Any]) -> tuple[Array, Any, Any]:
        total, outputs, carry = state
        index, part = take_round(i)
        total_of_part, outputs_of_part, carry = visit(*part, carry)
        outputs = jax.tree.map(
            lambda x, y: x.at[index].set(y, mode="drop", unique_indices=True), outputs, outputs_of_part
        )
        return total + total_of_part, outputs, carry

    total, outputs, _ = jax.eval_shape(lambda: visit(*take_round(0)[1], carry))
    outputs = jax.tree.map(lambda x: jnp.zeros((N, *x.shape[1:]), x.dtype), outputs)
    leaves, tree = jax.tree.flatten((jnp.zeros((), total.dtype), outputs, carry))
    state = jax.tree.unflatten(tree, vary_as([weight], leaves))
    with jax.named_scope(f"at_most_{-(-N // size)}_rounds"):
        return jax.lax.fori_loop(0, rounds, step, state)


def _add_product(g_kernel: Array, hidden: Array, g_output: Array, tied: bool) -> Array:
    """Adds hidden^T g_output to the gradient of a kernel."""
    left, right = (g_output, hidden) if tied else (hidden, g_output)
    by_parts = partial(tiles.add_product_by_parts, axis=0 if tied else 1, size=CATEGORIES_ON_CPU)
    return jax.lax.platform_dependent(g_kernel, left, right, cpu=by_parts, default=tiles.add_product)
