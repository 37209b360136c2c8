"""Builds what a config describes: process, network and state, placed on the devices."""

from d3pm_jax.extras import require
from d3pm_jax.lazy import submodules

require(__name__, "flax", "optax", "orbax")

__getattr__ = submodules(__name__, ("begin", "build", "network", "splits"))
