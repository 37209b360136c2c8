"""The bound of a run on a whole split."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from d3pm_jax import likelihood, losses
from d3pm_jax.errors import UserError
from d3pm_jax.noise import EVALUATION
from d3pm_jax.training.devices import batched
from d3pm_jax.training.run import Parts
from d3pm_jax.types import Params


def evaluate_bound(parts: Parts, images: np.ndarray, batch_size: int, seed: int) -> likelihood.Bound:
    """Every term of the bound for every image, under the averaged weights.

    Args:
        parts: of the run.
        images: int32 [N, H, W, C].
        batch_size: how many at a time; rounded down to a multiple of the devices of the mesh.
        seed: of the noise; the terms of image i do not depend on the others.

    Returns:
        steps [T, N] and prior [N], in nats per image.

    Raises:
        UserError: a term is NaN.
    """
    size = max(1, min(batch_size, len(images)) // parts.mesh.size) * parts.mesh.size
    sharding = batched(parts.mesh)

    @jax.jit
    def bound(params: Params, tr: Any, x0: jax.Array, index: jax.Array) -> likelihood.Bound:
        denoise = partial(parts.predict, params)
        key = jax.random.fold_in(jax.random.key(seed), EVALUATION)
        term = partial(losses.posterior_kl, first_step=parts.config.loss.first_step)
        return likelihood.estimate_bound(key, denoise, tr, x0, index, term)

    chunks = []
    for start in range(0, len(images), size):
        index = np.arange(start, start + size)
        x0 = images[np.minimum(index, len(images) - 1)]  # the last batch is filled up, and cut below
        placed = jax.device_put((x0, index.astype(np.int32)), sharding)
        chunks.append(jax.device_get(bound(parts.state.ema, parts.tr, *placed)))
    steps = np.concatenate([c.steps for c in chunks], axis=1)[:, : len(images)]
    prior = np.concatenate([c.prior for c in chunks])[: len(images)]
    if np.isnan(steps).any():
        raise UserError("the bound is NaN: the weights of this checkpoint are not finite; use another one")
    return likelihood.Bound(jnp.asarray(steps), jnp.asarray(prior))
