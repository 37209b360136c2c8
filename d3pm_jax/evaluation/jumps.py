"""Computes the cost of steps of any length, from which the best grid of few steps follows."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Key

from d3pm_jax import likelihood, losses
from d3pm_jax.checks import declared
from d3pm_jax.posteriors import q_sample
from d3pm_jax.processes import Process, respace
from d3pm_jax.projection import by_rows_of
from d3pm_jax.sampling import Logits, Network, check_agrees, per_example


@declared()
def jump_costs(
    denoise: Network,
    process: Process,
    x0: Int[Array, " B *S"] | np.ndarray,
    times: Sequence[int],
    key: Key[Array, ""],
    term: likelihood.Term = losses.posterior_kl,
    progress: Callable[[int], Any] = lambda done: None,
    weight: Float[Array, " B *S"] | np.ndarray | None = None,
) -> np.ndarray:
    """Computes the term of the bound of a step from t to s for all pairs s < t of times.

    These are the costs that `sampling.best_grid` takes. A term is that of the process that `respace` makes of
    a grid in which s is followed by t. The network is called once for each t.

    Args:
        denoise: the network, (xt, process.time[t]) -> logits of x_0, or a `sampling.Denoiser`; jitted, or
            each call is traced anew.
        process: what a constructor returned, all of its steps.
        x0: examples int32 [N, *S], over which the mean is taken.
        times: increasing steps, the last of them T.
        key: of the noise.
        term: what the logits cost at a step; `partial(posterior_kl, belief=...)` for those of another belief.
        progress: is called with the number of times that are done.
        weight: of each element [N, *S]; None where every element counts once. `denoise` has to know the
            weights by itself.

    Returns:
        Nats per example, float64 [n + 1, n + 1] for n times: [i, j] is the cost from times[j - 1] to
        times[i - 1], and to x_0 for i = 0. inf where i >= j.

    Raises:
        ValueError: `denoise` is a `sampling.Denoiser` of another belief, K or last step.
    """
    check_agrees(denoise, process, "d3pm", term)
    x = jnp.asarray(x0, jnp.int32)
    noise = per_example(key, jnp.arange(len(x)), x.shape[1:])

    @jax.jit
    def diffuse(process: Process, t: jax.Array) -> jax.Array:
        return q_sample(process, x, t, noise(t))

    # All processes that `respace` makes here have one to three steps, so that this is compiled for these
    # alone.
    @jax.jit
    def cost(respaced: Process, logits: Logits, xt: jax.Array, step: jax.Array) -> jax.Array:
        nats = by_rows_of(respaced, logits, term, x, xt, jnp.broadcast_to(step, len(x)))
        if weight is not None:
            nats = jnp.where(weight > 0, weight * nats, 0.0)
        return jnp.sum(nats) / len(x)

    coarse = respace(process, times)
    costs = np.full((len(times) + 1, len(times) + 1), np.inf)
    for j in range(1, len(times) + 1):
        # x_t and the logits depend on t alone, and serve all s: the kernel from x_t to x_s changes, not what
        # the network predicts of x_0.
        xt = diffuse(coarse, jnp.int32(j))
        logits = denoise(xt, jnp.broadcast_to(coarse.time[j], len(x)))
        for i in range(j):
            # A grid with s, t and the last step, which every grid has to have; the term is that of the step
            # that ends at t.
            grid = sorted({i, j, coarse.T} - {0})
            costs[i, j] = cost(respace(coarse, grid), logits, xt, jnp.int32(grid.index(j) + 1))
        progress(j)
    return costs
