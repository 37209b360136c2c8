"""Says what a reverse chain has drawn."""

from typing import NamedTuple

from torch import Tensor


class Chain(NamedTuple):
    """Holds the end of a reverse chain, the states on the way, and whether it failed."""

    x0: Tensor  # [B, *S]
    states: Tensor  # [R, B, *S]  x_t at each recorded t
    failed_at: Tensor  # []  the first t with nothing to draw x_{t-1} from; 0 if none
