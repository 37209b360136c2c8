"""Takes one step of the forward and of the reverse process. `t` is 1..T, its shape a prefix of that of x."""

import torch
from torch import Tensor

from torch_ref import numerics
from torch_ref.beliefs import Belief, to_leave_one_out
from torch_ref.checks import declared
from torch_ref.processes.base import Process, expand_trailing


@declared(x0="*S categories", t="... steps_or_0", u="*S noise", u_low="*S noise")
def q_sample(process: Process, x0: Tensor, t: Tensor, u: Tensor, u_low: Tensor | None = None) -> Tensor:
    """x_t ~ q(x_t | x_0).

    Arguments as in `d3pm_jax.q_sample`.
    """
    return process.draw_q(x0, t, u, u_low)


@declared(x0="*S categories", xt="*S categories", t="... steps")
def q_posterior(process: Process, x0: Tensor, xt: Tensor, t: Tensor) -> Tensor:
    """log q(x_{t-1} | x_t, x_0) = log q(x_t | x_{t-1}) + log q(x_{t-1} | x_0) - log q(x_t | x_0).

    All -inf for an impossible pair, q(x_t | x_0) = 0.

    Arguments as in `d3pm_jax.q_posterior`.
    """
    return numerics.log_normalize(process.log_q_back(xt, t) + process.log_q_probs(x0, t - 1))


@declared(logits_x0="*S K floats", xt="*S categories", t="... steps")
def p_logits(process: Process, logits_x0: Tensor, xt: Tensor, t: Tensor, belief: Belief = "d3pm") -> Tensor:
    """log p(x_{t-1} | x_t) = `p_joint`, normalised; all -inf where the prediction contradicts x_t.

    Arguments as in `d3pm_jax.p_logits`.
    """
    return numerics.log_normalize(p_joint(process, logits_x0, xt, t, belief))


@declared(logits_x0="*S K floats", xt="*S categories", t="... steps")
def p_joint(process: Process, logits_x0: Tensor, xt: Tensor, t: Tensor, belief: Belief = "d3pm") -> Tensor:
    """log p(x_{t-1}, x_t) = log sum_{x_0} p(x_0) q(x_{t-1} | x_0) q(x_t | x_{t-1}).

    p(x_0) is `to_leave_one_out` of a "denoiser", else that of the logits. "official" takes it itself for the
    result at t = 1.
    """
    if belief == "denoiser":
        logits_x0 = to_leave_one_out(process, logits_x0, xt, t)
    log_p0 = log_p_x0(process, logits_x0)
    log_back = process.log_q_back(xt, t)  # [*S, x_{t-1}]
    t = expand_trailing(t, xt.shape)
    terms = log_p0[..., :, None] + process.Qbar(t - 1).log() + log_back[..., None, :]
    joint = numerics.log_sum(terms.mT)  # terms are [x_0, x_{t-1}]
    if belief == "official":
        return torch.where(t[..., None] == 1, log_p0, joint)
    return joint


@declared(logits_prev="*S K floats", xt="*S categories", t="... steps")
def p_prev(process: Process, logits_prev: Tensor, xt: Tensor, t: Tensor) -> Tensor:
    """log p(x_{t-1} | x_t) of a network that predicts x_{t-1} itself.

    Arguments as in `d3pm_jax.p_prev`.
    """
    return log_p_x0(process, logits_prev)


@declared(logits_x0="*S K floats", xt="*S categories", t="... steps", u="*S noise", u_low="*S noise")
def p_sample(
    process: Process,
    logits_x0: Tensor,
    xt: Tensor,
    t: Tensor,
    u: Tensor,
    belief: Belief = "d3pm",
    u_low: Tensor | None = None,
) -> Tensor:
    """x_{t-1} ~ p(x_{t-1} | x_t); -1 where there is no distribution.

    Arguments as in `d3pm_jax.p_sample`.
    """
    return numerics.categorical(p_logits(process, logits_x0, xt, t, belief), u, u_low)


@declared(logits_x0="*S K floats")
def log_p_x0(process: Process, logits_x0: Tensor) -> Tensor:
    """log p(x_0 | x_t), normalised, in the type of the process or wider.

    Arguments as in `d3pm_jax.log_p_x0`.
    """
    return numerics.log_normalize(logits_x0.to(torch.promote_types(logits_x0.dtype, process.pi.dtype)))
