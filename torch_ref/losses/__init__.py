"""Losses are free functions of a process: `variational` has the terms of the bound.

`continuous` has the limit of infinitely many steps, `score_entropy` the same for networks of scores,
`any_order` the same without time, `gidd` that of noise that moves from masks to tokens.
"""

from torch_ref.losses import (
    any_order as any_order,
    continuous as continuous,
    gidd as gidd,
    score_entropy as score_entropy,
)
from torch_ref.losses.projected import Projected, projected
from torch_ref.losses.variational import (
    Hybrid,
    cross_entropy,
    direct_kl,
    hybrid,
    marginal_kl,
    mean_over_steps,
    posterior_kl,
    prior_kl,
    smoothed_cross_entropy,
    stochastic_bound,
)

__all__ = [
    "Hybrid",
    "Projected",
    "any_order",
    "continuous",
    "cross_entropy",
    "direct_kl",
    "gidd",
    "hybrid",
    "marginal_kl",
    "mean_over_steps",
    "posterior_kl",
    "prior_kl",
    "projected",
    "score_entropy",
    "smoothed_cross_entropy",
    "stochastic_bound",
]
