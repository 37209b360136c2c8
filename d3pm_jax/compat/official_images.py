"""Computes those numbers of the official code for images that exact kernels cannot, as it adds epsilons.

For comparing, not for training: the official code for images (google-research, d3pm/images) adds eps inside
every log, which smooths the reverse process that it samples from. t = 1..T and rows are "from", as everywhere
here. The page `docs/compat.md` has the conventions of each program and the calls that give its numbers.
"""

import math

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from d3pm_jax import numerics
from d3pm_jax.checks import CATEGORIES, NUM_CATEGORIES, at_least, declared, steps
from d3pm_jax.losses import cross_entropy
from d3pm_jax.posteriors import log_p_x0
from d3pm_jax.processes import Process, expand_trailing, for_each_size

EPS = 1e-6


@declared(x0=CATEGORIES, xt=CATEGORIES, t=steps(1), eps=at_least(0))
@for_each_size
def q_posterior(
    process: Process, x0: Int[Array, "*S"], xt: Int[Array, "*S"], t: Int[Array, "..."], eps: float = EPS
) -> Float[Array, "*S K"]:
    """log(Q[t, ., x_t] + eps) + log(Qbar[t-1, x_0, .] + eps); at t = 1 log(onehot(x_0) + eps).

    Args:
        process: the forward process.
        x0, xt: categories.
        t: steps 1..T.
        eps: inside each log; at 0 this is `posteriors.q_posterior` before it is normalised.

    Returns:
        Logits in nats, not normalised.
    """
    # Qbar[0] is the identity, so at t = 1 the row is onehot(x_0).
    row = jnp.exp(process.log_q_probs(x0, t - 1))  # [*S, K]
    return _add_logs(process, row, jnp.log(row + eps), xt, t, eps)


@declared(xt=CATEGORIES, t=steps(1), eps=at_least(0))
@for_each_size
def p_logits(
    process: Process,
    logits_x0: Float[Array, "*S K"],
    xt: Int[Array, "*S"],
    t: Int[Array, "..."],
    eps: float = EPS,
) -> Float[Array, "*S K"]:
    """log(Q[t, ., x_t] + eps) + log(p @ Qbar[t-1] + eps), p = softmax(logits_x0); at t = 1 logits_x0.

    Args:
        process: the forward process.
        xt: categories.
        t: steps 1..T.
        eps: inside each log.
        logits_x0: the network's unnormalised log p(x_0 | x_t).

    Returns:
        Logits in nats, not normalised.
    """
    row = jnp.exp(process.log_push(log_p_x0(process, logits_x0), t - 1))  # [*S, K]
    return _add_logs(process, row, logits_x0.astype(row.dtype), xt, t, eps)


@declared(x0=CATEGORIES, xt=CATEGORIES, t=steps(1), eps=at_least(0))
def vb_bits(
    process: Process,
    logits_x0: Float[Array, " B *S K"],
    x0: Int[Array, " B *S"],
    xt: Int[Array, " B *S"],
    t: Int[Array, " B"],
    eps: float = EPS,
) -> Float[Array, " B"]:
    """KL(q_posterior || p_logits) for t > 1, -log p(x_0 | x_1) for t = 1: the official `vb_terms_bpd`.

    Args:
        process: the forward process.
        logits_x0: the network's unnormalised log p(x_0 | x_t).
        x0, xt: categories.
        t: steps 1..T.
        eps: inside each log.

    Returns:
        Bits per dimension: the mean over the elements of an example, divided by ln 2.
    """
    log_q = numerics.log_normalize(q_posterior(process, x0, xt, t, eps))
    kl = numerics.kl_logits(log_q, p_logits(process, logits_x0, xt, t, eps))
    ce = cross_entropy(process, logits_x0, x0)
    return _bits(jnp.where(expand_trailing(t, x0.shape) == 1, ce, kl))


@declared(x0=CATEGORIES, eps=at_least(0))
def prior_bits(process: Process, x0: Int[Array, " B *S"], eps: float = EPS) -> Float[Array, " B"]:
    """sum_k q_k (log(q_k + eps) - log(pi_k + eps)), q = Qbar[T, x_0]: the official `prior_bpd`.

    Args:
        process: the forward process.
        x0: categories.
        eps: inside each log; it can make the result negative.

    Returns:
        Bits per dimension.
    """
    q = jnp.exp(process.log_q_probs(x0, jnp.asarray(process.T, jnp.int32)))
    prior = jnp.broadcast_to(jnp.exp(process.log_prior()), q.shape)
    return _bits(jnp.sum(q * (jnp.log(q + eps) - jnp.log(prior + eps)), axis=-1))


@declared(K=NUM_CATEGORIES, eps=at_least(0))
def logistic(
    loc: Float[Array, "*S"], log_scale: Float[Array, "*S"], K: int, eps: float = EPS
) -> Float[Array, "*S K"]:
    """log sigmoid(b_k) + log(1 - sigmoid(a_k) / sigmoid(b_k) + eps): the official truncated logistic head.

    a_k and b_k are the edges of bin k, as in `heads.logistic`, which this is at eps = 0. The second argument
    is computed as sigmoid(-a_k) (1 - exp(a_k - b_k)) + eps, which is the same and keeps its digits.

    Args:
        loc: where the distribution is, on the scale from -1 (category 0) to 1 (category K - 1).
        log_scale: log of its width, less 2.
        K: number of categories.
        eps: lifts the logits of categories far above loc to log(eps).

    Returns:
        Logits of x_0, not normalised.
    """
    edges = (jnp.arange(K + 1, dtype=loc.dtype) * 2 - K) / (K - 1)  # [K + 1]
    inverse = jnp.exp(2.0 - log_scale)[..., None]  # [*S, 1]
    z = inverse * (edges.reshape((1,) * loc.ndim + (K + 1,)) - loc[..., None])
    inside = jax.nn.sigmoid(-z[..., :-1]) * -jnp.expm1(-2.0 / (K - 1) * inverse)
    return jax.nn.log_sigmoid(z[..., 1:]) + jnp.log(inside + eps)


def _add_logs(process: Process, row: Array, first: Array, xt: Array, t: Array, eps: float) -> Array:
    """log(column of Q[t] + eps) + log(row + eps), the logs of Bayes' two factors; `first` at t = 1.

    Args:
        process: the forward process.
        row: [*S, K], the distribution of x_{t-1} before x_t is seen.
        first: [*S, K], what the official code has at t = 1 in place of the sum.
        xt, t, eps: as for `q_posterior`.
    """
    column = jnp.exp(process.log_q_back(xt, t))  # [*S, K]
    is_first = expand_trailing(t, xt.shape)[..., None] == 1
    return jnp.where(is_first, first, jnp.log(column + eps) + jnp.log(row + eps))


def _bits(nats: Array) -> Array:
    """Returns bits per dimension [B] from nats [B, *S]."""
    return jnp.mean(nats.reshape(nats.shape[0], math.prod(nats.shape[1:])), axis=1) / math.log(2)
