"""Builds the forward process as dense matrices, by a constructor for each family."""

from torch_ref.processes.autoregressive import autoregressive
from torch_ref.processes.base import Process
from torch_ref.processes.by_place import by_place
from torch_ref.processes.dense import dense
from torch_ref.processes.graph import from_rate, hierarchical_rate, knn_graph, knn_rate, random_walk
from torch_ref.processes.interpolating import interpolating
from torch_ref.processes.masked import masked
from torch_ref.processes.mixing import absorbing, marginal, uniform
from torch_ref.processes.neighbours import gaussian_weights, rank_weights, unit_rows
from torch_ref.processes.ordinal import banded, gaussian
from torch_ref.processes.respace import respace

__all__ = [
    "Process",
    "absorbing",
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
