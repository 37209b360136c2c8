"""Measures what the parts of a run do: bounds, likelihoods, samples and their quality, grids of few steps."""
