"""Computes bounds, sample quality and baselines from arrays and a predict function, without a disk."""

from d3pm_jax.evaluation import baselines, bound, frechet, neighbours, tables, texts
from d3pm_jax.lazy import submodules

# These need an extra, and are imported when they are asked for.
__getattr__ = submodules(__name__, ("digit_features", "inception"))

__all__ = ["baselines", "bound", "frechet", "neighbours", "tables", "texts"]
