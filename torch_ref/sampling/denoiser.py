"""Says what a network believes of x_0."""

import dataclasses
from typing import get_args

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
