"""The forward process as a structured operator: one interface, a few families."""

from d3pm_jax.transitions.base import Transition, respace
from d3pm_jax.transitions.dense import Dense, dense, gaussian
from d3pm_jax.transitions.mixing import Mixing, absorbing, marginal, uniform

__all__ = [
    "Dense",
    "Mixing",
    "Transition",
    "absorbing",
    "dense",
    "gaussian",
    "marginal",
    "respace",
    "uniform",
]
