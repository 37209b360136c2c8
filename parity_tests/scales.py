"""The size of the terms that enter each result, in float64: rounding errors are in proportion to it.

Each function takes the arguments of a kernel and returns [*S], or a tuple with one for each output.
"""

from typing import Any

import torch
from torch import Tensor

import torch_ref
from torch_ref import timesteps
from torch_ref.transitions import Process, spread

Scale = Tensor | tuple[Tensor, ...]


def finite(x: Tensor) -> Tensor:
    """|x|, 0 where infinite."""
    return torch.where(torch.isfinite(x), x.abs(), 0.0)


def rows(*logs: Tensor) -> Tensor:
    """The largest finite |log| of each row, at least 1: x - log_sum(x) is rounded at the size of x."""
    return torch.stack([finite(x).amax(dim=-1) for x in logs]).amax(dim=0).clamp(min=1.0)


def entries(log_p: Tensor) -> Tensor:
    """max(1, |log p|): a probability rounded once, then its log rounded once."""
    return finite(log_p).clamp(min=1.0)


def divergence(log_q: Tensor, log_p: Tensor, *logits: Tensor) -> Tensor:
    """max(1, sum q (|log q| + |log p|)), and the logits that log p is the difference of."""
    terms = (log_q.exp() * (finite(log_q) + finite(log_p))).sum(dim=-1)
    return torch.stack([terms.clamp(min=1.0), *(rows(x) for x in logits)]).amax(dim=0)


def logistic(loc: Tensor, log_scale: Tensor, K: int) -> Tensor:
    """The three terms of one sign that make a logit."""
    return entries(torch_ref.logistic(loc, log_scale, K))


def logistic_gradient(**args: Any) -> Tensor:
    """The same for the two edges of a bin."""
    return 2 * logistic(**args)


def one(x: Tensor) -> Tensor:
    """1: a number in [0, 1] that is a difference of such."""
    return torch.ones(x.shape)


def near_zero(beta: Tensor) -> Tensor:
    """1 / alpha_bar_{t-1}: an alpha_bar that is a difference of numbers near 1, and is divided by."""
    return 1 / torch.cumprod(torch.cat([torch.ones(1), 1 - beta[:-1]]), dim=0)


def probabilities(*p: Tensor) -> tuple[Tensor, ...]:
    """p max(1, |log p|): a probability kept as its rounded log."""
    return tuple(x * entries(x.log()) for x in p)


def log_matmul(log_p: Tensor, table: Tensor) -> Tensor:
    """Logs of both factors."""
    return rows(log_p, table.log().flatten().expand(*log_p.shape[:-1], -1))


def log_push(tr: Process, log_p: Tensor, t: Tensor) -> Tensor:
    """log p, and log Qbar[t] through the result."""
    return rows(log_p, tr.log_push(torch_ref.log_normalize(log_p), t))


def q_posterior(tr: Process, x0: Tensor, xt: Tensor, t: Tensor) -> Tensor:
    """The two factors of Bayes' rule."""
    return rows(tr.log_q_back(xt, t), tr.log_q_probs(x0, t - 1))


def p_logits(tr: Process, logits_x0: Tensor, xt: Tensor, t: Tensor, first_step: str = "bayes") -> Tensor:
    """The two factors of Bayes' rule, and the logits."""
    pushed = tr.log_push(torch_ref.log_p_x0(tr, logits_x0), t - 1)
    return rows(logits_x0, tr.log_q_back(xt, t), pushed)


def posterior_kl(
    tr: Process, logits_x0: Tensor, x0: Tensor, xt: Tensor, t: Tensor, first_step: Any
) -> Tensor:
    """The divergence of its two arguments."""
    log_p = torch_ref.p_logits(tr, logits_x0, xt, t, first_step)
    return divergence(torch_ref.q_posterior(tr, x0, xt, t), log_p, logits_x0)


def direct_kl(tr: Process, logits_prev: Tensor, x0: Tensor, xt: Tensor, t: Tensor) -> Tensor:
    """The divergence of its two arguments."""
    log_p = torch_ref.p_prev(tr, logits_prev, xt, t)
    return divergence(torch_ref.q_posterior(tr, x0, xt, t), log_p, logits_prev)


def direct_gradient(tr: Process, logits_prev: Tensor, x0: Tensor, xt: Tensor, t: Tensor) -> Tensor:
    """p - q: the logits, and the two factors of Bayes' rule."""
    return torch.maximum(rows(logits_prev), q_posterior(tr, x0, xt, t))


def hybrid(ce_weight: float, **args: Any) -> tuple[Tensor, ...]:
    """loss, kl, ce."""
    kl, ce = posterior_kl(**args), rows(args["logits_x0"])
    return kl + ce_weight * ce, kl, ce


def reverse_gradient(x0: Tensor, ce_weight: float = 0.0, **args: Any) -> Tensor:
    """As for the reverse step: an error d of a log is a relative error d of the probability."""
    return p_logits(**args)


def marginal_kl(tr: Process, logits_x0: Tensor, x0: Tensor, t: Tensor) -> Tensor:
    """The divergence of its two arguments."""
    pushed = tr.log_push(torch_ref.log_normalize(logits_x0), t)
    return divergence(tr.log_q_probs(x0, t), pushed, logits_x0)


def prior_kl(tr: Process, x0: Tensor) -> Tensor:
    """The divergence of its two arguments."""
    return divergence(tr.log_q_probs(x0, torch.tensor(tr.T)), tr.log_prior())


def stochastic_bound(tr: Process, kl: Tensor, x0: Tensor, p_t: Tensor) -> Tensor:
    """Sums of positive terms."""
    return torch_ref.stochastic_bound(tr, kl, x0, p_t).detach().clamp(min=1.0)


def stochastic_gradient(tr: Process, kl: Tensor, x0: Tensor, p_t: Tensor) -> Tensor:
    """1 / p_t."""
    return 1 / p_t


def update(mean_square: Tensor, counts: Tensor, t: Tensor, kl: Tensor) -> tuple[Tensor, Tensor]:
    """Of squares, and of counts."""
    return mean_square + kl.square().max(), counts.double()


def all_t_bound(tr: Process, logits: Tensor, uniforms: Tensor, x0: Tensor, first_step: Any) -> Scale:
    """Sums of the scales of the elements."""
    steps = []
    for t in range(1, tr.T + 1):
        ts = torch.full(x0.shape[:1], t)
        xt = torch_ref.q_sample(tr, x0, ts, uniforms[t])
        x = logits[ts[:, None, None], xt]
        steps.append(posterior_kl(tr, x, x0, xt, ts, first_step).flatten(1).sum(dim=1))
    return torch.stack(steps), prior_kl(tr, x0).flatten(1).sum(dim=1)


def strata_bound(tr: Process, logits: Tensor, uniforms: Tensor, x0: Tensor, u: Tensor) -> Tensor:
    """All of `all_t_bound`, each step as large as its stratum."""
    steps, prior = all_t_bound(tr, logits, uniforms, x0, "bayes")
    return tr.T * steps.amax(dim=0) + prior


def mean_and_se(mean: Tensor, se: Tensor) -> tuple[Tensor, Tensor]:
    """Sums of squares of the size of the mean."""
    return mean.abs(), mean.abs()


def stratified(u: Tensor, T: int) -> Tensor:
    """The u at which a step of a stratum ends, [n, 1, T + 1]."""
    return torch.arange(T + 1) / timesteps.stratified(u, T)[1][:, None, None]


def level(alpha: Tensor, beta: Tensor) -> tuple[Tensor, Tensor]:
    """Both at their own size."""
    return alpha, beta


def _weight(schedule: str, x0: Tensor, time: Tensor, by: str) -> Tensor:
    level_of = getattr(torch_ref.continuous, schedule)
    rate = torch_ref.continuous.rate(level_of, time)
    return spread(rate / getattr(level_of(time), by), x0.ndim)


def absorbing_nelbo(
    schedule: str, logits_x0: Tensor, x0: Tensor, xt: Tensor, time: Tensor, mask_id: int
) -> Tensor:
    """The weight times the logits."""
    return _weight(schedule, x0, time, "beta") * rows(logits_x0)


def uniform_nelbo(schedule: str, logits_x0: Tensor, x0: Tensor, xt: Tensor, time: Tensor) -> Tensor:
    """The weight times the largest ratio of two probabilities and its log."""
    beta = spread(getattr(torch_ref.continuous, schedule)(time).beta, x0.ndim)
    return _weight(schedule, x0, time, "alpha") * logits_x0.shape[-1] / beta * rows(logits_x0)


def cdf_of_absorbing(schedule: str, x0: Tensor, time: Tensor, **args: Any) -> Tensor:
    """1 - alpha."""
    beta = getattr(torch_ref.continuous, schedule)(time).beta
    return spread(beta, x0.ndim).expand(x0.shape)[..., None]


def cdf_of_uniform(K: int, **args: Any) -> Tensor:
    """Parts of 1 - alpha."""
    return cdf_of_absorbing(**args) * torch.arange(1, K) / K


def cdf(log_p: Tensor) -> Tensor:
    """The cumulative distribution, at whose values a draw changes."""
    return torch_ref.log_normalize(log_p).exp().cumsum(dim=-1)


def cdf_of_draw_q(tr: Process, x0: Tensor, t: Tensor, u: Tensor) -> Tensor:
    """Of Qbar, x_0 at its end for alpha I + (1 - alpha) 1 pi^T."""
    log_q = tr.log_q_probs(x0, t)
    if not tr.own_last:
        return cdf(log_q)
    own = torch.nn.functional.one_hot(x0, tr.K).bool()
    return torch.where(own, 0.0, log_q.exp()).cumsum(dim=-1)


def cdf_of_p_sample(u: Tensor, **args: Any) -> Tensor:
    """Of p(x_{t-1} | x_t)."""
    return cdf(torch_ref.p_logits(**args))


def steps(T: int) -> Tensor:
    """The u at which u T is a whole number."""
    return torch.arange(T + 1) / T


def low_discrepancy(u: Tensor, B: int, T: int) -> Tensor:
    """The u at which (u + i / B) T is a whole number, [B, 2 T + 1]."""
    return torch.arange(2 * T + 1) / T - (torch.arange(B) / B)[:, None]
