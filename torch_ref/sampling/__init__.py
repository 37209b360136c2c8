"""Draws samples: the ancestral chain, noise given, the laws of other samplers, guidance, grids of steps."""

from torch_ref.sampling import guidance, laws, places, shaping, steering
from torch_ref.sampling.chain import Chain
from torch_ref.sampling.denoiser import Denoiser
from torch_ref.sampling.grids import best_grid, even_grid
from torch_ref.sampling.noise import Noise, Streams
from torch_ref.sampling.run import run
from torch_ref.sampling.steps import Known

__all__ = [
    "Chain",
    "Denoiser",
    "Known",
    "Noise",
    "Streams",
    "best_grid",
    "even_grid",
    "guidance",
    "laws",
    "places",
    "run",
    "shaping",
    "steering",
]
