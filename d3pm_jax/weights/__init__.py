"""Gives weights the names and layouts of other programs, one module for each: `twin` is that of torch_ref.

`checkpoints` reads files of others and tells them apart; `pickles` reads what torch.save wrote.

Numbers of other programs that are no weights are in `compat`.
"""

from d3pm_jax.extras import require

require(__name__, "flax", "safetensors")

from d3pm_jax.weights import checkpoints, twin

__all__ = ["checkpoints", "twin"]
