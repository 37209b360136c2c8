"""Turns the output of a network into logits of x_0."""

import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from d3pm_jax import numerics
from d3pm_jax.checks import CATEGORIES, CATEGORY, FINITE, NUM_CATEGORIES, declared, promote_types
from d3pm_jax.numerics import double_float
from d3pm_jax.numerics.logspace import at_least_float32
from d3pm_jax.processes.tables import is_category


@declared(xt=CATEGORIES)
def residual(output: Float[Array, "*S K"], xt: Int[Array, "*S"]) -> Float[Array, "*S K"]:
    """output + onehot(x_t): a network whose output is 0 predicts x_t itself (D3PM appendix B.2).

    Args:
        output: what the network returned.
        xt: the categories it was given.

    Returns:
        Logits of x_0, same type as output.
    """
    return output + jax.nn.one_hot(xt, output.shape[-1], dtype=output.dtype)


@declared(xt=CATEGORIES)
def log_scores(output: Float[Array, "*S K"], xt: Int[Array, "*S"]) -> Float[Array, "*S K"]:
    """Returns the output with 0 at x_t: log scores, p_t(y) / p_t(x_t) being 1 at y = x_t (SEDD, uniform).

    Args:
        output: what the network returned.
        xt: the categories it was given.

    Returns:
        Log scores, same type as output.
    """
    is_xt = is_category(xt, output.shape[-1])  # [*S, K]
    return jnp.where(is_xt, jnp.zeros((), output.dtype), output)


@declared(xt=CATEGORIES)
def absorbing_log_scores(output: Float[Array, "*S K"], xt: Int[Array, "*S"]) -> Float[Array, "*S K"]:
    """output - log(K - 1), with 0 at x_t: an output of 0 finds all but the mask alike likely (SEDD, masks).

    These are log scores as `losses.score_entropy.absorbing_score_entropy` takes them.

    Args:
        output: what the network returned, for K categories, the mask counted.
        xt: the categories it was given.

    Returns:
        Log scores, same type as output.

    Raises:
        ValueError: K is below 2.
    """
    K = output.shape[-1]
    if K < 2:
        raise ValueError(f"output has {K} categories: scores are of at least 2, the mask and what it hides")
    return log_scores(output - math.log(K - 1), xt)


@declared(mask_id=CATEGORY)
def forbid(logits: Float[Array, "*S K"], mask_id: int) -> Float[Array, "*S K"]:
    """Returns the logits with -inf at mask_id: for a mask that the data never contains.

    Args:
        logits: unnormalised log-probabilities of x_0.
        mask_id: the category that x_0 cannot be.

    Returns:
        Logits of the same shape.

    Raises:
        ValueError: mask_id is not one of the K categories.
    """
    K = logits.shape[-1]
    is_mask = jnp.arange(K).reshape((1,) * (logits.ndim - 1) + (K,)) == mask_id
    return jnp.where(is_mask, -jnp.inf, logits)


@declared()
def forbid_beyond(logits: Float[Array, "*B K"], sizes: np.ndarray) -> Float[Array, "*B K"]:
    """Returns the logits with -inf at k >= K_i: for places i with fewer categories than others.

    A mask of all places, K - 1, is beyond all of them.

    Args:
        logits: unnormalised log-probabilities of x_0, [.., *S, K].
        sizes: K_i, int [*S].

    Returns:
        Logits of the same shape.

    Raises:
        ValueError: sizes are not those of the last axes before K, or not in 1..K.
    """
    K = logits.shape[-1]
    batch = logits.shape[: logits.ndim - 1 - sizes.ndim]
    if logits.shape[len(batch) : -1] != sizes.shape:
        raise ValueError(f"sizes are {list(sizes.shape)}, logits {list(logits.shape)}: give each place one")
    if not np.all((sizes >= 1) & (sizes <= K) & (sizes == np.floor(sizes))):
        raise ValueError(
            f"sizes are {sizes.min():g}..{sizes.max():g}: pass whole numbers up to K = {K} of the logits"
        )

    # Slices and pads, and no choice: what reads the categories of a place alone is then compiled without the
    # others, which may be many.
    flat = logits.reshape(*batch, sizes.size, K)
    size_of_place = sizes.astype(np.int64).reshape(-1).tolist()
    runs = [(size, len(list(places))) for size, places in itertools.groupby(size_of_place)]
    # One split of all runs has one gradient, which is joined of theirs.
    logits_by_run = jax.lax.split(flat, [length for _, length in runs], axis=flat.ndim - 2)
    parts = []
    for (size, _), logits_of_run in zip(runs, logits_by_run, strict=True):
        own = logits_of_run[..., :size]
        parts.append(jnp.pad(own, [(0, 0)] * (own.ndim - 1) + [(0, K - size)], constant_values=-jnp.inf))
    return jnp.concatenate(parts, axis=-2).reshape(logits.shape)


@declared(loc=FINITE, log_scale=FINITE, K=NUM_CATEGORIES)
def logistic(loc: Float[Array, "*S"], log_scale: Float[Array, "*S"], K: int) -> Float[Array, "*S K"]:
    """log(sigmoid(b_k) - sigmoid(a_k)): a logistic distribution cut into K bins (D3PM, "logistic_pars").

    a_k and b_k are the edges of bin k, counted from loc, times the inverse scale exp(2 - log_scale). The
    bins have centres from -1 to 1 and width 2 / (K - 1); what lies outside them is dropped when the logits
    are normalised ("truncated"). Computed as log sigmoid(b_k) + log sigmoid(-a_k) + log(1 - exp(a_k - b_k)),
    three terms of one sign. The official code adds 1e-6 inside the log, which lifts all logits below -14.

    Args:
        loc: where the distribution is, on the scale of the bin centres.
        log_scale: log of its width, less 2; in float32 at least -80, or the inverse overflows.
        K: number of categories, at least 2.

    Returns:
        Logits of x_0, in float32 or wider.

    Raises:
        ValueError: K is below 2.
    """
    # Edges are sums of two floats, because they are multiplied by the inverse scale, which may be large: the
    # rounding of an edge, times e^20 say, would be many nats. Near loc the first difference below is exact,
    # and the low part counts.
    edges = double_float.split_float64((2 * np.arange(K + 1) - K) / (K - 1.0)).reshape(
        (2,) + (1,) * loc.ndim + (K + 1,)
    )
    wide = promote_types(loc.dtype, log_scale.dtype, jnp.float32)
    loc = loc.astype(wide)[..., None]  # [*S, 1]
    log_scale = log_scale.astype(wide)[..., None]  # [*S, 1]
    inverse = math.exp(2.0) * jnp.exp(-log_scale)
    z = ((edges[0] - loc) + edges[1]) * inverse  # [*S, K + 1]

    # log(1 - exp(a_k - b_k)) is the same for all bins, as they have one width.
    inside = numerics.log1mexp(math.log(2.0 / (K - 1)) + 2.0 - log_scale)
    return jax.nn.log_sigmoid(z[..., 1:]) + jax.nn.log_sigmoid(-z[..., :-1]) + inside


@declared(output=FINITE, xt=CATEGORIES, K=NUM_CATEGORIES)
def residual_logistic(output: Float[Array, "*S 2"], xt: Int[Array, "*S"], K: int) -> Float[Array, "*S K"]:
    """logistic(tanh(output_0 + 2 x_t / (K - 1) - 1), output_1, K): it starts from x_t.

    Args:
        output: what the network returned, where the distribution is and the log of its width.
        xt: the categories it was given.
        K: number of categories, at least 2.

    Returns:
        Logits of x_0, in float32 or wider.
    """
    output = at_least_float32(output)
    loc = output[..., 0] + xt.astype(output.dtype) * (2.0 / (K - 1)) - 1.0
    return logistic(jnp.tanh(loc), output[..., 1], K)


@declared(output=FINITE, K=NUM_CATEGORIES)
def bounded_logistic(output: Float[Array, "*S 2"], K: int) -> Float[Array, "*S K"]:
    """logistic(tanh(output_0), output_1, K): `residual_logistic` without x_t.

    Args:
        output: what the network returned.
        K: number of categories, at least 2.

    Returns:
        Logits of x_0, in float32 or wider.
    """
    output = at_least_float32(output)
    return logistic(jnp.tanh(output[..., 0]), output[..., 1], K)
