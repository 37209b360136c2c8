"""Draws what a sample looks like, and curves: pictures as PNG files."""

from d3pm_jax.extras import require

require(__name__, "PIL", "matplotlib")

from d3pm_jax.show.curves import save_curves
from d3pm_jax.show.images import grid, save_beside, save_chain, save_grid, to_rgb

__all__ = ["grid", "save_beside", "save_chain", "save_curves", "save_grid", "to_rgb"]
