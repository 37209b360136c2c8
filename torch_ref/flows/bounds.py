"""Bounds log P(x) from importance weights log p(v) - log q(v | x)."""

import math

from torch import Tensor

from torch_ref.checks import declared
from torch_ref.numerics import log_sum


@declared(log_weights="n B floats")
def importance_bound(log_weights: Tensor) -> Tensor:
    """log mean_i exp(log_weights_i) (Burda et al. 2016, arXiv 1509.00519), [n, B] -> [B]."""
    n = log_weights.shape[0]
    return log_sum(log_weights.T) - math.log(n)
