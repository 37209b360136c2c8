"""The forward process as a structured operator: one interface, a few families."""

from d3pm_jax.transitions.base import Transition, respace
from d3pm_jax.transitions.dense import Dense, dense
from d3pm_jax.transitions.graph import from_rate, knn_graph, knn_rate, random_walk
from d3pm_jax.transitions.masked import Masked, masked
from d3pm_jax.transitions.mixing import Mixing, absorbing, marginal, uniform
from d3pm_jax.transitions.ordinal import banded, gaussian

__all__ = [
    "Dense",
    "Masked",
    "Mixing",
    "Transition",
    "absorbing",
    "banded",
    "dense",
    "from_rate",
    "gaussian",
    "knn_graph",
    "knn_rate",
    "marginal",
    "masked",
    "random_walk",
    "respace",
    "uniform",
]
