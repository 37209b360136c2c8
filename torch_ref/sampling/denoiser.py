"""Says what a network believes of x_0."""

import dataclasses
import inspect
from collections.abc import Callable
from typing import Any, get_args

from torch import Tensor

from torch_ref.beliefs import Belief
from torch_ref.processes.base import Process
from torch_ref.sampling.network import Network, TimeUnit


@dataclasses.dataclass(frozen=True, eq=False)
class Denoiser:
    """Holds a network, its process, what its logits of x_0 are, and the unit of time that it is told."""

    process: Process
    network: Network
    belief: Belief = "d3pm"
    time: TimeUnit = "steps"

    def __post_init__(self) -> None:
        """Raises ValueError for a unit that is none."""
        if self.time not in get_args(TimeUnit):
            raise ValueError(f"time = {self.time!r}: it must be one of {get_args(TimeUnit)}")

    def __call__(self, x: Tensor, time: Tensor) -> Tensor:
        """Returns the logits of the network, which is told the time, in steps, in its own unit."""
        if self.time == "unit":
            time = time / self.process.time[-1]
        return self.network(x, time)


def check_agrees(network: Network, process: Process, belief: Belief, term: Callable[..., Any]) -> None:
    """Refuses a `Denoiser` of another belief or process than those by which a bound takes its logits.

    Args:
        network: of the bound; one that is no `Denoiser` says nothing of this.
        process: that of the Denoiser, or one respaced from it.
        belief: what the bound was told; with "d3pm" a term takes logits as it does by itself.
        term: of the bound; one without the keyword `belief` goes with any Denoiser.

    Raises:
        ValueError: they are not the same.
    """
    if isinstance(network, Denoiser):
        if belief == "d3pm":
            of_term = inspect.signature(term).parameters.get("belief")
            belief = getattr(of_term, "default", network.belief)
        pairs = {
            "belief": [belief, network.belief],
            "process.K": [process.K, network.process.K],
            "process.time[-1]": [int(x.time[-1]) for x in (process, network.process)],
        }
        for name, said in pairs.items():
            if len(set(said)) > 1:
                raise ValueError(
                    f"{name} = {said[0]!r}, and the Denoiser has {said[1]!r}: pass belief=denoiser.belief "
                    f"and denoiser.process, or one respaced from it, or make a new Denoiser"
                )
