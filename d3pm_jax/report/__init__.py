"""Writes a page about trained runs that opens from the disk and needs nothing else."""

from d3pm_jax.extras import require

require(__name__, "PIL", "matplotlib")

from d3pm_jax.report.pages import page, read_title, write

__all__ = ["page", "read_title", "write"]
