"""Computes how well a classifier tells the labels of noised examples, at some times."""

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from d3pm_jax.checks import values_in_range
from d3pm_jax.evaluation.bound import Compiled
from d3pm_jax.posteriors import q_sample
from d3pm_jax.processes import Process
from d3pm_jax.sampling.noise import EVALUATION, per_example

# (params, x_t [B, *S], time [B]) -> log p(label | x_t, t) of every label, [B, classes]
Classify = Callable[..., Array]


class LabelTerms(NamedTuple):
    """Holds what a classifier says of the label of each example, at each of some steps."""

    nats: Float[Array, "n B"]  # -log p(label | x_t, t)
    is_right: Float[Array, "n B"]  # 1 where the label is the most probable, else 0


def compile_label_terms(classify: Classify, steps: Sequence[int], seed: int) -> Compiled:
    """Makes the jitted function of a batch that computes its `LabelTerms`, each at one x_t ~ q(x_t | x_0).

    Args:
        classify: the classifier.
        steps: t in 0..T; no more than one has its x_t in memory.
        seed: of the noise; the terms of example i do not depend on the others.
    """

    @jax.jit
    @values_in_range()
    def compute(params: Any, process: Process, x0: Any, index: Any, extra_inputs: dict[str, Any]) -> Any:
        key = jax.random.fold_in(jax.random.key(seed), EVALUATION)
        noise = per_example(key, index, x0.shape[1:])
        label = extra_inputs["label"]

        def compute_step(t: Array) -> LabelTerms:
            ts = jnp.broadcast_to(t, x0.shape[:1])  # [B]
            xt = q_sample(process, x0, ts, noise(t))  # [B, *S]
            log_p = classify(params, xt, process.time[ts])  # [B, classes]
            nats = -jnp.take_along_axis(log_p, label[:, None], axis=1)[:, 0]
            is_right = (jnp.argmax(log_p, axis=1) == label).astype(nats.dtype)
            return LabelTerms(nats, is_right)

        return jax.lax.map(compute_step, jnp.asarray(steps, jnp.int32))  # leaves [n, B]

    return compute


def summarize_labels(terms: LabelTerms) -> dict[str, Any]:
    """Returns the means over steps and examples with standard errors, and the mean at each step."""
    figures: dict[str, Any] = {}
    by_name = {"cross_entropy": terms.nats, "accuracy": terms.is_right}
    for name, values in by_name.items():
        values = np.asarray(values, np.float64)  # [n, N]
        mean_of_example = values.mean(axis=0)  # [N]
        figures[name] = float(mean_of_example.mean())
        figures[f"{name}_standard_error"] = _standard_error(mean_of_example)
        figures[f"{name}_by_step"] = values.mean(axis=1).tolist()
    return figures


def _standard_error(values: np.ndarray) -> float | None:
    """Returns the standard error of the mean of values [N]; None where there is but one."""
    if len(values) < 2:
        return None
    return float(values.std(ddof=1) / math.sqrt(len(values)))
