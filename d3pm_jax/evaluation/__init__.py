"""Computes figures of arrays and a predict function, without a disk: the bound, and what it has to beat."""

from d3pm_jax.evaluation import baselines, bound, process_effect

__all__ = ["baselines", "bound", "process_effect"]
