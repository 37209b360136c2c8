"""Says what a network believes of x_0."""

import dataclasses

from torch_ref.beliefs import Belief
from torch_ref.processes.base import Process
from torch_ref.sampling.network import Network


@dataclasses.dataclass(frozen=True, eq=False)
class Denoiser:
    """Holds a network, the process that it was trained on, and what its logits of x_0 are."""

    process: Process
    network: Network
    belief: Belief = "d3pm"
