"""The size of the terms that enter each result, in float64: rounding errors are in proportion to it.

Each function takes the arguments of a kernel and returns [*S], or a tuple with one for each output.
"""

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

import torch_ref
from torch_ref import heads, timesteps
from torch_ref.processes.base import Process, expand_trailing
from torch_ref.schedules.continuous import rate

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


def residual_logistic(output: Tensor, xt: Tensor, K: int) -> Tensor:
    """The logits, and what the rounding of the location, which is at most 1, makes of them."""
    return _located(heads.residual_logistic(output, xt, K), output[..., 1])


def bounded_logistic(output: Tensor, K: int) -> Tensor:
    """The logits, and what the rounding of the location makes of them, as for `residual_logistic`."""
    return _located(heads.bounded_logistic(output, K), output[..., 1])


def _located(logits: Tensor, log_scale: Tensor) -> Tensor:
    return torch.maximum(entries(logits), torch.exp(2 - log_scale)[..., None])


def two_edges(scale: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """Twice the scale, for the two edges of a bin."""
    return lambda **args: 2 * scale(**args)


def ones(x: Tensor) -> Tensor:
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


def log_push(process: Process, log_p: Tensor, t: Tensor) -> Tensor:
    """log p, and log Qbar[t] through the result."""
    return rows(log_p, process.log_push(torch_ref.log_normalize(log_p), t))


def q_posterior(process: Process, x0: Tensor, xt: Tensor, t: Tensor) -> Tensor:
    """The two factors of Bayes' rule."""
    return rows(process.log_q_back(xt, t), process.log_q_probs(x0, t - 1))


def p_logits(
    process: Process,
    logits_x0: Tensor,
    xt: Tensor,
    t: Tensor,
    belief: str = "d3pm",
) -> Tensor:
    """The two factors of Bayes' rule, and the logits; what is taken off these too."""
    terms = [logits_x0]
    if belief == "denoiser":
        terms.append(process.log_q_x0(xt, t))
        logits_x0 = torch_ref.beliefs.to_leave_one_out(process, logits_x0, xt, t)
    pushed = process.log_push(torch_ref.log_p_x0(process, logits_x0), t - 1)
    return rows(*terms, process.log_q_back(xt, t), pushed)


def converted(process: Process, xt: Tensor, t: Tensor, **logits: Tensor) -> Tensor:
    """The logits, and what is added to them or taken off."""
    return rows(*logits.values(), process.log_q_x0(xt, t))


def posterior_kl(
    process: Process,
    logits_x0: Tensor,
    x0: Tensor,
    xt: Tensor,
    t: Tensor,
    belief: Any = "d3pm",
) -> Tensor:
    """The divergence of its two arguments."""
    log_p = torch_ref.p_logits(process, logits_x0, xt, t, belief)
    return divergence(torch_ref.q_posterior(process, x0, xt, t), log_p, logits_x0)


def direct_kl(process: Process, logits_prev: Tensor, x0: Tensor, xt: Tensor, t: Tensor) -> Tensor:
    """The divergence of its two arguments."""
    log_p = torch_ref.p_prev(process, logits_prev, xt, t)
    return divergence(torch_ref.q_posterior(process, x0, xt, t), log_p, logits_prev)


def direct_gradient(process: Process, logits_prev: Tensor, x0: Tensor, xt: Tensor, t: Tensor) -> Tensor:
    """p - q: the logits, and the two factors of Bayes' rule."""
    return torch.maximum(rows(logits_prev), q_posterior(process, x0, xt, t))


def hybrid(ce_weight: float, **args: Any) -> tuple[Tensor, ...]:
    """The scales of the loss, of its kl and of its ce."""
    terms = [args["logits_x0"]]
    if args["belief"] == "leave_one_out":
        terms.append(args["process"].log_q_x0(args["xt"], args["t"]))
    ce = rows(*terms)
    kl = posterior_kl(**args)
    return kl + ce_weight * ce, kl, ce


def reverse_gradient(x0: Tensor, ce_weight: float = 0.0, **args: Any) -> Tensor:
    """The scale of the reverse step: an error d of a log is a relative error d of the probability."""
    return p_logits(**args)


def by_position(process: Process, logits_x0: Tensor, x0: Tensor, xt: Tensor, t: Tensor, u: Tensor) -> Scale:
    """Ones where all is certain, else as for each kernel."""
    certain = torch.ones(x0.shape)
    moved = torch_ref.q_sample(process, x0, t, u)
    kl = posterior_kl(process, logits_x0, x0, moved, t)
    draws = (certain, certain, certain)
    return certain, certain, certain, rows(logits_x0), torch.ones(process.K), *draws, kl


def by_place(
    process: Process, logits_x0: Tensor, x0: Tensor, xt: Tensor, t: Tensor, belief: str, **_: Any
) -> Tensor:
    """All logs that enter a kernel."""
    of_x0 = process.log_q_probs(x0, t - 1), process.log_q_x0(xt, t), process.log_q_probs(x0, t)
    return torch.maximum(p_logits(process, logits_x0, xt, t, belief), rows(*of_x0))


def marginal_kl(process: Process, logits_x0: Tensor, x0: Tensor, t: Tensor) -> Tensor:
    """The divergence of its two arguments."""
    pushed = process.log_push(torch_ref.log_normalize(logits_x0), t)
    return divergence(process.log_q_probs(x0, t), pushed, logits_x0)


def prior_kl(process: Process, x0: Tensor) -> Tensor:
    """The divergence of its two arguments."""
    return divergence(process.log_q_probs(x0, torch.tensor(process.T)), process.log_prior())


def stochastic_bound(process: Process, kl: Tensor, x0: Tensor, p_t: Tensor) -> Tensor:
    """Sums of positive terms."""
    return torch_ref.stochastic_bound(process, kl, x0, p_t).detach().clamp(min=1.0)


def stochastic_gradient(process: Process, kl: Tensor, x0: Tensor, p_t: Tensor) -> Tensor:
    """1 / p_t."""
    return 1 / p_t


def mean_gradient(x: Tensor, p_t: Tensor, T: int) -> Tensor:
    """1 / (T p_t) over the number of elements."""
    return 1 / (x.numel() * T * p_t)


def update(mean_square: Tensor, counts: Tensor, t: Tensor, kl: Tensor) -> tuple[Tensor, Tensor]:
    """The size of the squares, and of the counts."""
    return mean_square + kl.square().max(), counts.double()


def all_t_bound(
    process: Process, logits: Tensor, uniforms: Tensor, x0: Tensor, belief: Any, weight: Tensor
) -> Scale:
    """Sums of the scales of the elements, whose weights are at most 1."""
    steps = []
    for t in range(1, process.T + 1):
        ts = torch.full(x0.shape[:1], t)
        xt = torch_ref.q_sample(process, x0, ts, uniforms[t])
        x = logits[ts[:, None, None], xt]
        steps.append(posterior_kl(process, x, x0, xt, ts, belief).flatten(1).sum(dim=1))
    return torch.stack(steps), prior_kl(process, x0).flatten(1).sum(dim=1)


def strata_bound(
    process: Process, logits: Tensor, uniforms: Tensor, x0: Tensor, u: Tensor, weight: Tensor
) -> Tensor:
    """All of `all_t_bound`, each step as large as its stratum."""
    steps, prior = all_t_bound(process, logits, uniforms, x0, "d3pm", weight)
    return process.T * steps.amax(dim=0) + prior


def chain_rule(logits: Tensor, x0: Tensor, order: Tensor, mask_id: int) -> Tensor:
    """Logits that are sums over an axis."""
    return torch.full(x0.shape, x0.shape[1] * float(rows(logits).amax()))


def chain_rule_gradient(logits: Tensor, x0: Tensor, order: Tensor, mask_id: int) -> Tensor:
    """A term of at most 1 for each element that the logits of another are summed over."""
    return torch.full(logits.shape[:1], float(x0.numel()))


def mixture(nats: Tensor) -> tuple[Tensor, Tensor]:
    """The largest of the laws, and how many there are."""
    finite = torch.where(nats.isfinite(), nats, 0.0)
    return finite.amax(0), torch.full(nats.shape[1:], float(len(nats)))


def all_orders(logits: Tensor, x0: Tensor, mask_id: int) -> Tensor:
    """The chain rule of all elements."""
    return chain_rule(logits, x0, x0, mask_id).flatten(1).sum(1)


def fill_in_law(logits: Tensor, shape: tuple[int, ...], K: int, mask_id: int) -> Tensor:
    """The chain rule of all elements of every example."""
    return all_orders(logits, torch_ref.enumeration.list_examples(shape, K), mask_id)


def chain_law(process: Process, logits: Tensor, shape: tuple[int, ...], belief: str) -> Tensor:
    """The logits of every step and element."""
    size = process.T * math.prod(shape) * float(logits[logits.isfinite()].abs().max())
    return torch.full((process.K ** math.prod(shape),), size)


def path_weight(process: Process, uniforms: Tensor, x0: Tensor, **args: Any) -> Tensor:
    """The terms of the bound."""
    weight = torch.ones(x0.shape)
    steps, prior = all_t_bound(process=process, uniforms=uniforms, x0=x0, weight=weight, **args)
    return steps.sum(0) + prior


def conditional(log_law: Tensor, x0: Tensor, **args: Any) -> Tensor:
    """The logs of the law."""
    return torch.full(x0.shape[:1], float(log_law[log_law.isfinite()].abs().max()))


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
    level_of = getattr(torch_ref.schedules.continuous, schedule)
    return expand_trailing(rate(level_of, time) / getattr(level_of(time), by), x0.shape)


def absorbing_nelbo(schedule: str, logits_x0: Tensor, x0: Tensor, time: Tensor, **args: Any) -> Tensor:
    """The weight times the logits."""
    return _weight(schedule, x0, time, "beta") * rows(logits_x0)


def any_order_nelbo(logits_x0: Tensor, x0: Tensor, **args: Any) -> Tensor:
    """The logits, as often as there are elements at most."""
    return x0[0].numel() * rows(logits_x0)


def uniform_nelbo(schedule: str, logits_x0: Tensor, x0: Tensor, xt: Tensor, time: Tensor) -> Tensor:
    """The weight times the largest ratio of two probabilities and its log."""
    beta = expand_trailing(getattr(torch_ref.schedules.continuous, schedule)(time).beta, x0.shape)
    return _weight(schedule, x0, time, "alpha") * logits_x0.shape[-1] / beta * rows(logits_x0)


def absorbing_score_entropy(schedule: str, log_scores: Tensor, time: Tensor, **args: Any) -> Tensor:
    """The weight times the scores and their logs."""
    size = log_scores.exp().sum(dim=-1) + rows(log_scores)
    return _weight(schedule, args["x0"], time, "beta") * size


def uniform_score_entropy(schedule: str, log_scores: Tensor, time: Tensor, **args: Any) -> Tensor:
    """The weight times the scores, and times the largest ratio of two probabilities and the logs."""
    beta = expand_trailing(getattr(torch_ref.schedules.continuous, schedule)(time).beta, args["x0"].shape)
    size = log_scores.exp().sum(dim=-1) + log_scores.shape[-1] / beta * rows(log_scores)
    return _weight(schedule, args["x0"], time, "alpha") * size


def cdf_of_absorbing(schedule: str, x0: Tensor, time: Tensor, **args: Any) -> Tensor:
    """1 - alpha."""
    beta = getattr(torch_ref.schedules.continuous, schedule)(time).beta
    return expand_trailing(beta, x0.shape).expand(x0.shape)[..., None]


def cdf_of_uniform(K: int, **args: Any) -> Tensor:
    """Parts of 1 - alpha."""
    return cdf_of_absorbing(**args) * torch.arange(1, K) / K


def gidd_nelbo(
    logits_x0: Tensor, x0: Tensor, time: Tensor, p_uniform: float, gamma: float, **args: Any
) -> tuple[Tensor, ...]:
    """The largest weight times the largest ratio of two probabilities and its log, of each weight."""
    t = expand_trailing(time, x0.shape)
    c = 2**gamma * p_uniform / (1 - p_uniform) * (t * (1 - t)) ** (gamma / 2)
    scale = (1 + logits_x0.shape[-1] * (1 - t) / c) / (t * (1 - t)) * rows(logits_x0)
    return scale, scale, scale


def cdf_of_gidd(
    x0: Tensor, time: Tensor, mask_id: int, K: int, p_uniform: float, gamma: float, **args: Any
) -> Tensor:
    """Parts of time / (1 + c) and c / (1 + c), x_0 left out."""
    t = expand_trailing(time, x0.shape)[..., None]
    c = 2**gamma * p_uniform / (1 - p_uniform) * (t * (1 - t)) ** (gamma / 2)
    k = torch.arange(K)
    others = torch.where(k == mask_id, t, c / (K - 1)) / (1 + c)
    return torch.where(k == x0[..., None], 0.0, others).cumsum(dim=-1)


def cdf(log_p: Tensor) -> Tensor:
    """The cumulative distribution, at whose values a draw changes."""
    return torch_ref.log_normalize(log_p).exp().cumsum(dim=-1)


def cdf_of_draw_q(process: Process, x0: Tensor, t: Tensor, u: Tensor) -> Tensor:
    """The cumulative rows of Qbar; x_0 stands at their end for alpha I + (1 - alpha) 1 pi^T."""
    return _cdf_of_rows(process, x0, process.log_q_probs(x0, t))


def cdf_of_draw_step(process: Process, x: Tensor, t: Tensor, u: Tensor) -> Tensor:
    """The cumulative rows of Q; x stands at their end for alpha I + (1 - alpha) 1 pi^T."""
    return _cdf_of_rows(process, x, process.Q_step[expand_trailing(t, x.shape), x].log())


def _cdf_of_rows(process: Process, x: Tensor, log_q: Tensor) -> Tensor:
    if not process.own_last:
        return cdf(log_q)
    is_x = torch.nn.functional.one_hot(x, process.K).bool()
    return torch.where(is_x, 0.0, log_q.exp()).cumsum(dim=-1)


def cdf_of_p_sample(u: Tensor, **args: Any) -> Tensor:
    """The cumulative distribution of p(x_{t-1} | x_t)."""
    return cdf(torch_ref.p_logits(**args))


def steps(T: int) -> Tensor:
    """The u at which u T is a whole number."""
    return torch.arange(T + 1) / T


def low_discrepancy(u: Tensor, B: int, T: int) -> Tensor:
    """The u at which (u + i / B) T is a whole number, [B, 2 T + 1]."""
    return torch.arange(2 * T + 1) / T - (torch.arange(B) / B)[:, None]
