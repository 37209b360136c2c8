"""Bounds log P(x) from importance weights log p(v) - log q(v | x)."""

import math

from jaxtyping import Array, Float

from d3pm_jax import numerics
from d3pm_jax.checks import declared


@declared()
def importance_bound(log_weights: Float[Array, "n B"]) -> Float[Array, " B"]:
    """log mean_i exp(log_weights_i), whose expectation is at most log P(x): IWBO(n) (arXiv 1509.00519).

    The expectation rises with n to log P(x). For n = 1 it is the ELBO. The variance of the weights may be
    infinite, as with `signed_softplus` of normal noise: then it rises slowly, and standard errors say little.

    Args:
        log_weights: log p(v) - log q(v | x) of n independent v for each example.

    Returns:
        Nats of each example.
    """
    return numerics.log_sum(log_weights.T) - math.log(len(log_weights))
