"""Reads the checkpoints of other programs, one module for the layout of each.

`checkpoints` tells their files apart, `pickles` reads what torch.save wrote, and `foreign` makes networks of
ours of them.
"""

from d3pm_jax.extras import require

require(__name__, "flax", "safetensors")
