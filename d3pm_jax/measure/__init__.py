"""Measures a run by its parts: bounds, likelihoods, samples and their quality, and grids of few steps."""

from d3pm_jax.lazy import submodules

__getattr__ = submodules(__name__, ("sample_quality", "samples"))
