"""Checks a batch of examples that a run is measured on, and computes something of each of them."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from d3pm_jax.errors import UserError, describe_returned
from d3pm_jax.evaluation.bound import Compiled, evaluate_bound
from d3pm_jax.program.machine.devices import batch_sharding
from d3pm_jax.program.parts.build import Parts

Examples = Mapping[str, np.ndarray]  # "x", and if there are any "label", "weight" and "condition"


def check_examples(examples: object) -> None:
    """Raises UserError where examples are no dict with "x", or there are none."""
    cure = 'pass a dict with "x" [N, *S], as run.read_batch("test", 4) gives'
    if not isinstance(examples, Mapping) or "x" not in examples:
        raise UserError(f"examples = {describe_returned(examples)}: {cure}")
    if getattr(examples["x"], "shape", ())[:1] == (0,):
        raise UserError(f"examples has N = 0 examples: {cure}")


def evaluate(
    parts: Parts,
    compiled: Compiled,
    examples: Examples,
    batch_size: int,
    progress: Callable[[int], Any] = lambda done: None,
    **more_inputs: np.ndarray,
) -> Any:
    """Computes a jitted function of all examples with the weights of a run, by `evaluate_bound`.

    Args:
        parts: of the run.
        compiled: the function.
        examples: of its data.
        batch_size: how many at a time.
        progress: is called with the number of examples that are done.
        more_inputs: [N, ..], beside those that the network takes.
    """
    return evaluate_bound(
        compiled,
        parts.params,
        parts.recipe.process,
        examples["x"],
        batch_size,
        batch_sharding(parts.mesh),
        parts.extra_inputs(examples) | more_inputs,
        progress,
    )
