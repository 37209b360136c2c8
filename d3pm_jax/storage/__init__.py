"""Reads and writes the folder of a run: its files, their manifest, its lock, its checkpoints."""

from d3pm_jax.extras import require

require(__name__, "filelock", "orbax")
