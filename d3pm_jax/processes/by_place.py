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


class Group(NamedTuple):
    """Names places whose processes differ in nothing but their tables."""

    indices: tuple[int, ...]  # in the order of x.reshape(-1)
    K: int  # categories of each, the mask counted
    differs: tuple[bool, ...]  # for each table of the process, whether it has an axis of places in front


@partial(
    jax.tree_util.register_dataclass,
    data_fields=("stacked", "levels", "time"),
    meta_fields=("groups", "has_mask", "K", "T", "places"),
    drop_fields=("each",),
)
@dataclasses.dataclass(frozen=True)
class ByPlace(Process):
    """Has a process for each place of x [.., *S]. Make one with `by_place`."""

    stacked: tuple[Any, ...]  # the process of each group of places
    levels: Any  # a process whose levels are those of every place; None: they differ
    time: Leaf  # int32 [T + 1]
    groups: tuple[Group, ...]
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
            sizes[list(group.indices)] = group.K - self.has_mask
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

    def log_q_probs(self, x0: Int[Array, "*S"], t: Int[Array, "..."]) -> Float[Array, "*S K"]:
        return _log_q_probs(self, x0, t)

    def log_q_back(self, xt: Int[Array, "*S"], t: Int[Array, "..."]) -> Float[Array, "*S K"]:
        return _log_q_back(self, xt, t)

    def log_q_x0(self, xt: Int[Array, "*S"], t: Int[Array, "..."]) -> Float[Array, "*S K"]:
        return _log_q_x0(self, xt, t)

    def log_push(self, log_p: Float[Array, "*S K"], t: Int[Array, "..."]) -> Float[Array, "*S K"]:
        return _log_push(self, log_p, t)

    def log_prior(self) -> Float[Array, "*S K"]:
        """Returns the log of the distribution that the reverse chain starts from, at each place."""
        return _log_prior(self, jnp.zeros(self.places, jnp.int32))

    def draw_q(
        self,
        x0: Int[Array, "*S"],
        t: Int[Array, "..."],
        u: Float[Array, "*S"],
        u_low: Float[Array, "*S"] | None = None,
    ) -> Int[Array, "*S"]:
        return _draw_q(self, x0, t, u, u_low)

    def draw_step(
        self,
        x: Int[Array, "*S"],
        t: Int[Array, "..."],
        u: Float[Array, "*S"],
        u_low: Float[Array, "*S"] | None = None,
    ) -> Int[Array, "*S"]:
        return _draw_step(self, x, t, u, u_low)

    def draw_prior(self, u: Float[Array, "*S"], u_low: Float[Array, "*S"] | None = None) -> Int[Array, "*S"]:
        if self.has_mask and isinstance(self.levels, Mixing):
            # Absorbing places are all masked.
            return self.levels.draw_prior(u, u_low)
        return _draw_prior(self, u, u_low)

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


# ---- Kernels, place by place ----


def for_each_place(f: Callable[P, R]) -> Callable[P, R]:
    """Makes a kernel serve a `ByPlace` too: it is called for each group of like places, and joined again.

    The first argument of the kernel is the process. The annotations of the others say what they hold: `*S` an
    element each, `*S K` a row each, `...` steps. What it returns are arrays of elements or of rows, or tuples
    of them; integers are categories, and so is a `mask_id`.
    """
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
        return cast(R, _call_by_place(f, process, values, roles))

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
    f: Callable[..., Any], process: ByPlace, values: dict[str, Any], roles: dict[str, Role]
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

    results = []
    runs_by_name = {name: _split_runs(process, x, len(batch)) for name, x in of_places.items()}
    for stacked, group in zip(process.stacked, process.groups, strict=True):
        arguments = {
            name: _take_places(process, group, runs, len(batch)) for name, runs in runs_by_name.items()
        }
        if of_all.get("mask_id") is not None:
            of_all["mask_id"] = group.K - 1
        results.append(_call_for_group(partial(f, **of_all), stacked, group, arguments, len(batch)))
    return jax.tree.map(lambda *parts: _join_places(process, parts, len(batch)), *results)


def _find_batch(process: ByPlace, values: dict[str, Any], roles: dict[str, Role]) -> tuple[int, ...]:
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


def _call_for_group(
    f: Callable[..., Any], stacked: Process, group: Group, arguments: dict[str, Array], axis: int
) -> Any:
    """Calls a kernel with the process of some places, which are an axis of arguments and results."""
    if not any(group.differs):
        return f(stacked, **arguments)
    tables, structure = jax.tree.flatten(stacked)
    own = [table for table, differs in zip(tables, group.differs, strict=True) if differs]

    def call_for_place(own: list[Array], arguments: dict[str, Array]) -> Any:
        remaining = iter(own)
        of_place = [
            next(remaining) if differs else table
            for table, differs in zip(tables, group.differs, strict=True)
        ]
        return f(structure.unflatten(of_place), **arguments)

    results = jax.vmap(call_for_place, in_axes=(0, axis))(own, arguments)
    return jax.tree.map(lambda x: jnp.moveaxis(x, 0, axis), results)


def _split_runs(process: ByPlace, x: Array, axis: int) -> dict[int, Array]:
    """Splits x [*B, *S] or [*B, *S, K] into the runs of places of one group, by the first place of each.

    The places become one axis, after `axis` others. All runs come of one split, so that a gradient of x is
    joined of theirs, and not added up from arrays of its own size.
    """
    x = jnp.reshape(x, (*x.shape[:axis], -1, *x.shape[axis + len(process.places) :]))
    runs = sorted(run for group in process.groups for run in _find_runs(group.indices))
    parts = lax.split(x, [last - first for first, last in runs], axis=axis)
    return {first: part for (first, _), part in zip(runs, parts, strict=True)}


def _take_places(process: ByPlace, group: Group, runs: dict[int, Array], axis: int) -> Array:
    """Returns what belongs to the places of a group, as their process has it: with as few categories.

    Args:
        process: of all places.
        group: which of them.
        runs: as `_split_runs` makes them of an array.
        axis: how many axes come before the places.
    """
    parts = [_narrow(process, group, runs[first], axis) for first, _ in _find_runs(group.indices)]
    return parts[0] if len(parts) == 1 else jnp.concatenate(parts, axis)


def _narrow(process: ByPlace, group: Group, x: Array, axis: int) -> Array:
    """Returns rows without what the places of a group cannot be, or their categories as their process has."""
    if process.K == group.K:
        return x
    is_rows = x.ndim > axis + 1
    if is_rows and process.has_mask:
        own, _, mask = lax.split(x, (group.K - 1, process.K - group.K, 1), axis=x.ndim - 1)
        return jnp.concatenate([own, mask], axis=-1)
    if is_rows:
        return x[..., : group.K]
    if process.has_mask and jnp.issubdtype(x.dtype, jnp.integer):
        return jnp.where(x == process.K - 1, group.K - 1, x)
    return x


def _join_places(process: ByPlace, parts: tuple[Array, ...], axis: int) -> Array:
    """Returns results of all groups in the order of the places, [*B, *S] or [*B, *S, K].

    What a place cannot be gets -inf.
    """
    # Without the barrier XLA would compute all parts in every kernel that reads the result, and spend minutes
    # on compiling them.
    parts = lax.optimization_barrier(parts)
    slices: list[tuple[int, Array]] = []  # with the place that each begins at
    for part, group in zip(parts, process.groups, strict=True):
        whole = _widen(process, group, part, is_rows=part.ndim > axis + 1)
        start = 0
        for first, last in _find_runs(group.indices):
            slices.append((first, lax.slice_in_dim(whole, start, start + last - first, axis=axis)))
            start += last - first
    ordered = [part for _, part in sorted(slices, key=lambda pair: pair[0])]
    joined = jnp.concatenate(ordered, axis)
    return jnp.reshape(joined, (*joined.shape[:axis], *process.places, *joined.shape[axis + 1 :]))


def _widen(process: ByPlace, group: Group, part: Array, is_rows: bool) -> Array:
    """Returns rows with -inf at what a place cannot be, and the mask as it is of all places."""
    if process.K == group.K:
        return part
    if is_rows:
        missing = jnp.full((*part.shape[:-1], process.K - group.K), -jnp.inf, part.dtype)
        own = group.K - process.has_mask  # categories of the data
        return jnp.concatenate([part[..., :own], missing, part[..., own:]], axis=-1)
    if process.has_mask and jnp.issubdtype(part.dtype, jnp.integer):
        return jnp.where(part == group.K - 1, process.K - 1, part)
    return part


def _find_runs(indices: tuple[int, ...]) -> list[tuple[int, int]]:
    """Returns the runs of neighbouring places as (first, behind the last).

    XLA looks through slices to what they are of, and through indices it does not.
    """
    runs: list[tuple[int, int]] = []
    for index in indices:
        if runs and runs[-1][1] == index:
            runs[-1] = (runs[-1][0], index + 1)
        else:
            runs.append((index, index + 1))
    return runs


# ---- The methods of a process ----


@for_each_place
def _log_q_probs(process: Process, x0: Int[Array, "*S"], t: Int[Array, "..."]) -> Array:
    return process.log_q_probs(x0, t)


@for_each_place
def _log_q_back(process: Process, xt: Int[Array, "*S"], t: Int[Array, "..."]) -> Array:
    return process.log_q_back(xt, t)


@for_each_place
def _log_q_x0(process: Process, xt: Int[Array, "*S"], t: Int[Array, "..."]) -> Array:
    return process.log_q_x0(xt, t)


@for_each_place
def _log_push(process: Process, log_p: Float[Array, "*S K"], t: Int[Array, "..."]) -> Array:
    return process.log_push(log_p, t)


@for_each_place
def _log_prior(process: Process, x: Int[Array, "*S"]) -> Array:
    prior = process.log_prior()
    return jnp.broadcast_to(prior, (*x.shape, *prior.shape))


@for_each_place
def _draw_q(
    process: Process,
    x0: Int[Array, "*S"],
    t: Int[Array, "..."],
    u: Float[Array, "*S"],
    u_low: Float[Array, "*S"] | None,
) -> Array:
    return process.draw_q(x0, t, u, u_low)


@for_each_place
def _draw_step(
    process: Process,
    x: Int[Array, "*S"],
    t: Int[Array, "..."],
    u: Float[Array, "*S"],
    u_low: Float[Array, "*S"] | None,
) -> Array:
    return process.draw_step(x, t, u, u_low)


@for_each_place
def _draw_prior(process: Process, u: Float[Array, "*S"], u_low: Float[Array, "*S"] | None) -> Array:
    return process.draw_prior(u, u_low)


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

    members: dict[Any, list[int]] = {}
    for place, process in enumerate(each):
        members.setdefault(jax.tree.structure(process), []).append(place)
    stacked, groups = zip(*(_stack(each, indices) for indices in members.values()), strict=True)
    K = max(process.K for process in each)
    has_mask = _has_mask(each[0])
    return ByPlace(
        stacked,
        levels=_find_common(each, K),
        time=each[0].time,
        groups=groups,
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


def _stack(each: Sequence[Process], indices: list[int]) -> tuple[Process, Group]:
    """Returns the processes of some places as one; tables that differ have an axis of places."""
    first = each[indices[0]]
    by_table = zip(*(jax.tree.leaves(each[index]) for index in indices), strict=True)
    stacked = []
    differs = []
    for tables in by_table:
        is_same = all(np.array_equal(table, tables[0]) for table in tables)
        stacked.append(tables[0] if is_same else jnp.stack(tables))
        differs.append(not is_same)
    return jax.tree.structure(first).unflatten(stacked), Group(tuple(indices), first.K, tuple(differs))


def _find_common(each: Sequence[Process], K: int) -> Process | None:
    """Returns a process whose levels are those of every place; None where places differ in them."""
    first = each[0]
    if not _is_of_one_schedule(each):
        return None
    if isinstance(first, Mixing) and first.pi_kind == "point":
        # What reveals places or masks them again takes it for the process of all: they have one mask.
        return make_mixing(require_spec(first.spec).beta, np.eye(K)[K - 1], np.asarray(first.time))
    return first
