"""Runs the loop of a training, and writes what it leaves on the way."""

from d3pm_jax.extras import require
from d3pm_jax.lazy import submodules

require(__name__, "array_record", "grain", "rich", "tensorboardX")

__getattr__ = submodules(__name__, ("cost", "loop", "metrics", "presampled"))
