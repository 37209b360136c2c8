"""Gives weights the names and layouts of other programs, one module for each."""

from d3pm_jax.weights import twin

__all__ = ["twin"]
