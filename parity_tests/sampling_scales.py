"""The size of the terms that enter the laws of samplers, in float64: see `scales`."""

from typing import Any

import torch
from torch import Tensor

import torch_ref
from parity_tests.scales import entries, finite, rows
from torch_ref.processes.base import Process
from torch_ref.sampling import laws


def levels(process: Process, t: Tensor, s: Tensor) -> Tensor:
    """The logs of alpha and of 1 - alpha at both steps."""
    alpha = laws.alphas(process).log()
    mixed = laws.mixed_shares(process).log()
    terms = [finite(x) for x in (alpha[t], alpha[s], mixed[t], mixed[s])]
    return torch.stack(terms).amax(dim=0).clamp(min=1.0)


def keep(process: Process, log_denoiser: Tensor, xt: Tensor, t: Tensor, s: Tensor, **args: Any) -> Tensor:
    """The levels, and the logs of the denoiser."""
    return torch.maximum(levels(process, t, s), rows(log_denoiser))


def renoise(process: Process, xt: Tensor, t: Tensor, s: Tensor) -> Tensor:
    """The logs of both levels."""
    return levels(process, t, s)


def mixture(process: Process, logits_loo: Tensor, xt: Tensor, t: Tensor, kappa: float) -> Tensor:
    """Both laws, and what they are made of."""
    bayes = torch_ref.p_logits(process, logits_loo, xt, t, "leave_one_out")
    return rows(logits_loo, process.log_q_back(xt, t), bayes, process.log_q_x0(xt, t))


def ratios(process: Process, logits_loo: Tensor, xt: Tensor, t: Tensor) -> Tensor:
    """The logits, what is added to them, and where they lead."""
    pushed = process.log_push(torch_ref.log_p_x0(process, logits_loo), t)
    return rows(logits_loo, process.log_q_x0(xt, t), pushed)


def rates(process: Process, logits_loo: Tensor, xt: Tensor, t: Tensor, s: Tensor) -> Tensor:
    """The ratios, and the log of each rate."""
    log_rate = laws.log_rates(process, logits_loo, xt, t, s)
    return torch.maximum(ratios(process, logits_loo, xt, t), rows(log_rate))


def score_rates(process: Process, log_scores: Tensor, xt: Tensor, t: Tensor, s: Tensor) -> Tensor:
    """The levels, the scores, and the log of each rate."""
    log_rate = laws.score_log_rates(process, log_scores, xt, t, s)
    return torch.maximum(levels(process, t, s), rows(log_scores, log_rate))


def tweedie(process: Process, log_scores: Tensor, xt: Tensor, t: Tensor, s: Tensor) -> Tensor:
    """The levels, the scores, the law, and 1 over what is left of the smallest difference in it."""
    law = laws.tweedie_logits(process, log_scores, xt, t, s)
    size = log_scores.exp().sum(dim=-1)
    least = torch.where(law == -torch.inf, 1.0, law.exp()).amin(dim=-1)
    return torch.maximum(levels(process, t, s), rows(log_scores, law)) * (1 + size) / least


def corrector(process: Process, logits_loo: Tensor, xt: Tensor, t: Tensor, h: float) -> Tensor:
    """The ratios."""
    return ratios(process, logits_loo, xt, t)


def leaps(log_rate: Tensor, xt: Tensor) -> Tensor:
    """The logs of the rates, their sum, and 1 over what it leaves of 1."""
    total = log_rate.exp().sum(dim=-1)
    return torch.stack([rows(log_rate), total, _one_over_left(log_rate)]).amax(dim=0)


def leaps_gradient(log_rate: Tensor, xt: Tensor) -> Tensor:
    """The same: the gradient of log(1 - sum R) is as large as 1 over what is left, and rounded as it is."""
    return leaps(log_rate, xt) * _one_over_left(log_rate)


def _one_over_left(log_rate: Tensor) -> Tensor:
    total = log_rate.exp().sum(dim=-1)
    return torch.where(total < 1, 1 / (1 - total), 1.0)


def gibbs(process: Process, logits_loo: Tensor, xt: Tensor, t: Tensor) -> Tensor:
    """The logits, and where they lead."""
    return rows(logits_loo, process.log_push(torch_ref.log_p_x0(process, logits_loo), t))


def believed(process: Process, logits: Tensor, xt: Tensor, t: Tensor, belief: str) -> Tensor:
    """The logits, and what is added to them or taken off."""
    return rows(logits, process.log_q_x0(xt, t))


def leaving(log_p: Tensor, xt: Tensor) -> Tensor:
    """1: a number in [0, 1] that is a difference of such."""
    return torch.ones(xt.shape)


def combined(logits: Tensor, null_logits: Tensor, gamma: Tensor | float) -> Tensor:
    """Both logits, as often as they are taken."""
    gammas = torch.as_tensor(gamma).abs().expand(len(logits))
    factor = (1 + gammas).reshape(-1, *(1,) * (logits.ndim - 2))
    return factor * rows(logits, null_logits)


def tilted(log_p: Tensor, log_likelihood: Tensor, gamma: float) -> Tensor:
    """The law, and what it is multiplied by."""
    return torch.maximum(rows(log_p), abs(gamma) * rows(log_likelihood))


def differences_of_laws(log_p: Tensor, log_q: Tensor) -> Tensor:
    """The larger of two probabilities over their difference, whose log it is; of two equal ones the log."""
    p, q = log_p.exp(), log_q.exp()
    difference = q - p
    relative = torch.where(difference > 0, torch.maximum(p, q) / difference, 0.0)
    return (
        relative * torch.maximum(entries(log_p), entries(log_q))
        + entries(difference.clamp(min=0).log())
        + entries(log_q)
    )


def sums_of_weights(weights: Tensor, x: Tensor, time: Tensor, K: int) -> Tensor:
    """The sum of absolute weights, which is rounded before the sigmoid."""
    sums = weights[time].abs().amax(dim=-1).flatten(1).sum(dim=-1)
    return sums.reshape(-1, *(1,) * (x.ndim - 1)).expand(x.shape).clamp(min=1.0)
