"""Gives each place of an example a process of its own, such as one for each column of a table.

Places differ in how many categories they have, and in what those are drawn from. Arrays keep one K, that of
the largest place: a place of fewer categories never has the others, whose log-probability is -inf in every
law. A mask is one for all places, category K - 1.

`for_each_place` is how kernels serve such a process: it calls them with the process of some places at a time,
which is of one of the other families, and with what belongs to these places.
"""

import dataclasses
import functools
import inspect
import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Literal, NamedTuple, NoReturn, ParamSpec, TypeVar, cast

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float, Int

from d3pm_jax.checks import declared
from d3pm_jax.processes.base import Process
from d3pm_jax.processes.masked import Masked
from d3pm_jax.processes.mixing import Mixing, make_mixing
from d3pm_jax.processes.respace import require_spec
from d3pm_jax.types import Leaf

P = ParamSpec("P")
R = TypeVar("R")

# What an argument of a kernel holds: a category or a number for each element, a row of K numbers for each,
# steps, or what all places share.
Role = Literal["elements", "rows", "steps", "shared"]
# Rows of so many categories cost little beside what is computed of each element.
SMALL = 16


@partial(
    jax.tree_util.register_dataclass,
    data_fields=("process",),
    meta_fields=("indices", "sizes", "K", "differs"),
)
@dataclasses.dataclass(frozen=True)
class Group:
    """Holds the processes of some places, which differ in nothing but their tables, as one."""

    process: Any
    indices: tuple[int, ...]  # which places, in the order of x.reshape(-1)
    sizes: tuple[int, ...]  # how many categories the data has at each
    K: int  # categories of the process; a place with fewer has probability 0 for the others
    differs: tuple[bool, ...]  # for each table of the process, whether it has an axis of places in front


# ---- Kernels, place by place ----


def for_each_place(f: Callable[P, R]) -> Callable[P, R]:
    """Makes a kernel serve a `ByPlace` too: it is called for each group of like places, and joined again.

    The first argument of the kernel is the process. The annotations of the others say what they hold: `*S` an
    element each, `*S K` a row each, `...` steps. What it returns are arrays of elements or of rows, or tuples
    of them; integers are categories, and so is a `mask_id`. Places of like sizes have one process, with the K
    of the largest: a kernel that counts categories has `for_each_size` instead.
    """
    return _serve_places(f, lambda process: process.groups)


def for_each_size(f: Callable[P, R]) -> Callable[P, R]:
    """Makes a kernel serve a `ByPlace` as `for_each_place` does, and each call has the K of its places."""
    return _serve_places(f, lambda process: process.groups_of_one_size)


def _serve_places(f: Callable[P, R], find_groups: Callable[["ByPlace"], tuple[Group, ...]]) -> Callable[P, R]:
    parameters = inspect.signature(f).parameters
    roles: dict[str, Role] = {
        name: _read_role(parameter.annotation) for name, parameter in parameters.items()
    }
    names = tuple(parameters)

    @functools.wraps(f)
    def call(*args: P.args, **kwargs: P.kwargs) -> R:
        values = {**dict(zip(names, args, strict=False)), **kwargs}
        process = values.pop(names[0])
        if not isinstance(process, ByPlace):
            return f(*args, **kwargs)
        return cast(R, _call_by_place(f, process, find_groups(process), values, roles))

    return call


def _read_role(annotation: Any) -> Role:
    """Returns what an argument of this annotation holds."""
    for option in getattr(annotation, "__args__", (annotation,)):
        axes = getattr(option, "dim_str", "").split()
        if axes == ["..."]:
            return "steps"
        if "*S" in axes:
            return "rows" if axes[-1] == "K" else "elements"
    return "shared"


def _call_by_place(
    f: Callable[..., Any],
    process: "ByPlace",
    groups: tuple[Group, ...],
    values: dict[str, Any],
    roles: dict[str, Role],
) -> Any:
    """Calls a kernel for each group of places, and joins what it returns."""
    batch = _find_batch(process, values, roles)
    of_places = {}  # arguments with an axis for each of *S
    of_all = {}
    for name, value in values.items():
        role = roles[name]
        if role == "steps" and jnp.ndim(value) > len(batch):
            # A step for each element, or for each of some axes of the places.
            trailing = (1,) * (len(batch + process.places) - jnp.ndim(value))
            value = jnp.broadcast_to(jnp.reshape(value, jnp.shape(value) + trailing), batch + process.places)
            of_places[name] = value
        elif role in ("elements", "rows") and value is not None:
            of_places[name] = value
        else:
            of_all[name] = value

    has_mask_id = of_all.get("mask_id") is not None
    if has_mask_id and not (process.has_mask and of_all["mask_id"] == process.K - 1):
        raise ValueError(
            f"mask_id = {of_all['mask_id']}: places have one mask, the last category, K - 1 = "
            f"{process.K - 1}, where their processes have one; leave it out where they have none"
        )

    axis = len(batch)
    parts = {name: _split_places(process, groups, x, roles[name], axis) for name, x in of_places.items()}
    results = []
    for i, group in enumerate(groups):
        arguments = {name: of_groups[i] for name, of_groups in parts.items()}
        if has_mask_id:
            of_all["mask_id"] = group.K - 1
        results.append(_call_for_group(partial(f, **of_all), group, arguments, axis))
    return jax.tree.map(lambda *parts: _join_places(process, groups, parts, axis), *results)


def _find_batch(process: "ByPlace", values: dict[str, Any], roles: dict[str, Role]) -> tuple[int, ...]:
    """Returns the axes in front of the places.

    Raises:
        ValueError: an array has other places than the process.
    """
    batch = ()
    for name, value in values.items():
        if value is None or roles[name] not in ("elements", "rows"):
            continue
        shape = jnp.shape(value)
        if roles[name] == "rows":
            shape = shape[:-1]
        batch = shape[: len(shape) - len(process.places)]
        if shape[len(batch) :] != process.places:
            raise ValueError(
                f"{name} has shape {list(jnp.shape(value))}, but the process is of places "
                f"{list(process.places)}: these have to be the last axes of x"
            )
    return batch


def _call_for_group(f: Callable[..., Any], group: Group, arguments: dict[str, Array], axis: int) -> Any:
    """Calls a kernel with the process of some places, which are an axis of arguments and results."""
    if not any(group.differs):
        return f(group.process, **arguments)
    axes = [0 if differs else None for differs in group.differs]
    axes_of_process = jax.tree.structure(group.process).unflatten(axes)

    def call_for_place(process: Process, arguments: dict[str, Array]) -> Any:
        return f(process, **arguments)

    return jax.vmap(call_for_place, (axes_of_process, axis), axis)(group.process, arguments)


# Arrays are cut and joined by splits, pads and concatenations alone, each part read once: XLA looks through
# these, forward and backward, so that of a network that pads its logits no padded array is left. A second
# slice of an array would have its gradient added up, which is as large as the array; indices hide their
# array.


class Run(NamedTuple):
    """Names neighbouring places of a group."""

    first: int  # in the order of x.reshape(-1)
    last: int  # behind the last
    sizes: tuple[int, ...]


def _find_runs(groups: tuple[Group, ...]) -> list[list[Run]]:
    """Returns the runs of each group in its order.

    Places of a run have one size, as those have whose logits a network pads, or all places are one run.
    """
    runs_of_groups = []
    for group in groups:
        runs: list[Run] = []
        for index, size in zip(group.indices, group.sizes, strict=True):
            if runs and runs[-1].last == index and (len(groups) == 1 or runs[-1].sizes[-1] == size):
                runs[-1] = Run(runs[-1].first, index + 1, (*runs[-1].sizes, size))
            else:
                runs.append(Run(index, index + 1, (size,)))
        runs_of_groups.append(runs)
    return runs_of_groups


def _split(x: Array, runs: Sequence[Run], axis: int) -> list[Array]:
    """Splits the axis of places into runs that follow each other."""
    return list(lax.split(x, [run.last - run.first for run in runs], axis))


def _split_places(
    process: "ByPlace", groups: tuple[Group, ...], x: Array, role: Role, axis: int
) -> list[Array]:
    """Returns what belongs to the places of each group, as their process has it: with as few categories.

    Args:
        process: of all places.
        groups: of places.
        x: [*B, *S] or [*B, *S, K].
        role: what it holds.
        axis: how many axes come before the places, which become one.
    """
    x = jnp.reshape(x, (*x.shape[:axis], -1, *x.shape[axis + len(process.places) :]))
    runs_of_groups = _find_runs(groups)
    in_order = sorted(run for runs in runs_of_groups for run in runs)
    part_of_run = dict(zip(in_order, _split(x, in_order, axis), strict=True))
    results = []
    for group, runs in zip(groups, runs_of_groups, strict=True):
        parts = []
        for run in runs:
            part = part_of_run[run]
            if role == "rows":
                part = _resize_rows(part, run.sizes, group.K, process.has_mask)
            elif role == "elements" and jnp.issubdtype(part.dtype, jnp.integer):
                part = _rename_categories(part, run.sizes, process.K, group.K, process.has_mask)
            parts.append(part)
        results.append(jnp.concatenate(parts, axis))
    return results


def _join_places(process: "ByPlace", groups: tuple[Group, ...], parts: tuple[Array, ...], axis: int) -> Array:
    """Returns results of all groups in the order of the places, [*B, *S] or [*B, *S, K].

    What a place cannot be gets -inf.
    """
    # Without the barrier XLA would compute all parts in every kernel that reads the result, and spend minutes
    # on compiling them.
    parts = lax.optimization_barrier(parts)
    part_of_run = {}
    for group, runs, of_group in zip(groups, _find_runs(groups), parts, strict=True):
        for run, part in zip(runs, _split(of_group, runs, axis), strict=True):
            if part.ndim > axis + 1:
                part = _resize_rows(part, run.sizes, process.K, process.has_mask)
            elif jnp.issubdtype(part.dtype, jnp.integer):
                part = _rename_categories(part, run.sizes, group.K, process.K, process.has_mask)
            part_of_run[run] = part
    joined = jnp.concatenate([part_of_run[run] for run in sorted(part_of_run)], axis)
    return jnp.reshape(joined, (*joined.shape[:axis], *process.places, *joined.shape[axis + 1 :]))


def _resize_rows(rows: Array, sizes: tuple[int, ...], K: int, has_mask: bool) -> Array:
    """Returns rows [.., places, K] of the categories that places have, and of a mask; others get -inf."""
    size = max(sizes)
    num_others = rows.shape[-1] - size - has_mask
    own, _, mask = lax.split(rows, [size, num_others, int(has_mask)], rows.ndim - 1)
    if min(sizes) < size:
        is_own = np.arange(size) < np.array(sizes)[:, None]
        own = jnp.where(is_own.reshape((1,) * (rows.ndim - 2) + is_own.shape), own, -jnp.inf)
    missing = jnp.full((*rows.shape[:-1], K - size - has_mask), -jnp.inf, rows.dtype)
    return jnp.concatenate([own, missing, mask], axis=-1)


def _rename_categories(x: Array, sizes: tuple[int, ...], K: int, new_K: int, has_mask: bool) -> Array:
    """Returns categories of K as those of new_K: the mask is the last, and what was none is none again."""
    if K == new_K == min(sizes) + has_mask:
        return x
    is_own = x < np.array(sizes).reshape((1,) * (x.ndim - 1) + (-1,))
    renamed = jnp.where(is_own, x, new_K)
    if has_mask:
        return jnp.where(x == K - 1, new_K - 1, renamed)
    return renamed


def _call_each_place(method: Callable[P, R]) -> Callable[P, R]:
    """Returns a method of `Process` for a process by place, which calls that of the process of each group."""

    # Its attributes, such as that it is abstract, are not those of what takes its place.
    @functools.wraps(method, updated=())
    def call(*args: P.args, **kwargs: P.kwargs) -> R:
        return getattr(args[0], method.__name__)(*args[1:], **kwargs)

    return for_each_place(call)


_draw_prior_of_each = _call_each_place(Process.draw_prior)


@for_each_place
def _spread_prior(process: Process, x: Int[Array, "*S"]) -> Array:
    """Returns the log of the prior for each element."""
    prior = process.log_prior()
    return jnp.broadcast_to(prior, (*x.shape, *prior.shape))


# ---- The process ----


@partial(
    jax.tree_util.register_dataclass,
    data_fields=("groups", "groups_of_one_size", "levels", "time"),
    meta_fields=("has_mask", "K", "T", "places"),
    drop_fields=("each",),
)
@dataclasses.dataclass(frozen=True)
class ByPlace(Process):
    """Has a process for each place of x [.., *S]. Make one with `by_place`."""

    groups: tuple[Group, ...]  # places of like sizes
    groups_of_one_size: tuple[Group, ...]  # the same places, apart by size
    levels: Any  # a process whose levels are those of every place; None: they differ
    time: Leaf  # int32 [T + 1]
    has_mask: bool
    K: int
    T: int
    places: tuple[int, ...]  # *S
    each: tuple[Process, ...] | None = None  # the processes as they were passed, for `respaced`

    @property
    def common(self) -> Process | None:
        """Returns a process whose levels are those of all places; None where these have their own."""
        return self.levels

    @property
    def sizes(self) -> np.ndarray:
        """Returns how many categories the data has at each place, int [*S]: a mask is not counted."""
        sizes = np.zeros(math.prod(self.places), np.int64)
        for group in self.groups:
            sizes[list(group.indices)] = group.sizes
        return sizes.reshape(self.places)

    def check_places(self, sizes: np.ndarray) -> None:
        if sizes.shape != self.places:
            raise ValueError(
                f"process.places = {list(self.places)}, but examples have shape {list(sizes.shape)}: give "
                f"both the same"
            )
        differing = np.argwhere(sizes != self.sizes)
        if len(differing) > 0:
            place = tuple(differing[0].tolist())
            raise ValueError(
                f"the data has {sizes[place]} categories at place {list(place)}, its process "
                f"{self.sizes[place]}: give each place a process of its own categories"
            )

    def find_missing(self, x: Any) -> Any:
        """Tells which elements [.., *S] are categories that their place has not, and not the mask of all."""
        batch = x.ndim - len(self.places)
        if x.shape[max(0, batch) :] != self.places:
            return np.zeros(x.shape, bool)  # kernels refuse the shape
        is_missing = x >= self.sizes.reshape((1,) * batch + self.places)
        if self.has_mask:
            is_missing &= x != self.K - 1
        return is_missing

    log_q_probs = _call_each_place(Process.log_q_probs)
    log_q_back = _call_each_place(Process.log_q_back)
    log_q_x0 = _call_each_place(Process.log_q_x0)
    log_push = _call_each_place(Process.log_push)
    draw_q = _call_each_place(Process.draw_q)
    draw_step = _call_each_place(Process.draw_step)

    def log_prior(self) -> Float[Array, "*S K"]:
        """Returns the log of the distribution that the reverse chain starts from, at each place."""
        return _spread_prior(self, jnp.zeros(self.places, jnp.int32))

    def draw_prior(self, u: Float[Array, "*S"], u_low: Float[Array, "*S"] | None = None) -> Int[Array, "*S"]:
        if self.has_mask and isinstance(self.levels, Mixing):
            # Absorbing places are all masked.
            return self.levels.draw_prior(u, u_low)
        return _draw_prior_of_each(self, u, u_low)

    def Q(self, t: Int[Array, "*B"]) -> NoReturn:
        self._refuse_matrix("Q", "log_q_back(xt, t), its column at xt")

    def Qbar(self, t: Int[Array, "*B"]) -> NoReturn:
        self._refuse_matrix("Qbar", "log_q_probs(x0, t), its row at x0")

    def respaced(self, grid: Sequence[int]) -> "ByPlace":
        return by_place([process.respaced(grid) for process in require_spec(self.each)], self.places)

    def _refuse_matrix(self, name: str, instead: str) -> NoReturn:
        """Raises ValueError for a matrix that depends on the place, and says what to call instead."""
        raise ValueError(
            f"{name}(t) of a process by place is another matrix at each place: {instead}, of x "
            f"[.., {', '.join(map(str, self.places))}]"
        )


# ---- The constructor ----


@declared()
def by_place(processes: Sequence[Process], places: tuple[int, ...] | None = None) -> ByPlace:
    """Gives each place of an example a process of its own, which says how many categories the place has.

    Kernels call those of each family as they are, for places of as many categories at a time. In a law a
    place has probability 0 for what it cannot be.

    Args:
        processes: one for each place, in the order of x.reshape(-1): `uniform`, `marginal`, `absorbing`, or a
            mask on top of one of these (`masked`). The mask of `absorbing` is its last category. Where there
            are masks, every place has one, moved to at the same steps: together they are category K - 1.
        places: *S, the last axes of x; None: [len(processes)].

    Returns:
        The process, whose K is that of the largest place.

    Raises:
        ValueError: a process is of another family, has another T or other steps than the first, or only
            some have a mask; there are not as many as places.
    """
    each = tuple(processes)
    places = (len(each),) if places is None else tuple(places)
    if not each or len(each) != math.prod(places):
        raise ValueError(f"{len(each)} processes for places {list(places)}: pass one for each place")
    for place, process in enumerate(each):
        _check_process(place, process, each[0])

    K = max(process.K for process in each)
    has_mask = _has_mask(each[0])
    return ByPlace(
        groups=_make_groups(each, _find_like_sizes(each)),
        groups_of_one_size=_make_groups(each, [process.K for process in each]),
        levels=_find_common(each, K),
        time=each[0].time,
        has_mask=has_mask,
        K=K,
        T=each[0].T,
        places=places,
        each=each,
    )


def _check_process(place: int, process: Process, first: Process) -> None:
    """Raises ValueError unless a process can be one of those by place, the first of which is another."""
    name = f"processes[{place}]"
    # A subclass may have methods of its own, which kernels do not know.
    inner = process.inner if type(process) is Masked else process
    if type(inner) is not Mixing:
        raise ValueError(
            f"{name} is {type(process).__name__}: places have uniform, marginal or absorbing processes, or a "
            f"mask on top of one; for others give all places one K"
        )
    if process is inner and inner.pi_kind == "point" and int(np.argmax(inner.pi[0])) != inner.K - 1:
        raise ValueError(
            f"{name} masks with category {int(np.argmax(inner.pi[0]))}: the mask of a place has to be its "
            f"last category, {inner.K - 1}, which the data does not have"
        )
    if not np.array_equal(process.time, first.time):
        raise ValueError(f"{name} has T = {process.T}, processes[0] has {first.T}: give all the same steps")
    if _has_mask(process) != _has_mask(first):
        raise ValueError(f"of {name} and processes[0] only one has a mask: give every place one, or none")
    if _has_mask(process) and not _is_of_one_schedule((process, first)):
        raise ValueError(
            f"{name} has another schedule than processes[0]: with one mask for all give all places the same"
        )


def _has_mask(process: Process) -> bool:
    return isinstance(process, Masked) or cast(Mixing, process).pi_kind == "point"


def _is_of_one_schedule(processes: Sequence[Process]) -> bool:
    """Tells whether processes resample, and mask, equally often."""
    rates = []
    for process in processes:
        gamma = require_spec(process.gamma) if isinstance(process, Masked) else np.zeros(0)
        inner = cast(Mixing, getattr(process, "inner", process))
        rates.append(np.concatenate([require_spec(inner.spec).beta, gamma]))
    return all(np.array_equal(rate, rates[0]) for rate in rates)


def _find_like_sizes(each: Sequence[Process]) -> list[int]:
    """Returns for each process the largest K of those with a like K: up to SMALL, or twice the smallest.

    XLA compiles every kernel once for each of these, which takes seconds: for each K of a table it would be
    minutes, and rows that are half padding cost less than a program of their own.
    """
    largest: dict[int, int] = {}  # by K
    like: list[int] = []
    for K in sorted({process.K for process in each}):
        if like and max(SMALL, 2 * like[0]) < K:
            like = []
        like.append(K)
        largest |= dict.fromkeys(like, K)
    return [largest[process.K] for process in each]


def _make_groups(each: Sequence[Process], padded: Sequence[int]) -> tuple[Group, ...]:
    """Makes a group of all places whose processes have the same form when they are padded to so many K."""
    members: dict[Any, list[int]] = {}
    for place, process in enumerate(each):
        is_point = cast(Mixing, getattr(process, "inner", process)).pi_kind == "point"
        members.setdefault((type(process), is_point, padded[place]), []).append(place)
    return tuple(_make_group([each[place] for place in places], tuple(places)) for places in members.values())


def _make_group(processes: Sequence[Process], indices: tuple[int, ...]) -> Group:
    """Makes one process of those of some places; tables that differ have an axis of places."""
    K = max(process.K for process in processes)
    sizes = tuple(process.K - _has_mask(process) for process in processes)
    processes = _make_alike([_pad(process, K) for process in processes])
    stacked = []
    differs = []
    for tables in zip(*map(jax.tree.leaves, processes), strict=True):
        is_same = all(np.array_equal(table, tables[0]) for table in tables)
        stacked.append(tables[0] if is_same else jnp.stack(tables))
        differs.append(not is_same)
    process = jax.tree.structure(processes[0]).unflatten(stacked)
    return Group(process, indices, sizes, K, tuple(differs))


def _pad(process: Process, K: int) -> Process:
    """Returns the process with K categories, of which those that it did not have are impossible."""
    if process.K == K:
        return process
    if isinstance(process, Masked):
        return dataclasses.replace(process, inner=_pad(process.inner, K - 1), K=K)
    mixing = cast(Mixing, process)
    beta, pi = require_spec(mixing.spec)
    # A mask stays the last category.
    own = process.K - _has_mask(process)
    wider = np.concatenate([pi[:own], np.zeros(K - process.K), pi[own:]])
    return make_mixing(beta, wider, np.asarray(mixing.time))


def _make_alike(processes: Sequence[Process]) -> list[Process]:
    """Returns processes of one form, with a general pi where only some have a uniform one."""
    if len({jax.tree.structure(process) for process in processes}) == 1:
        return list(processes)
    alike = []
    for process in processes:
        if isinstance(process, Masked):
            general = dataclasses.replace(cast(Mixing, process.inner), pi_kind="general")
            alike.append(dataclasses.replace(process, inner=general))
        else:
            alike.append(dataclasses.replace(cast(Mixing, process), pi_kind="general"))
    return alike


def _find_common(each: Sequence[Process], K: int) -> Process | None:
    """Returns a process whose levels are those of every place; None where places differ in them."""
    first = each[0]
    if not _is_of_one_schedule(each):
        return None
    if isinstance(first, Mixing) and first.pi_kind == "point":
        # What reveals places or masks them again takes it for the process of all: they have one mask.
        return make_mixing(require_spec(first.spec).beta, np.eye(K)[K - 1], np.asarray(first.time))
    return first
