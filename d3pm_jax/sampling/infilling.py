"""Samples the unknown elements of examples: known ones stay as they are in every step of the chain."""

from collections.abc import Sequence

import jax.numpy as jnp
from jaxtyping import Array, Bool, Int, Key

from d3pm_jax import beliefs
from d3pm_jax.beliefs import Belief
from d3pm_jax.checks import CATEGORIES, INDEX, NOISE, declared
from d3pm_jax.posteriors import p_logits
from d3pm_jax.processes.base import Process
from d3pm_jax.sampling.ancestral import PRIOR_STEP, Denoise, Reverse, ancestral
from d3pm_jax.sampling.chain import Chain
from d3pm_jax.sampling.noise import Noise, per_example


@declared(x0=CATEGORIES, xT=CATEGORIES, noise=NOISE)
def infill(
    denoise: Denoise,
    process: Process,
    x0: Int[Array, " B *S"],
    known: Bool[Array, " B *S"],
    xT: Int[Array, " B *S"],
    noise: Noise,
    record: Sequence[int] = (),
    reverse: Reverse = p_logits,
    belief: Belief = "d3pm",
) -> Chain:
    """x_{t-1} ~ p(x_{t-1} | x_t) for t = T..1 as in `ancestral`, with known elements those of x_0 at every t.

    Exact for an absorbing process with an extra mask and a network that sees no time: such a chain fills in
    what is masked, given what is not, whatever came first. A network of another process, or one that sees
    time, was never shown clean elements among noised ones: `docs/text.md` says how far off it is.

    Args:
        denoise: the network, (xt, process.time[t]) -> logits of x_0.
        process: the forward process.
        x0: the known elements; any category elsewhere.
        known: which they are.
        xT: where to start; known elements are replaced.
        noise, record, reverse, belief: as for `ancestral`.

    Returns:
        A `Chain`. Look at `failed_at` before using it.

    Raises:
        ValueError: a recorded t is outside 0..T.
    """
    reverse = beliefs.with_belief(belief, reverse)

    # The reverse step of a known element is certain of its x_0, whatever the network says of it.
    def reverse_with_known(process: Process, logits: Array, xt: Array, t: Array) -> Array:
        log_p = reverse(process, logits, xt, t)  # [B, *S, K]
        categories = jnp.arange(log_p.shape[-1]).reshape((1,) * x0.ndim + (-1,))
        certain = jnp.where(categories == x0[..., None], 0.0, -jnp.inf).astype(log_p.dtype)
        return jnp.where(known[..., None], certain, log_p)

    # `ancestral` hands a belief on to `reverse`. The belief is in `reverse` already, and `reverse_with_known`
    # takes none, so `ancestral` gets its default.
    xT = jnp.where(known, x0, xT)
    return ancestral(denoise, process, xT, noise, record, reverse_with_known)


@declared(x0=CATEGORIES, start=INDEX)
def sample_infill(
    key: Key[Array, ""],
    denoise: Denoise,
    process: Process,
    x0: Int[Array, " B *S"],
    known: Bool[Array, " B *S"],
    start: int | Int[Array, ""] = 0,
    record: Sequence[int] = (),
    reverse: Reverse = p_logits,
    belief: Belief = "d3pm",
) -> Chain:
    """Draws `infill` with the noise that `sample` has: unknown elements start from the same x_T.

    Args:
        key: a typed key.
        denoise, process, x0, known, record, reverse, belief: as for `infill`.
        start: the number of the first example; the noise of example i is the same in any batch.

    Returns:
        A `Chain`. Look at `failed_at` before using it.
    """
    noise = per_example(key, start + jnp.arange(len(x0), dtype=jnp.int32), x0.shape[1:])
    xT = process.draw_prior(noise(jnp.asarray(PRIOR_STEP, jnp.int32)))
    return infill(denoise, process, x0, known, xT, noise, record, reverse, belief)
