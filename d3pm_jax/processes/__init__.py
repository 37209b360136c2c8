"""Describes the forward process as a structured operator: one interface, a few families.

What other kernels use of its tables and checks is named here too, beside what is public, `__all__`.
"""

from d3pm_jax.processes.autoregressive import Autoregressive, autoregressive
from d3pm_jax.processes.base import (
    Process,
    allow_identity,
    check_same_for_all as check_same_for_all,
    promote as promote,
)
from d3pm_jax.processes.by_place import (
    ByPlace,
    by_place,
    for_each_place as for_each_place,
    for_each_size as for_each_size,
)
from d3pm_jax.processes.dense import Dense, dense
from d3pm_jax.processes.graph import from_rate, hierarchical_rate, knn_graph, knn_rate, random_walk
from d3pm_jax.processes.interpolating import Interpolating, interpolating
from d3pm_jax.processes.masked import NEG_INF as NEG_INF, Masked, masked
from d3pm_jax.processes.mixing import Mixing, PiKind as PiKind, absorbing, marginal, uniform
from d3pm_jax.processes.neighbours import Weights, gaussian_weights, rank_weights, unit_rows
from d3pm_jax.processes.ordinal import banded, gaussian
from d3pm_jax.processes.respace import respace
from d3pm_jax.processes.tables import (
    expand_trailing as expand_trailing,
    gather as gather,
    gather_steps as gather_steps,
    is_category as is_category,
)

__all__ = [
    "Autoregressive",
    "ByPlace",
    "Dense",
    "Interpolating",
    "Masked",
    "Mixing",
    "Process",
    "Weights",
    "absorbing",
    "allow_identity",
    "autoregressive",
    "banded",
    "by_place",
    "dense",
    "from_rate",
    "gaussian",
    "gaussian_weights",
    "hierarchical_rate",
    "interpolating",
    "knn_graph",
    "knn_rate",
    "marginal",
    "masked",
    "random_walk",
    "rank_weights",
    "respace",
    "uniform",
    "unit_rows",
]
