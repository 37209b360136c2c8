"""Computes the bound of a network on many examples, and its parts as numbers."""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from d3pm_jax import likelihood, losses
from d3pm_jax.checks import bare
from d3pm_jax.errors import UserError
from d3pm_jax.processes import Process
from d3pm_jax.sampling.noise import EVALUATION


def evaluate_bound(
    predict: Callable[..., Any],
    params: Any,
    process: Process,
    x0: np.ndarray,
    batch_size: int,
    seed: int,
    term: likelihood.Term = losses.posterior_kl,
    sharding: jax.sharding.NamedSharding | None = None,
    labels: np.ndarray | None = None,
    progress: Callable[[int], Any] = lambda done: None,
) -> likelihood.Bound:
    """Computes every term of the bound for every example.

    Args:
        predict: the network, (params, xt, time) -> logits of x_0.
        params: its parameters.
        process: the forward process.
        x0: int32 [N, *S].
        batch_size: how many at a time; rounded down to a multiple of the devices of the sharding.
        seed: of the noise; the terms of example i do not depend on the others.
        term: what the logits cost at a step.
        sharding: of a batch, where it is spread over devices.
        labels: int32 [N], for a network that takes them.
        progress: is called with the number of examples that are done, first with 0 when all is compiled.

    Returns:
        steps [T, N] and prior [N], in nats per example.

    Raises:
        UserError: a term is NaN.
    """
    devices = 1 if sharding is None else sharding.mesh.size
    size = max(1, min(batch_size, len(x0)) // devices) * devices

    @jax.jit
    def bound(params: Any, process: Process, x0: Any, index: Any, more: dict[str, Any]) -> likelihood.Bound:
        key = jax.random.fold_in(jax.random.key(seed), EVALUATION)
        denoise = partial(predict, params, **more)
        return bare(likelihood.estimate_bound)(key, denoise, process, x0, index, term)

    parts = []
    for start in range(0, len(x0), size):
        index = np.arange(start, start + size)
        taken = np.minimum(index, len(x0) - 1)  # the last batch is filled up, and cut below
        batch, more = x0[taken], {} if labels is None else {"label": labels[taken]}
        placed = jax.device_put((batch, index.astype(np.int32), more), sharding)
        part = bound(params, process, *placed)
        progress(start)
        parts.append(jax.device_get(part))
    progress(len(x0))
    steps = np.concatenate([part.steps for part in parts], axis=1)[:, : len(x0)]
    prior = np.concatenate([part.prior for part in parts])[: len(x0)]
    if np.isnan(steps).any():
        raise UserError("the bound is NaN: the weights of this checkpoint are not finite; use another one")
    return likelihood.Bound(jnp.asarray(steps), jnp.asarray(prior))


def summary(bound: likelihood.Bound, D: int) -> dict[str, Any]:
    """Gives the bound in bits per dimension: mean over examples, standard error, and parts.

    Args:
        bound: of N examples.
        D: the number of elements in an example.
    """
    total = np.asarray(likelihood.bits_per_dim(bound.total(), D), np.float64)
    steps = np.asarray(likelihood.bits_per_dim(bound.steps, D), np.float64).mean(1)
    return {
        "bits_per_dim": float(total.mean()),
        "standard_error": float(total.std(ddof=1) / len(total) ** 0.5) if len(total) > 1 else None,
        "reconstruction": float(steps[0]),
        "prior": float(np.mean(likelihood.bits_per_dim(bound.prior, D))),
        "steps": steps.tolist(),
    }
