"""Runs reverse chains: the loop, samplers put together from slots, grids of fewer steps."""

from torch_ref.sampling import guidance, steering
from torch_ref.sampling.ancestral import Reverse, ancestral
from torch_ref.sampling.chain import Chain, Row
from torch_ref.sampling.denoise import Denoise
from torch_ref.sampling.editing import run_edit
from torch_ref.sampling.grids import best_grid, even_grid
from torch_ref.sampling.infilling import infill
from torch_ref.sampling.noise import Noise, Streams
from torch_ref.sampling.sampler import Sampler, make_plan, run_sampler
from torch_ref.sampling.shaping import Shaping
from torch_ref.sampling.steering import Steered, run_steered

__all__ = [
    "Chain",
    "Denoise",
    "Noise",
    "Reverse",
    "Row",
    "Sampler",
    "Shaping",
    "Steered",
    "Streams",
    "ancestral",
    "best_grid",
    "even_grid",
    "guidance",
    "infill",
    "make_plan",
    "run_edit",
    "run_sampler",
    "run_steered",
    "steering",
]
