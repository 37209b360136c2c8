"""Takes one step of a training: pure, jitted once, without a disk."""

from d3pm_jax.extras import require

require(__name__, "optax")

from d3pm_jax.training import diffusion, flow, state, step

__all__ = ["diffusion", "flow", "state", "step"]
