"""Reads and writes the folder of a run: its files, their manifest, its lock, its checkpoints.

Readers take no lock, and a process may be killed at any time. So a run and each checkpoint have a manifest
with the hashes of their files, and each module says in which order it writes.
"""

from d3pm_jax.extras import require

require(__name__, "filelock", "orbax")
