"""Sums a loss over places with weights, without an array of their logits."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from d3pm_jax.checks import at_least, declared, is_array, is_known
from d3pm_jax.checks.depth import CALLED, depth
from d3pm_jax.errors import describe_returned
from d3pm_jax.processes import Process
from d3pm_jax.projection import Projection, check_process, weigh


class Projected(NamedTuple):
    """Holds a weighted sum, and what it is made of."""

    total: Float[Array, ""]
    values: Any  # what the loss returned of each place, [*S]; without gradient, and 0 where the weight is 0


@declared(weight=at_least(0))
def projected(
    process: Process,
    loss: Callable[..., Any],
    projection: Projection,
    rows: tuple,
    weight: Float[Array, "*S"],
) -> Projected:
    """sum_i w_i loss_i of logits that are made of hidden states and a kernel, some places at a time.

        logits = projection.Projection(hidden, kernel, bias, xt, lambda output, xt: d3pm.residual(output, xt))
        total, terms = losses.projected(process, losses.posterior_kl, logits, (x0, xt, t), weight)

    The gradient of the total for hidden states, kernel and bias is made with it: the logits of a place are
    made once, and never kept. Places of weight 0 come last, and what is left of them is not visited. A loss
    is of one place: its value there may depend on the logits and rows of that place alone.
    Call it under `jit`: by itself it is compiled anew each time.

    Args:
        process: the forward process, whose K the kernel must have.
        loss: (process, logits [n, K], *rows [n]) -> nats [n], or a tuple of such, of which the first is the
            loss; any loss here of logits and rows, such as `posterior_kl` and `cross_entropy`.
        projection: what logits [*S, K] are made of.
        rows: what the loss takes behind logits, arrays of a shape that *S begins with, as t [B] is.
        weight: of each place, [*S]. Divided by its sum it makes a mean.

    Returns:
        The total in nats, [], and what the loss returned, [*S] each: these have no gradient, and one that is
        asked for is an error when the program is differentiated. Derivatives of the total are of the first
        order, in reverse mode.

    Raises:
        TypeError: the loss returns something else.
        ValueError: weights are negative, NaN or all 0; shapes do not fit each other or the K of the process.
    """
    check_projection(process, projection)
    # No gradient goes to the tables of a process.
    process = jax.lax.stop_gradient(process)
    S = tuple(projection.xt.shape)
    if weight.shape != S:
        raise ValueError(f"weight has shape {list(weight.shape)}, and x_t {list(S)}: give each place one")
    for x in jax.tree.leaves(rows):
        if jnp.shape(x) != S[: jnp.ndim(x)]:
            raise ValueError(
                f"rows hold an array of shape {list(jnp.shape(x))}, with which {list(S)}, the shape of x_t, "
                f"does not begin: pass arrays of each place, or of each example"
            )
    if is_known(weight) and not np.any(np.asarray(weight) > 0):
        raise ValueError("weight is 0 at all places: leave the batch out, or give some places a weight")

    def loss_of_rows(process: Process, logits: Array, *rows: Array) -> Any:
        # Of the rows nobody knows yet whether they are in range.
        with depth(CALLED):
            values = loss(process, logits, *rows)
        parts = values if isinstance(values, tuple | list) and values else [values]
        if not all(is_array(x, logits.shape[:1], jnp.floating) for x in parts):
            raise TypeError(
                f"loss returns {describe_returned(values)} for {len(logits)} places: return nats of each, "
                f"floats [{len(logits)}], or a tuple of such"
            )
        return values

    total, values = weigh(projection, jax.tree_util.Partial(loss_of_rows, process), rows, weight)
    # Under `jit` nobody could be told that there is no weight.
    return Projected(total * jnp.where(jnp.any(weight > 0), 1.0, jnp.nan), values)


def check_projection(process: Process, projection: Projection) -> None:
    """Raises ValueError for a projection whose parts do not fit each other, or another process."""
    check_process(projection, process)
    S = projection.xt.shape
    hidden = projection.hidden
    kernel = projection.kernel
    bias = projection.bias
    name = "[K, width]" if projection.tied else "[width, K]"
    if not is_array(kernel, jnp.shape(kernel), jnp.floating) or kernel.ndim != 2:
        raise ValueError(f"the kernel is {describe_returned(kernel)}: pass floats {name}")
    width, K = kernel.shape[::-1] if projection.tied else kernel.shape
    if not is_array(hidden, (*S, width), jnp.floating):
        raise ValueError(
            f"hidden is {describe_returned(hidden)}, for x_t {list(S)} and a kernel {list(kernel.shape)}, "
            f"{name}: pass floats {[*S, width]}"
        )
    if bias is not None and not is_array(bias, (K,), jnp.floating):
        raise ValueError(
            f"bias is {describe_returned(bias)}, for a kernel of {K} categories: pass floats [{K}]"
        )
    if process.K != K:
        raise ValueError(
            f"the kernel is of {K} categories, and the process has K = {process.K}: make one of the other's"
        )
