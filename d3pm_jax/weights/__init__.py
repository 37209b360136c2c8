"""Gives weights the names and layouts of other programs, one module for each: `twin` is that of torch_ref.

Numbers of other programs that are no weights are in `compat`.
"""

from d3pm_jax.extras import require

require(__name__, "safetensors")

from d3pm_jax.weights import twin

__all__ = ["twin"]
