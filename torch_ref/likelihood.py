"""Computes the variational bound on -log p(x_0), all steps of it, and converts its units."""

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from torch_ref import beliefs, timesteps
from torch_ref.checks import Belief, declared
from torch_ref.losses import posterior_kl, prior_kl
from torch_ref.numerics.rows import to_rows
from torch_ref.posteriors import p_logits, q_posterior, q_sample
from torch_ref.processes.base import Process
from torch_ref.sampling.denoiser import check_agrees
from torch_ref.sampling.network import Network
from torch_ref.sampling.noise import Noise, per_example

Term = Callable[[Process, Tensor, Tensor, Tensor, Tensor], Tensor]  # process, logits, x0, xt, t -> nats


class Bound(NamedTuple):
    """Holds the bound in parts, in nats per example."""

    steps: Tensor  # [T, B]  row t - 1 is the term of step t
    prior: Tensor  # [B]

    def total(self) -> Tensor:
        """Returns the bound on -log p(x_0), [B]."""
        return self.steps.sum(dim=0) + self.prior


@declared(x0="B *S categories", weight="B *S from_0")
def all_t_bound(
    denoise: Network,
    process: Process,
    x0: Tensor,
    noise: Noise,
    term: Term = posterior_kl,
    belief: Belief = "d3pm",
    weight: Tensor | None = None,
) -> Bound:
    """-log p(x_0) <= prior KL + sum_t KL_t, each KL_t at one x_t ~ q(x_t | x_0).

    Arguments as in `d3pm_jax.all_t_bound`.
    """
    check_agrees(denoise, process, belief, term)
    term = beliefs.with_belief(belief, term)
    steps = []
    for t in range(1, process.T + 1):
        ts = torch.full(x0.shape[:1], t)
        xt = q_sample(process, x0, ts, noise(t))
        nats = term(process, denoise(xt, process.time[ts]), x0, xt, ts)  # [B, *S]
        steps.append(_sum_per_example(nats, weight))
    return Bound(torch.stack(steps), _sum_per_example(prior_kl(process, x0), weight))


@declared(x0="B *S categories", index="B index")
def estimate_bound(
    key: int,
    denoise: Network,
    process: Process,
    x0: Tensor,
    index: Tensor,
    term: Term = posterior_kl,
    belief: Belief = "d3pm",
    weight: Tensor | None = None,
) -> Bound:
    """Computes `all_t_bound` with noise that depends on (key, index_b, t) alone; the key is a seed.

    Arguments as in `d3pm_jax.estimate_bound`.
    """
    return all_t_bound(denoise, process, x0, per_example(key, index, x0.shape[1:]), term, belief, weight)


@declared(x0="B *S categories", u="n B noise", weight="B *S from_0")
def strata_bound(
    denoise: Network,
    process: Process,
    x0: Tensor,
    u: Tensor,
    noise: Noise,
    term: Term = posterior_kl,
    belief: Belief = "d3pm",
    weight: Tensor | None = None,
) -> Tensor:
    """prior KL + sum over strata of (its size) KL_t at one t drawn in each, per example.

    Arguments as in `d3pm_jax.strata_bound`.
    """
    check_agrees(denoise, process, belief, term)
    term = beliefs.with_belief(belief, term)
    total = _sum_per_example(prior_kl(process, x0), weight)  # [B]
    t, sizes = timesteps.stratified(u, process.T)  # [n, B] and [n]
    for j in range(len(sizes)):
        xt = q_sample(process, x0, t[j], noise(j + 1))
        nats = term(process, denoise(xt, process.time[t[j]]), x0, xt, t[j])  # [B, *S]
        total = total + sizes[j] * _sum_per_example(nats, weight)
    return total


@declared(x0="B *S categories", index="B index", n="steps")
def stratified_bound(
    key: int,
    denoise: Network,
    process: Process,
    x0: Tensor,
    index: Tensor,
    n: int,
    term: Term = posterior_kl,
    belief: Belief = "d3pm",
    weight: Tensor | None = None,
) -> Tensor:
    """Computes `strata_bound` with noise that depends on (key, index_b) and n alone; row 0 of it is for t.

    Arguments as in `d3pm_jax.stratified_bound`.
    """
    u = per_example(key, index, (n,))(0)  # [B, n]
    noise = per_example(key, index, x0.shape[1:])
    return strata_bound(denoise, process, x0, u.T, noise, term, belief, weight)


@declared(x0="B *S categories", order="B *S noise", mask_id="index")
def chain_rule(fill_in: Callable[[Tensor], Tensor], x0: Tensor, order: Tensor, mask_id: int) -> Tensor:
    """-log p(x_i | the elements before i), elements from the lowest entry of `order` to the highest.

    Arguments as in `d3pm_jax.chain_rule`.
    """
    if not x0.numel():
        return torch.zeros(x0.shape, dtype=torch.promote_types(order.dtype, torch.float32))
    x0 = x0.contiguous()
    costs = []
    for b in range(len(x0)):
        xt = torch.full_like(x0[b], mask_id)
        places = order[b].flatten().argsort(stable=True)
        costs_in_order = []
        for i in places:
            # A network may need a batch of its usual size: the same x_t at every place of it, of which one
            # is read.
            logits = fill_in(xt.clone()[None].expand_as(x0))[b].flatten(0, -2)  # [D, K]
            logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
            category = x0[b].view(-1)[i]
            costs_in_order.append(-logits[i].log_softmax(-1)[category])
            xt.view(-1)[i] = category
        costs.append(torch.stack(costs_in_order)[places.argsort()].reshape(x0.shape[1:]))
    return torch.stack(costs)


@declared(x0="B *S categories")
def trajectory_log_weight(
    denoise: Network, process: Process, x0: Tensor, noise: Noise, belief: Belief = "d3pm"
) -> Tensor:
    """log p(x_T) - log q(x_T | x_0) + sum_t [log p(x_{t-1} | x_t) - log q(x_{t-1} | x_t, x_0)] of one path.

    At t = 1 q is certain of x_0, so that its term is log p(x_0 | x_1).

    Arguments as in `d3pm_jax.likelihood.trajectory_log_weight`.
    """
    check_agrees(denoise, process, belief, p_logits)
    total = torch.zeros(len(x0))
    x_prev = x0
    for t in range(1, process.T + 1):
        ts = torch.full(x0.shape[:1], t)
        xt = process.draw_step(x_prev, ts, noise(t))
        log_p = p_logits(process, denoise(xt, process.time[ts]), xt, ts, belief)
        log_q = q_posterior(process, x0, xt, ts)
        total = total + _sum_per_example(_at(log_p, x_prev) - _at(log_q, x_prev), None)
        x_prev = xt
    log_prior = process.log_prior().expand(*x0.shape, process.K)
    log_q = process.log_q_probs(x0, torch.full(x0.shape[:1], process.T))
    return total + _sum_per_example(_at(log_prior, x_prev) - _at(log_q, x_prev), None)


@declared(x="N floats")
def mean_and_se(x: Tensor) -> tuple[Tensor, Tensor]:
    """Returns the mean of independent values and its standard error.

    Arguments as in `d3pm_jax.mean_and_se`.
    """
    return x.mean(), x.std(correction=1) / math.sqrt(len(x))


@declared(D="count")
def bits_per_dim(nats: Tensor, D: int) -> Tensor:
    """nats / (D ln 2).

    Arguments as in `d3pm_jax.bits_per_dim`.
    """
    return nats / (D * math.log(2))


def _at(log_p: Tensor, x: Tensor) -> Tensor:
    """Returns the entry of each row [*S, K] that belongs to the category of x [*S]."""
    return log_p.gather(-1, x[..., None])[..., 0]


def _sum_per_example(nats: Tensor, weight: Tensor | None) -> Tensor:
    """Sums weight nats over the elements of each example; those of weight 0 may be infinite."""
    if weight is not None:
        nats = torch.where(weight > 0, weight * nats, torch.zeros_like(nats))
    return to_rows(nats).sum(dim=1)
