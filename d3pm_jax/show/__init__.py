"""Draws examples, chains, curves, bounds and schedules as pictures, and writes them to files."""

from d3pm_jax.extras import require

require(__name__, "PIL", "matplotlib")

from d3pm_jax.show.curves import (
    save_bound_terms,
    save_certificate,
    save_curves,
    save_lines,
    save_schedules,
)
from d3pm_jax.show.images import grid, save_beside, save_chain, save_gif, save_grid, save_strip, to_rgb

__all__ = [
    "grid",
    "save_beside",
    "save_bound_terms",
    "save_certificate",
    "save_chain",
    "save_curves",
    "save_gif",
    "save_grid",
    "save_lines",
    "save_schedules",
    "save_strip",
    "to_rgb",
]
