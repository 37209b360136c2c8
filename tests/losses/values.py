"""The terms of a loss and their gradient, as one program."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from d3pm_jax import beliefs, losses
from d3pm_jax.losses import variational


def fused(process, logits, x0, xt, t, belief):
    return variational.dispatch_kl_and_ce(process, logits, x0, xt, t, belief)


def definition(process, logits, x0, xt, t, belief):
    kl = variational.posterior_kl_definition(process, logits, x0, xt, t, belief)
    if belief == "leave_one_out":
        logits = beliefs.to_denoiser(process, logits, xt, t)
    return kl, losses.cross_entropy(process, logits, x0)


@partial(jax.jit, static_argnames=("terms", "belief"))
def value_and_gradient(terms, process, logits, x0, xt, t, belief="d3pm"):
    """kl and ce, and the gradient of a weighted sum of the finite ones."""
    weights = np.random.default_rng(1).normal(size=(2, *logits.shape[:-1]))

    def total(x):
        values = jnp.stack(terms(process, x, x0, xt, t, belief))
        weighted = jnp.asarray(weights, values.dtype) * values
        return jnp.sum(jnp.where(jnp.isfinite(values), weighted, 0.0)), values

    (_, values), gradient = jax.value_and_grad(total, has_aux=True)(logits)
    return values, gradient
