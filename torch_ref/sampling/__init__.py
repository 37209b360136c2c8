"""Draws samples: the ancestral chain, with a seed or with the noise given, and grids of steps.

What other samplers are made of is in modules, each with the names of its twin in `d3pm_jax.sampling`: `laws`
of x_s, the choice of `places`, the checks of drafts in `speculative`, `shaping` of logits, `guidance`, and
`steering` by the choice of particles.
"""

from torch_ref.sampling import guidance, laws, places, shaping, speculative, steering  # noqa: F401
from torch_ref.sampling.chain import Chain
from torch_ref.sampling.denoiser import Denoiser
from torch_ref.sampling.grids import best_grid, even_grid
from torch_ref.sampling.noise import Noise, Streams, per_example
from torch_ref.sampling.run import run, sample
from torch_ref.sampling.steps import Known

__all__ = [
    "Chain",
    "Denoiser",
    "Known",
    "Noise",
    "Streams",
    "best_grid",
    "even_grid",
    "per_example",
    "run",
    "sample",
]
