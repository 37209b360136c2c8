"""Takes the elements of examples as rows."""

import math

from torch import Tensor


def to_rows(x: Tensor) -> Tensor:
    """[B, *S] as [B, D]; *S or B may be empty."""
    return x.reshape(len(x), math.prod(x.shape[1:]))
