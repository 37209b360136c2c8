"""Computes laws of x_s given x_t that samplers draw from, from dense matrices in float64.

alpha is alpha_bar: the probability that x_0 is not drawn anew up to t.
"""

from functools import reduce
from itertools import accumulate

import torch
import torch.nn.functional as F
from torch import Tensor

from torch_ref import beliefs, numerics
from torch_ref.checks import declared
from torch_ref.posteriors import log_p_x0, q_posterior
from torch_ref.processes.base import Process, expand_trailing


def mask_of(process: Process) -> Tensor | None:
    """Returns the category that a process masks with; None of one without a mask."""
    if process.inner is not None:
        return torch.tensor(process.K - 1)
    if is_mixing(process) and process.pi64.max() == 1:
        return process.pi64.argmax()
    return None


@declared(log_denoiser="*S K floats", xt="*S categories", t="... steps", s="... steps_up_to_t", c="share")
def keep_logits(
    process: Process, log_denoiser: Tensor, xt: Tensor, t: Tensor, s: Tensor, c: float = 1.0
) -> Tensor:
    """keep [x_s = x_t] + (alpha_s - keep alpha_t) p(x_0) + (1 - alpha_s - keep (1 - alpha_t)) pi.

    keep = c (1 - alpha_s) / (1 - alpha_t).
    """
    t = expand_trailing(t, xt.shape)
    s = expand_trailing(s, xt.shape)
    alpha = alphas(process)
    mixed = mixed_shares(process)
    keep = c * mixed[s] / mixed[t]
    to_x0 = alpha[s] - keep * alpha[t]
    to_pi = (1 - c) * mixed[s]  # since keep (1 - alpha_t) = c (1 - alpha_s)
    law = _add_logs(
        _weighed(keep, _certain(process, xt)),
        _weighed(to_x0, log_denoiser),
        _weighed(to_pi, process.pi64.log()),
    )
    return _unless_ruled_out(log_denoiser, law).to(log_denoiser.dtype)


@declared(
    logits_loo="*S K floats", log_denoiser="*S K floats", xt="*S categories", t="... steps", kappa="share"
)
def mixture_logits(
    process: Process, logits_loo: Tensor, log_denoiser: Tensor, xt: Tensor, t: Tensor, kappa: float = 1.0
) -> Tensor:
    """kappa q(x_{t-1} | x_t, x_0) + (1 - kappa) q(x_{t-1} | x_0), x_0 from the denoiser."""
    every_x0 = torch.arange(process.K).expand(*xt.shape, process.K)
    posterior = q_posterior(process, every_x0, xt[..., None].expand_as(every_x0), t)  # [*S, x_0, x_{t-1}]
    by_bayes = numerics.log_normalize(_average(log_denoiser, posterior))
    fresh = _average(log_denoiser, process.log_q_probs(every_x0, t - 1))
    share = torch.as_tensor(kappa, dtype=torch.float64)
    return _add_logs(_weighed(share, by_bayes), _weighed(1 - share, fresh)).to(log_denoiser.dtype)


@declared(
    log_denoiser="*S K floats", xt="*S categories", t="... steps", s="... steps_up_to_t", sigma="*S share"
)
def remask_logits(
    process: Process, log_denoiser: Tensor, xt: Tensor, t: Tensor, s: Tensor, sigma: Tensor
) -> Tensor:
    """From the mask to x_0 with (alpha_s - (1 - sigma) alpha_t) / (1 - alpha_t); to the mask with sigma."""
    t = expand_trailing(t, xt.shape)
    s = expand_trailing(s, xt.shape)
    alpha = alphas(process)
    mixed = mixed_shares(process)
    sigma = sigma.double()
    to_x0 = (alpha[s] - (1 - sigma) * alpha[t]) / mixed[t]
    stay = (mixed[s] - sigma * alpha[t]) / mixed[t]
    # The largest sigma leaves 0, or what rounding makes of it.
    stay = torch.where(stay.abs() < 1e-15, 0.0, stay)

    mask = process.pi64.log()  # all of pi is the mask
    of_mask = _unless_ruled_out(log_denoiser, _add_logs(_weighed(to_x0, log_denoiser), _weighed(stay, mask)))
    of_others = _add_logs(_weighed(1 - sigma, _certain(process, xt)), _weighed(sigma, mask))
    law = torch.where((xt == mask_of(process))[..., None], of_mask, of_others)
    return law.to(log_denoiser.dtype)


@declared(t="... steps", s="... steps_up_to_t")
def most_remasked(process: Process, t: Tensor, s: Tensor) -> Tensor:
    """min(1, (1 - alpha_s) / alpha_t)."""
    shape = max(t.shape, s.shape, key=len)
    most = expand_trailing(mixed_shares(process)[s], shape) / expand_trailing(alphas(process)[t], shape)
    return torch.where(most < 1.0, most, 1.0).to(process.pi.dtype)


@declared(xt="*S categories", t="... steps_up_to_s", s="... steps_or_0")
def renoise_logits(process: Process, xt: Tensor, t: Tensor, s: Tensor) -> Tensor:
    """log q(x_s | x_t) for s > t: a row of Q[t + 1] ... Q[s]."""
    t = expand_trailing(t, xt.shape)
    s = expand_trailing(s, xt.shape)
    law = torch.empty(*xt.shape, process.K, dtype=torch.float64)
    elements = zip(
        law.view(-1, process.K), *(x.flatten() for x in torch.broadcast_tensors(xt, t, s)), strict=True
    )
    for law_of_element, category, before, after in elements:
        steps = process.Q64[before + 1 : after + 1]
        law_of_element[:] = reduce(torch.matmul, steps, torch.eye(process.K, dtype=torch.float64))[
            category
        ].log()
    return law.to(process.pi.dtype)


@declared(logits_loo="*S K floats", xt="*S categories", t="... steps")
def log_ratios(process: Process, logits_loo: Tensor, xt: Tensor, t: Tensor) -> Tensor:
    """log of p_t(y) / p_t(x_t) = sum over x_0 of denoiser(x_0) q_t(y | x_0) / q_t(x_t | x_0), for each y.

    For an x_0 that does not lead to x_t denoiser(x_0) / q_t(x_t | x_0) is 0 / 0; it is what it is for the
    others: leave_one_out(x_0) / sum over x_0 of leave_one_out(x_0) q_t(x_t | x_0).
    """
    log_loo = log_p_x0(process, logits_loo)
    log_q = process.Qbar(expand_trailing(t, xt.shape)).log()  # [.., x_0, y]
    evidence = process.log_q_x0(xt, t)  # [*S, x_0]
    log_denoiser = beliefs.denoiser_of(process, logits_loo, xt, t, "leave_one_out")
    log_p_xt = numerics.log_sum(log_loo + evidence)[..., None]
    weights = torch.where(evidence == -torch.inf, log_loo - log_p_xt, log_denoiser - evidence)
    return _average(weights, log_q)


@declared(logits_loo="*S K floats", xt="*S categories", t="... steps", s="... steps_up_to_t")
def log_rates(process: Process, logits_loo: Tensor, xt: Tensor, t: Tensor, s: Tensor) -> Tensor:
    """log of R_y = log(alpha_s / alpha_t) pi(x_t) p_t(y) / p_t(x_t); -inf at y = x_t.

    With a mask on top a masked x_t leaves with R_y = log(keep_bar_s / keep_bar_t) p_t(y) / p_t(mask), others
    as they do below it, and none goes to the mask.
    """
    log_ratio = log_ratios(process, logits_loo, xt, t)
    t = expand_trailing(t, xt.shape)
    s = expand_trailing(s, xt.shape)
    never = F.one_hot(xt, process.K).bool()
    if process.inner is None:
        rate = log_passed(betas(process), t, s) * process.pi64[xt]
    else:
        inner = process.inner
        is_masked = xt == process.K - 1
        below = log_passed(betas(inner), t, s) * inner.pi64[torch.where(is_masked, 0, xt)]
        rate = torch.where(is_masked, log_passed(gammas(process), t, s), below)
        never[..., -1] = True
    log_rate = torch.where(log_ratio == -torch.inf, -torch.inf, rate.log()[..., None] + log_ratio)
    return torch.where(never, -torch.inf, log_rate).to(log_ratio.dtype)


@declared(log_scores="*S K not_nan", xt="*S categories", t="... steps", s="... steps_up_to_t")
def score_log_rates(process: Process, log_scores: Tensor, xt: Tensor, t: Tensor, s: Tensor) -> Tensor:
    """log of R_y = log(alpha_s / alpha_t) pi(x_t) p_t(y) / p_t(x_t); -inf at y = x_t."""
    t = expand_trailing(t, xt.shape)
    s = expand_trailing(s, xt.shape)
    rate = log_passed(betas(process), t, s) * process.pi64[xt]
    if mask_of(process) is not None:
        alpha = alphas(process)[t]
        rate = torch.where(alpha > 0, rate * alpha / mixed_shares(process)[t], 0.0)  # x log x is 0 at 0
    never = F.one_hot(xt, process.K).bool() | (log_scores == -torch.inf)
    return torch.where(never, -torch.inf, _weighed(rate, log_scores)).to(log_scores.dtype)


@declared(log_scores="*S K not_nan", xt="*S categories", t="... steps", s="... steps_up_to_t")
def tweedie_logits(process: Process, log_scores: Tensor, xt: Tensor, t: Tensor, s: Tensor) -> Tensor:
    """M[x_s, x_t] (scores M^-1)[x_s], M = Q[s + 1] ... Q[t]; what is negative counts as 0.

    For masks a mask becomes y by the sum over x_0 of w(x_0) q(x_s = y | x_t, x_0), and else stays.
    """
    t = expand_trailing(t, xt.shape)
    s = expand_trailing(s, xt.shape)
    one = torch.eye(process.K, dtype=torch.float64)
    steps = range(process.T + 1)
    products = [[reduce(torch.matmul, process.Q64[i + 1 : j + 1], one) for j in steps] for i in steps]
    between = torch.stack([torch.stack(row) for row in products])  # [T + 1, T + 1, K, K]
    M = between[s, t]  # [*S, x_s, x_t]
    to_xt = M.gather(-1, xt[..., None, None].expand(*M.shape[:-1], 1))[..., 0]  # [*S, x_s]
    is_xt = F.one_hot(xt, process.K).bool()
    mask = mask_of(process)
    if mask is not None:
        w = torch.where(is_xt, 0.0, log_scores.double().exp())
        product = between[0, s] * to_xt[..., None, :]  # [*S, x_0, x_s]
        posterior = product / product.sum(dim=-1, keepdim=True).clamp(min=1e-300)
        moves = torch.einsum("...k,...kj->...j", w, posterior)
        moves = torch.where(torch.arange(process.K) == mask, 0.0, moves)
        stay = torch.where(s == 0, 0.0, (1 - moves.sum(dim=-1)).clamp(min=0.0))[..., None]
        law = torch.where(xt[..., None] == mask, torch.where(is_xt, stay, moves), is_xt.double())
    else:
        scores = torch.where(is_xt, 1.0, log_scores.double().exp())
        left = (alphas(process)[t] > 0)[..., None]
        inverse = torch.linalg.inv(torch.where(left[..., None], M, one))
        law = to_xt * torch.einsum("...y,...yj->...j", scores, inverse).clamp(min=0.0)
        law = torch.where(left, law, process.pi64)
    # The log of 0 has no finite gradient.
    log_law = torch.where(law > 0, torch.where(law > 0, law, 1.0).log(), -torch.inf)
    return numerics.log_normalize(log_law).to(log_scores.dtype)


@declared(logits_loo="*S K floats", xt="*S categories", t="... steps", h="positive")
def corrector_log_rates(process: Process, logits_loo: Tensor, xt: Tensor, t: Tensor, h: float) -> Tensor:
    """log of R_y = h (pi(y) + pi(x_t) p_t(y) / p_t(x_t)); -inf at y = x_t."""
    log_ratio = log_ratios(process, logits_loo, xt, t)
    backward = _weighed(process.pi64[xt], log_ratio)
    rates = _weighed(torch.as_tensor(h, dtype=torch.float64), _add_logs(process.pi64.log(), backward))
    return torch.where(F.one_hot(xt, process.K).bool(), -torch.inf, rates).to(log_ratio.dtype)


@declared(log_rate="*S K floats", xt="*S categories")
def euler_logits(log_rate: Tensor, xt: Tensor) -> Tensor:
    """Moves to y with probability R_y / max(1, sum R), and stays with the rest."""
    log_total = numerics.log_sum(log_rate.double())[..., None]
    is_certain = log_total >= 0  # to move
    moves = log_rate - torch.where(is_certain, log_total, 0.0)
    # log(1 - p) has no finite gradient at p = 1: it sees another p there.
    p = torch.where(is_certain, 0.5, log_total.exp())
    stay = torch.where(is_certain, -torch.inf, torch.log1p(-p))
    return torch.where(F.one_hot(xt, log_rate.shape[-1]).bool(), stay, moves).to(log_rate.dtype)


@declared(log_rate="*S K floats", xt="*S categories")
def poisson_logits(log_rate: Tensor, xt: Tensor) -> Tensor:
    """Moves to y with probability R_y exp(-sum R), and else stays."""
    total = log_rate.double().exp().sum(dim=-1, keepdim=True)
    moves = log_rate - total
    stay = torch.log1p(-total * torch.exp(-total))
    return torch.where(F.one_hot(xt, log_rate.shape[-1]).bool(), stay, moves).to(log_rate.dtype)


@declared(log_p="*S K floats", xt="*S categories")
def leaving_probability(log_p: Tensor, xt: Tensor) -> Tensor:
    """1 - p(x_t)."""
    stay = log_p.gather(-1, xt[..., None])[..., 0]
    return (1 - stay.double().exp()).to(log_p.dtype)


@declared(log_p="*S K floats", xt="*S categories")
def leaving_logits(log_p: Tensor, xt: Tensor) -> Tensor:
    """The law of where x_t goes, given that it goes."""
    is_xt = F.one_hot(xt, log_p.shape[-1]).bool()
    return numerics.log_normalize(torch.where(is_xt, -torch.inf, log_p))


@declared(logits_loo="*S K floats", xt="*S categories", t="... steps_or_0")
def gibbs_logits(process: Process, logits_loo: Tensor, xt: Tensor, t: Tensor) -> Tensor:
    """log sum over x_0 of leave_one_out(x_0) q_t(x_t | x_0), for each x_t."""
    return process.log_push(log_p_x0(process, logits_loo), t)


# ---- What the matrices say, in float64 ----


def is_mixing(process: Process) -> bool:
    """Tells whether Q = (1 - beta) I + beta 1 pi^T."""
    return process.own_last and process.inner is None


def betas(process: Process) -> Tensor:
    """beta, [T + 1], where Q = (1 - beta) I + beta 1 pi^T: off the diagonal Q[t, i, j] = beta_t pi_j."""
    return _share_of_pi(process, process.Q64)


def mixed_shares(process: Process) -> Tensor:
    """1 - alpha_bar, [T + 1], as `betas` but of Qbar."""
    return _share_of_pi(process, torch.stack(list(accumulate(process.Q64, torch.matmul))))


def alphas(process: Process) -> Tensor:
    """alpha_bar, [T + 1], the product of all 1 - beta."""
    return torch.cumprod(1 - betas(process), dim=0)


def gammas(process: Process) -> Tensor:
    """Returns the probability of being masked at each step of a process with a mask on top, [T + 1]."""
    return process.Q64[:, 0, -1]


def log_passed(beta: Tensor, t: Tensor, s: Tensor) -> Tensor:
    """log(alpha_s / alpha_t) = -(the sum of log(1 - beta) from s + 1 to t); +inf where one of them is 1."""
    steps = torch.arange(len(beta))
    is_between = (steps > s[..., None]) & (steps <= t[..., None])
    return -torch.where(is_between, torch.log1p(-beta), 0.0).sum(dim=-1)


def _share_of_pi(process: Process, matrices: Tensor) -> Tensor:
    j = int(process.pi64.argmax())
    i = (j + 1) % process.K
    return matrices[:, i, j] / process.pi64[j]


def _certain(process: Process, x: Tensor) -> Tensor:
    """The log of the law that is x for certain, [*S, K]."""
    return F.one_hot(x, process.K).double().log()


def _weighed(weight: Tensor, log_p: Tensor) -> Tensor:
    """log(weight p), a weight for each row."""
    return weight.log()[..., None] + log_p


def _add_logs(*logs: Tensor) -> Tensor:
    """The log of the sum of the exponentials of arrays that broadcast."""
    return numerics.log_sum(torch.stack(torch.broadcast_tensors(*logs), dim=-1))


def _unless_ruled_out(log_denoiser: Tensor, law: Tensor) -> Tensor:
    """Returns a law, or all -inf where the denoiser rules out every x_0."""
    nothing_left = (log_denoiser == -torch.inf).all(dim=-1, keepdim=True)
    return torch.where(nothing_left, -torch.inf, law)


def _average(log_weights: Tensor, log_p: Tensor) -> Tensor:
    """log sum over x_0 of weight(x_0) p(x_0, y), from [*S, x_0] and [*S, x_0, y]."""
    return numerics.log_sum((log_weights[..., None] + log_p).mT)
