"""Gives each place of an example a process of its own: functions loop over the places."""

import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from torch_ref.processes.base import Process


@dataclasses.dataclass(frozen=True)
class ByPlace(Process):
    """Holds the process of each place, and is that of the largest in what all have in common.

    Arrays have the categories of the largest place. A mask is the last of them, and the last of each process.
    """

    each: tuple[Process, ...] = ()
    places: tuple[int, ...] = ()  # *S

    @property
    def alpha_bar(self) -> Tensor:
        raise AttributeError("a process with matrices for each place has no alpha_bar")

    def log_prior(self) -> Tensor:
        """log p(x_T), [*S, K]."""
        return self._join([process.log_prior() for process in self.each], 0)

    def Q(self, t: Tensor) -> Tensor:
        raise ValueError("Q(t) of a process by place is another matrix at each place: call that of each")

    def Qbar(self, t: Tensor) -> Tensor:
        raise ValueError("Qbar(t) of a process by place is another matrix at each place: call that of each")

    def loop_over_places(self, f: Callable[..., Any], args: dict[str, Any], axes: dict[str, str]) -> Any:
        """Calls f with the process of each place, and of each argument what belongs to the place."""
        ndim = next(
            args[name].ndim - (of_name == "*S K") for name, of_name in axes.items() if "*S" in of_name
        )
        batch = ndim - len(self.places)
        results = []
        for place, process in enumerate(self.each):
            own = args | {name: self._take(place, args[name], axes[name], batch) for name in axes}
            if args.get("mask_id") is not None:
                own["mask_id"] = process.K - 1
            results.append(f(process, **own))
        if not isinstance(results[0], tuple):
            return self._join(results, batch)
        return type(results[0])(*(self._join(parts, batch) for parts in zip(*results, strict=True)))

    def _take(self, place: int, x: Tensor, axes: str, batch: int) -> Tensor:
        """What belongs to a place of elements, rows, or steps, which may be those of all places."""
        if axes == "..." and x.ndim <= batch:
            return x
        if axes == "...":
            x = x.reshape(x.shape + (1,) * (batch + len(self.places) - x.ndim))
            x = x.expand(*x.shape[:batch], *self.places)
        x = x.flatten(batch, batch + len(self.places) - 1).select(batch, place)
        if axes == "*S K":
            return x[..., self._own(place)]
        if axes == "*S" and self._has_mask() and not x.is_floating_point():
            return torch.where(x == self.K - 1, self.each[place].K - 1, x)
        return x

    def _join(self, parts: Sequence[Tensor], batch: int) -> Tensor:
        """Stacks the results of all places: categories, numbers, or rows, -inf at what a place cannot be."""
        joined = []
        for place, x in enumerate(parts):
            if x.ndim > batch:
                row = torch.full((*x.shape[:-1], self.K), -torch.inf, dtype=x.dtype)
                row[..., self._own(place)] = x
                x = row
            elif self._has_mask() and not x.is_floating_point():
                x = torch.where(x == self.each[place].K - 1, self.K - 1, x)
            joined.append(x)
        return torch.stack(joined, dim=batch).unflatten(batch, self.places)

    def _own(self, place: int) -> list[int]:
        """The categories that a place can be."""
        K = self.each[place].K
        if self._has_mask():
            return [*range(K - 1), self.K - 1]
        return list(range(K))

    def _has_mask(self) -> bool:
        return self.inner is not None or bool(self.pi64.max() == 1)


def by_place(processes: Sequence[Process], places: tuple[int, ...] | None = None) -> Process:
    """A process for each place, with its own K.

    Arguments as in `d3pm_jax.by_place`.
    """
    places = (len(processes),) if places is None else tuple(places)
    if not processes or len(processes) != math.prod(places):
        raise ValueError(f"{len(processes)} processes for places {list(places)}: pass one for each place")
    if len({process.T for process in processes}) > 1:
        raise ValueError(
            f"processes have T = {[process.T for process in processes]}: give all the same steps"
        )
    largest = max(processes, key=lambda process: process.K)
    return ByPlace(**vars(largest), each=tuple(processes), places=places)
