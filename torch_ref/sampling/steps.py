"""Says which places of examples are given."""

from typing import NamedTuple

from torch import Tensor


class Known(NamedTuple):
    """Holds the places of examples that are given."""

    x0: Tensor  # [B, *S]  what they hold; any category elsewhere
    mask: Tensor  # [B, *S]  bool, which they are
