"""Computes log weights of an argmax flow on a batch, of which its bounds are made."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Key

from d3pm_jax import flows
from d3pm_jax.checks import values_in_range
from d3pm_jax.errors import UserError
from d3pm_jax.evaluation.bound import Compiled
from d3pm_jax.sampling.noise import EVALUATION, fold_in_each

# (params, x [B, *S], u [B, *S], normal [B, *S, D]) -> log p(v) - log q(v | x) of one v for each example, [B]
LogWeights = Callable[..., Array]


def compile_log_weights(log_weights: LogWeights, num_digits: int, draws: int, seed: int) -> Compiled:
    """Makes the jitted function of a batch that computes log p(v) - log q(v | x) of some v, [draws, B].

    Args:
        log_weights: of the flow.
        num_digits: D, numbers of v for each category.
        draws: how many v for each example; one after the other, so that no more than one is in memory.
        seed: of the noise, which depends on the number of an example alone.
    """

    @jax.jit
    @values_in_range()
    def compute(params: Any, process: None, x0: Any, index: Any, extra_inputs: dict[str, Any]) -> Array:
        if "weight" in extra_inputs:
            raise UserError("the examples have weights, but a flow takes whole examples: leave weight out")
        key = jax.random.fold_in(jax.random.key(seed), EVALUATION)
        keys = fold_in_each(key, index)

        def compute_draw(draw: Array) -> Float[Array, " B"]:
            draw_keys = jax.vmap(jax.random.fold_in, (0, None))(keys, draw)
            u, normal = draw_each(draw_keys, x0.shape[1:], num_digits)
            return log_weights(params, x0, u, normal)

        return jax.lax.map(compute_draw, jnp.arange(draws, dtype=jnp.int32))  # [draws, B]

    return compute


def draw_each(
    keys: Key[Array, " B"], shape: tuple[int, ...], num_digits: int
) -> tuple[Float[Array, " B *S"], Float[Array, "B *S D"]]:
    """Draws the noise of one v for each key.

    Args:
        keys: one for each example.
        shape: *S of an example.
        num_digits: D, numbers of v for each category.

    Returns:
        u, uniform in [0, 1), which draws codes, and standard normal noise, which draws v.
    """
    pairs = jax.vmap(jax.random.split)(keys)  # [B, 2]
    u = jax.vmap(lambda key: jax.random.uniform(key, shape))(pairs[:, 0])
    normal = jax.vmap(lambda key: jax.random.normal(key, (*shape, num_digits)))(pairs[:, 1])
    return u, normal


def elbo_and_importance_bound(log_weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns minus the ELBO and minus the IWBO of each example, in nats [N], of log weights [draws, N]."""
    elbo = log_weights.mean(axis=0, dtype=np.float64)
    importance_bound = np.asarray(flows.importance_bound(jnp.asarray(log_weights)))
    return -elbo, -importance_bound
