"""Shows examples as their kind wants to be seen, and draws curves and chains as PNG files."""

from d3pm_jax.extras import require

require(__name__, "PIL", "matplotlib")

from d3pm_jax.show.curves import save_curves
from d3pm_jax.show.examples import lines, save_examples
from d3pm_jax.show.images import grid, save_beside, save_chain, save_grid, to_rgb

__all__ = [
    "grid",
    "lines",
    "save_beside",
    "save_chain",
    "save_curves",
    "save_examples",
    "save_grid",
    "to_rgb",
]
