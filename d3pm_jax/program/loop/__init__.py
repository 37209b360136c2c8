"""Runs the loop of a training, and writes what it leaves on the way."""

from d3pm_jax.extras import require

require(__name__, "array_record", "grain", "rich", "tensorboardX")
