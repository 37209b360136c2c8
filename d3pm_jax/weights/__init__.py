"""Gives weights the names and the layouts of the PyTorch twin."""

from d3pm_jax.extras import require

require(__name__, "flax", "safetensors")

from d3pm_jax.weights import twin

__all__ = ["twin"]
