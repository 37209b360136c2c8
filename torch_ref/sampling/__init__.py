"""Runs reverse chains: ancestral sampling, infilling, and grids of fewer steps."""

from torch_ref.sampling.ancestral import Chain, Denoise, Noise, Reverse, ancestral
from torch_ref.sampling.grids import best_grid, even_grid
from torch_ref.sampling.infilling import infill

__all__ = ["Chain", "Denoise", "Noise", "Reverse", "ancestral", "best_grid", "even_grid", "infill"]
