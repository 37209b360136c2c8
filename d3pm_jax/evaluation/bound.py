"""Computes the bound of a network on many examples, and its parts as numbers."""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import numpy as np

from d3pm_jax import likelihood, losses
from d3pm_jax.checks import bare
from d3pm_jax.errors import UserError
from d3pm_jax.processes import Process
from d3pm_jax.sampling.noise import EVALUATION

Compiled = Callable[..., Any]  # params, process, x0 [B, *S], index [B], {"label": [B]} or {} -> nats [.., B]


def all_terms(
    predict: Callable[..., Any], seed: int, term: likelihood.Term = losses.posterior_kl
) -> Compiled:
    """Makes the jitted (params, process, x0, index, more) -> `likelihood.estimate_bound`, for a batch.

    Args:
        predict: the network, (params, xt, time) -> logits of x_0.
        seed: of the noise; the terms of example i do not depend on the others.
        term: what the logits cost at a step.
    """

    @jax.jit
    def bound(params: Any, process: Process, x0: Any, index: Any, more: dict[str, Any]) -> likelihood.Bound:
        key, denoise = jax.random.fold_in(jax.random.key(seed), EVALUATION), partial(predict, params, **more)
        return bare(likelihood.estimate_bound)(key, denoise, process, x0, index, term)

    return bound


def few_terms(
    predict: Callable[..., Any], calls: int, seed: int, term: likelihood.Term = losses.posterior_kl
) -> Compiled:
    """Makes the same with `likelihood.stratified_bound`, of so many calls of the network per example."""

    @jax.jit
    def bound(params: Any, process: Process, x0: Any, index: Any, more: dict[str, Any]) -> jax.Array:
        key, denoise = jax.random.fold_in(jax.random.key(seed), EVALUATION), partial(predict, params, **more)
        return bare(likelihood.stratified_bound)(key, denoise, process, x0, index, calls, term)

    return bound


def evaluate_bound(
    compiled: Compiled,
    params: Any,
    process: Process,
    x0: np.ndarray,
    batch_size: int,
    sharding: jax.sharding.NamedSharding | None = None,
    labels: np.ndarray | None = None,
    progress: Callable[[int], Any] = lambda done: None,
) -> Any:
    """Computes the bound of many examples in batches.

    Args:
        compiled: of `all_terms` or `few_terms`.
        params: of the network.
        process: the forward process.
        x0: int32 [N, *S].
        batch_size: how many at a time; rounded down to a multiple of the devices of the sharding.
        sharding: of a batch, where it is spread over devices.
        labels: int32 [N], for a network that takes them.
        progress: is called with the number of examples that are done, first with 0 when all is compiled.

    Returns:
        In nats per example, on the host: a `likelihood.Bound` with steps [T, N] and prior [N], or of
        `few_terms` an estimate [N].

    Raises:
        UserError: a term is NaN.
    """
    devices = 1 if sharding is None else sharding.mesh.size
    size = max(1, min(batch_size, len(x0)) // devices) * devices
    parts = []
    for start in range(0, len(x0), size):
        index = np.arange(start, start + size)
        taken = np.minimum(index, len(x0) - 1)  # the last batch is filled up, and cut below
        batch, more = x0[taken], {} if labels is None else {"label": labels[taken]}
        placed = jax.device_put((batch, index.astype(np.int32), more), sharding)
        part = compiled(params, process, *placed)
        progress(start)
        parts.append(jax.device_get(part))
    progress(len(x0))
    found = jax.tree.map(lambda *leaves: np.concatenate(leaves, axis=-1)[..., : len(x0)], *parts)
    if any(np.isnan(leaf).any() for leaf in jax.tree.leaves(found)):
        raise UserError("the bound is NaN: the weights of this checkpoint are not finite; use another one")
    return found


def summary(total: np.ndarray, D: int) -> dict[str, float | None]:
    """Gives a bound as numbers: mean over examples and its standard error, per example and per dimension.

    Args:
        total: nats per example [N]; the error of one example alone is None.
        D: the number of elements in an example.
    """
    nats = np.asarray(total, np.float64)
    bits = np.asarray(likelihood.bits_per_dim(nats, D))
    error = len(nats) ** -0.5 if len(nats) > 1 else None
    return {
        "bits_per_dim": float(bits.mean()),
        "standard_error": None if error is None else float(bits.std(ddof=1) * error),
        "nats": float(nats.mean()),
        "nats_standard_error": None if error is None else float(nats.std(ddof=1) * error),
    }


def parts(bound: likelihood.Bound, D: int) -> dict[str, Any]:
    """Gives the parts of a bound in bits per dimension: reconstruction, prior, and the term of every t."""
    steps = np.asarray(likelihood.bits_per_dim(np.asarray(bound.steps, np.float64), D)).mean(1)
    return {
        "reconstruction": float(steps[0]),
        "prior": float(np.mean(likelihood.bits_per_dim(np.asarray(bound.prior, np.float64), D))),
        "steps": steps.tolist(),
    }
