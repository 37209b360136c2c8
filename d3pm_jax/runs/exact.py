"""Computes the exact likelihood of a run, see `measure.bounds`."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from d3pm_jax.measure import bounds
from d3pm_jax.runs.run import Run


def mask_of(run: Run) -> int | None:
    """Returns the mask category of a run whose network can fill in any set of elements; else None."""
    return bounds.find_mask(run.parts)


def likelihood(
    run: Run,
    examples: Mapping[str, np.ndarray],
    batch_size: int = 128,
    seed: int = 0,
    progress: Callable[[int], Any] = lambda done: None,
) -> dict[str, Any]:
    """Computes -log p of examples [N, *S] by the chain rule, see `measure.bounds.compute_likelihood`."""
    return bounds.compute_likelihood(run.parts, examples, batch_size, seed, progress)
