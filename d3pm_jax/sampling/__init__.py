"""Runs reverse chains: noise by example, the loop, ancestral sampling, grids of fewer steps."""

from d3pm_jax.sampling.ancestral import Denoise, Reverse, ancestral, sample
from d3pm_jax.sampling.chain import Chain
from d3pm_jax.sampling.grids import best_grid, even_grid
from d3pm_jax.sampling.infilling import infill, sample_infill
from d3pm_jax.sampling.noise import Noise, per_example

__all__ = [
    "Chain",
    "Denoise",
    "Noise",
    "Reverse",
    "ancestral",
    "best_grid",
    "even_grid",
    "infill",
    "per_example",
    "sample",
    "sample_infill",
]
