"""Computes figures of arrays and a predict function, without a disk: bound, sample quality, what to beat."""

from d3pm_jax.evaluation import baselines, bound, frechet, neighbours, process_effect, texts
from d3pm_jax.lazy import submodules

__getattr__ = submodules(__name__, ("digit_features", "inception"))  # which need an extra

__all__ = ["baselines", "bound", "frechet", "neighbours", "process_effect", "texts"]
