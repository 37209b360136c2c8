"""Losses are free functions of a process: definitions in `variational`, faster forms by family in `fused`.

`continuous` has the limit of infinitely many steps, `score_entropy` the same for networks of scores,
`any_order` the same without time, `gidd` that of noise that moves from masks to tokens.
"""

from d3pm_jax.losses import (
    any_order as any_order,
    continuous as continuous,
    fused as fused,  # registers the fast forms
    gidd as gidd,
    score_entropy as score_entropy,
)
from d3pm_jax.losses.cross_entropy import cross_entropy, smoothed_cross_entropy
from d3pm_jax.losses.projected import Projected, projected
from d3pm_jax.losses.variational import (
    Hybrid,
    direct_kl,
    hybrid,
    marginal_kl,
    mean_over_steps,
    posterior_kl,
    prior_kl,
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
