"""Runs reverse chains: noise by example, the loop, samplers put together from slots, grids of fewer steps."""

from d3pm_jax.sampling import correctors, guidance, laws, named, places, steering, transitions
from d3pm_jax.sampling.ancestral import Reverse, ancestral, sample
from d3pm_jax.sampling.chain import Chain, Row
from d3pm_jax.sampling.denoise import Denoise
from d3pm_jax.sampling.editing import edit, run_edit
from d3pm_jax.sampling.grids import best_grid, even_grid
from d3pm_jax.sampling.infilling import infill, sample_infill
from d3pm_jax.sampling.noise import Noise, Streams, per_example
from d3pm_jax.sampling.sampler import Sampler, Seen, make_plan, run_sampler, sample_by, watch_sampler
from d3pm_jax.sampling.shaping import Shaping
from d3pm_jax.sampling.steering import Best, Steered, best_of, run_steered, steer

__all__ = [
    "Best",
    "Chain",
    "Denoise",
    "Noise",
    "Reverse",
    "Row",
    "Sampler",
    "Seen",
    "Shaping",
    "Steered",
    "Streams",
    "ancestral",
    "best_grid",
    "best_of",
    "correctors",
    "edit",
    "even_grid",
    "guidance",
    "infill",
    "laws",
    "make_plan",
    "named",
    "per_example",
    "places",
    "run_edit",
    "run_sampler",
    "run_steered",
    "sample",
    "sample_by",
    "sample_infill",
    "steer",
    "steering",
    "transitions",
    "watch_sampler",
]
