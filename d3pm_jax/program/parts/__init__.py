"""Builds what a config describes: process, network and state, placed on the devices."""

from d3pm_jax.extras import require

require(__name__, "flax", "optax", "orbax")
