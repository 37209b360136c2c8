"""Reads and writes the folder of a run: its files, their manifest, its lock, its checkpoints.

Whoever reads takes no lock, and a process may be killed at any time. So what a run is, and what a checkpoint
is, has the hashes of its files in a manifest, and each module says in which order it writes.
"""

from d3pm_jax.extras import require

require(__name__, "filelock", "orbax")
