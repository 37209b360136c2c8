"""Computes training losses, per element and in nats."""

from typing import NamedTuple

import torch
from torch import Tensor

from torch_ref import numerics
from torch_ref.beliefs import Belief, to_denoiser
from torch_ref.checks import declared
from torch_ref.numerics.rows import to_rows
from torch_ref.posteriors import log_p_x0, p_logits, p_prev, q_posterior
from torch_ref.processes.base import Process


@declared(logits_x0="*S K floats", x0="*S categories", xt="*S categories", t="... steps")
def posterior_kl(
    process: Process,
    logits_x0: Tensor,
    x0: Tensor,
    xt: Tensor,
    t: Tensor,
    belief: Belief = "d3pm",
) -> Tensor:
    """KL(q(x_{t-1} | x_t, x_0) || p(x_{t-1} | x_t)); at t = 1 this is -log p(x_0 | x_1).

    0 for an impossible pair (x_0, x_t).

    Arguments as in `d3pm_jax.posterior_kl`.
    """
    log_p = p_logits(process, logits_x0, xt, t, belief)
    return numerics.kl(q_posterior(process, x0, xt, t), log_p)


@declared(logits_x0="*S K floats", x0="*S categories")
def cross_entropy(process: Process, logits_x0: Tensor, x0: Tensor) -> Tensor:
    """-log p(x_0 | x_t).

    Arguments as in `d3pm_jax.cross_entropy`.
    """
    return -log_p_x0(process, logits_x0).gather(-1, x0[..., None])[..., 0]


@declared(logits_x0="*S K floats", x0="*S categories", t="... steps_or_0")
def marginal_kl(process: Process, logits_x0: Tensor, x0: Tensor, t: Tensor) -> Tensor:
    """KL(q(x_t | x_0) || sum_{x_0} p(x_0) q(x_t | x_0))."""
    return numerics.kl(process.log_q_probs(x0, t), process.log_push(log_p_x0(process, logits_x0), t))


@declared(logits_prev="*S K floats", x0="*S categories", xt="*S categories", t="... steps")
def direct_kl(process: Process, logits_prev: Tensor, x0: Tensor, xt: Tensor, t: Tensor) -> Tensor:
    """KL(q(x_{t-1} | x_t, x_0) || softmax(logits_prev)); 0 for an impossible pair (x_0, x_t).

    Arguments as in `d3pm_jax.direct_kl`.
    """
    return numerics.kl(q_posterior(process, x0, xt, t), p_prev(process, logits_prev, xt, t))


@declared(logits_x0="*S K floats", x0="*S categories", smoothing="share", mask_id="categories")
def smoothed_cross_entropy(
    process: Process, logits_x0: Tensor, x0: Tensor, smoothing: float, mask_id: int | None = None
) -> Tensor:
    """-sum_k r_k log p_k, r = (1 - smoothing) onehot(x_0) + smoothing / K; without mask_id, if given.

    Arguments as in `d3pm_jax.smoothed_cross_entropy`.
    """
    allowed = torch.ones(process.K, dtype=torch.bool)
    if mask_id is not None:
        allowed[mask_id] = False
    r = smoothing * allowed / allowed.sum() + (1 - smoothing) * (torch.arange(process.K) == x0[..., None])
    return -torch.where(r > 0, r * log_p_x0(process, logits_x0), 0.0).sum(dim=-1)


class Hybrid(NamedTuple):
    """Holds the hybrid loss and its two terms, [*S] each."""

    loss: Tensor
    kl: Tensor
    ce: Tensor


@declared(logits_x0="*S K floats", x0="*S categories", xt="*S categories", t="... steps", ce_weight="from_0")
def hybrid(
    process: Process,
    logits_x0: Tensor,
    x0: Tensor,
    xt: Tensor,
    t: Tensor,
    ce_weight: float,
    belief: Belief = "d3pm",
) -> Hybrid:
    """`posterior_kl` + ce_weight `cross_entropy` of the denoiser.

    Arguments as in `d3pm_jax.hybrid`.
    """
    kl = posterior_kl(process, logits_x0, x0, xt, t, belief)
    denoiser = logits_x0
    if belief == "leave_one_out":
        denoiser = to_denoiser(process, logits_x0, xt, t)
    ce = cross_entropy(process, denoiser, x0)

    # A weight of 0 makes 0 of a cross entropy that is infinite.
    loss = kl
    if ce_weight != 0:
        loss = kl + ce_weight * ce
    return Hybrid(loss, kl, ce)


@declared(x0="*S categories")
def prior_kl(process: Process, x0: Tensor) -> Tensor:
    """KL(q(x_T | x_0) || p(x_T)).

    Arguments as in `d3pm_jax.prior_kl`.
    """
    log_q = process.log_q_probs(x0, torch.tensor(process.T))  # [*S, K]
    return numerics.kl(log_q, process.log_prior().expand_as(log_q))


@declared(kl="B *S floats", x0="B *S categories", p_t="B probability")
def stochastic_bound(process: Process, kl: Tensor, x0: Tensor, p_t: Tensor) -> Tensor:
    """sum of kl / p_t + sum of prior KL, per example.

    Arguments as in `d3pm_jax.stochastic_bound`.
    """
    return to_rows(kl).sum(dim=1) / p_t + to_rows(prior_kl(process, x0)).sum(dim=1)


@declared(x="B *S floats", p_t="B probability", T="count")
def mean_over_steps(x: Tensor, p_t: Tensor, T: int) -> Tensor:
    """mean of x / (T p_t), over elements and over t, whatever the probabilities of the drawn t."""
    return (to_rows(x).mean(dim=1) / (T * p_t)).mean()
