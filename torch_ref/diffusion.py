"""One step of the forward and of the reverse process. `t` is 1..T, its shape a prefix of that of x."""

from typing import Literal

import torch
from torch import Tensor

from torch_ref import drawing, numerics
from torch_ref.transitions import Process, spread

FirstStep = Literal["bayes", "x0"]


def q_sample(tr: Process, x0: Tensor, t: Tensor, u: Tensor, u_low: Tensor | None = None) -> Tensor:
    """x_t ~ q(x_t | x_0)."""
    return tr.draw_q(x0, t, u, u_low)


def q_posterior(tr: Process, x0: Tensor, xt: Tensor, t: Tensor) -> Tensor:
    """log q(x_{t-1} | x_t, x_0) = log q(x_t | x_{t-1}) + log q(x_{t-1} | x_0) - log q(x_t | x_0).

    All -inf for an impossible pair, q(x_t | x_0) = 0.
    """
    return numerics.log_normalize(tr.log_q_back(xt, t) + tr.log_q_probs(x0, t - 1))


def p_logits(
    tr: Process, logits_x0: Tensor, xt: Tensor, t: Tensor, first_step: FirstStep = "bayes"
) -> Tensor:
    """log p(x_{t-1} | x_t) = log sum_{x_0} p(x_0 | x_t) q(x_{t-1} | x_0) q(x_t | x_{t-1}), normalised.

    At t = 1, first_step = "x0" takes p(x_0 | x_t) itself. All -inf where the prediction contradicts x_t.
    """
    log_p0 = log_p_x0(tr, logits_x0)
    t = spread(t, xt.ndim)
    joint = log_p0[..., :, None] + tr.Qbar(t - 1).log() + tr.log_q_back(xt, t)[..., None, :]  # [x_0, x_{t-1}]
    log_p = numerics.log_normalize(numerics.log_sum(joint.mT))
    return torch.where(t[..., None] == 1, log_p0, log_p) if first_step == "x0" else log_p


def p_prev(tr: Process, logits_prev: Tensor, xt: Tensor, t: Tensor) -> Tensor:
    """log p(x_{t-1} | x_t) of a network that predicts x_{t-1} itself."""
    return log_p_x0(tr, logits_prev)


def p_sample(
    tr: Process,
    logits_x0: Tensor,
    xt: Tensor,
    t: Tensor,
    u: Tensor,
    first_step: FirstStep = "bayes",
    u_low: Tensor | None = None,
) -> Tensor:
    """x_{t-1} ~ p(x_{t-1} | x_t); -1 where there is no distribution."""
    return drawing.categorical(p_logits(tr, logits_x0, xt, t, first_step), u, u_low)


def log_p_x0(tr: Process, logits_x0: Tensor) -> Tensor:
    """log p(x_0 | x_t), normalised, in the type of the process or wider."""
    return numerics.log_normalize(logits_x0.to(torch.promote_types(logits_x0.dtype, tr.pi.dtype)))
