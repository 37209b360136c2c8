"""Says what an example looks like: an image, a text, an array."""

from d3pm_jax.extras import require

require(__name__, "PIL", "matplotlib")
