"""Computes the bound of the parts of a run on examples."""

from collections.abc import Callable
from typing import Any

import numpy as np

from d3pm_jax.errors import UserError
from d3pm_jax.evaluation.bound import all_terms, elements, evaluate_bound, few_terms, summary
from d3pm_jax.evaluation.bound import parts as parts_of_bound
from d3pm_jax.machine.devices import batched
from d3pm_jax.parts.build import Parts


def evaluate(
    parts: Parts,
    x0: np.ndarray,
    labels: np.ndarray | None = None,
    batch_size: int = 128,
    seed: int = 0,
    progress: Callable[[int], Any] = lambda done: None,
    calls: int | None = None,
    weight: np.ndarray | None = None,
) -> dict[str, Any]:
    """Computes the bound on x0 int32 [N, *S]; labels int32 [N] for a network that takes them.

    Args:
        parts: of the run, at a checkpoint.
        x0, labels, weight: the examples; each element counts as often as its weight [N, *S] says.
        batch_size: how many at a time.
        seed: of the noise.
        progress: is called with the number of examples that are done.
        calls: estimate the sum over t from so many calls of the network per example, without bias; by
            default every t is computed.

    Returns:
        What `evaluation.bound.summary` gives, with the step, N, the seed and the times of the terms; and
        without `calls` what `evaluation.bound.parts` gives.

    Raises:
        UserError: the process has fewer steps than calls.
    """
    told = {} if labels is None else {"label": labels}
    told |= {} if weight is None else {"weight": weight}
    process, predict = parts.process, parts.predict
    if calls is None:
        compiled = parts.once(("bound", seed), lambda: all_terms(predict, seed, parts.term))
    elif 1 <= calls <= process.T:
        compiled = parts.once(("bound", seed, calls), lambda: few_terms(predict, calls, seed, parts.term))
    else:
        raise UserError(f"calls = {calls}: it must be in 1..{process.T}, the steps of the process")
    sharding = batched(parts.mesh)
    found = evaluate_bound(
        compiled, parts.params, process, x0, batch_size, sharding, parts.told(told), progress
    )
    about = {"step": parts.step, "examples": len(x0), "seed": seed}
    D, times = elements(x0, weight), np.asarray(process.time[1:]).tolist()
    if calls is not None:
        return summary(found, D) | about | {"times": times, "calls": calls}
    return summary(np.asarray(found.total()), D) | parts_of_bound(found, D) | about | {"times": times}
