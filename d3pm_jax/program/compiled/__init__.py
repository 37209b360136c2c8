"""Compiles the step of a run, for devices at hand or described, and counts what it computes and moves."""

from d3pm_jax.extras import require

require(__name__, "grain", "orbax")
