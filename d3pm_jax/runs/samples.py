"""Draws samples of a run in batches by one compiled program."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import jax
import numpy as np

from d3pm_jax import sampling
from d3pm_jax.errors import UserError
from d3pm_jax.posteriors import p_logits
from d3pm_jax.runs.build import Parts
from d3pm_jax.sampling.noise import SAMPLING
from d3pm_jax.types import Params

Sampler = Callable[[Params, int, int], tuple[np.ndarray, np.ndarray]]


def make_sampler(parts: Parts, batch_size: int, record: Sequence[int] = ()) -> Sampler:
    """Makes (params, n, seed) -> samples; sample i depends on params and seed, not on n or batch_size.

    Args:
        parts: of the run.
        batch_size: how many at a time; rounded down to a multiple of the devices of the mesh.
        record: the t whose x_t to return as well.

    Returns:
        The function. It gives x_0 [n, H, W, C] and x_t [R, n, H, W, C], int32, and raises a UserError
        when the network gave NaN.
    """
    devices = parts.mesh.size
    size = max(1, batch_size // devices) * devices

    @jax.jit
    def chain(params: Params, process: Any, key: jax.Array, start: jax.Array) -> sampling.Chain:
        denoise = partial(parts.predict, params)
        reverse = partial(p_logits, first_step=parts.config.loss.first_step)
        return sampling.sample(key, denoise, process, (size, *parts.image), start, record, reverse)

    def draw(params: Params, n: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
        key = jax.random.fold_in(jax.random.key(seed), SAMPLING)
        starts = map(jax.numpy.asarray, range(0, n, size))
        batches = [_finite(chain(params, parts.process, key, start)) for start in starts]
        x0 = np.concatenate([b.x0 for b in batches])
        return x0[:n], np.concatenate([b.states for b in batches], axis=1)[:, :n]

    return draw


def _finite(chain: sampling.Chain) -> sampling.Chain:
    """Returns the chain on the host. Raises UserError if it failed."""
    chain = jax.device_get(chain)
    if chain.failed_at:
        raise UserError(
            f"the network gave no distribution at t = {chain.failed_at}: its weights are not finite, "
            f"or it ruled out what it was given; use another checkpoint"
        )
    return chain
