"""Measures a run by its parts: bounds, likelihoods, samples and their quality, and grids of few steps."""
