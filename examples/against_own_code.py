"""D3PM in PyTorch with three slips, for `python -m parity_tests --against examples/against_own_code.py`.

`cosine`, `uniform`, `absorbing` and `log_q_probs` are right; the other three have one slip each.
"""

import math

import torch


def cosine(T):
    f = torch.cos((torch.arange(T + 1, dtype=torch.float64) / T + 0.008) / 1.008 * math.pi / 2)
    return (1 - f[1:] / f[:-1]).clamp(max=0.999)


def uniform(beta, K):
    return (1 - beta)[:, None, None] * torch.eye(K) + beta[:, None, None] / K


def absorbing(beta, K, mask_id):
    Q = (1 - beta)[:, None, None] * torch.eye(K)
    Q[:, :, mask_id] += beta[:, None]
    return Q


def rows(table, x):
    """table[b, x[b, ..]] of a table [B, K, K] for each example and x [B, *S]: [B, *S, K]."""
    return table[torch.arange(len(x)).reshape(-1, *[1] * (x.ndim - 1)), x]


def log_q_probs(process, x0, t):
    return rows(process.Qbar(t), x0).log()


def q_posterior(process, x0, xt, t):
    """A slip: q(x_{t-1} | x_0) is Qbar at t - 1."""
    joint = rows(process.Q(t).mT, xt).log() + rows(process.Qbar(t), x0).log()
    return joint.log_softmax(-1)


def p_logits(process, logits_x0, xt, t):
    """A slip: q(x_t | x_{t-1} = .) is a column of Q."""
    Qbar = process.Qbar(t - 1).reshape(len(t), *[1] * (xt.ndim - 1), process.K, process.K)
    prev = (logits_x0.softmax(-1)[..., None, :] @ Qbar)[..., 0, :]
    back = rows(process.Q(t), xt)
    possible = (prev > 0) & (back > 0)
    joint = torch.where(possible, prev, 1).log() + torch.where(possible, back, 1).log()
    return torch.where(possible, joint, -math.inf).log_softmax(-1)


def cross_entropy(process, logits_x0, x0):
    """A slip: an epsilon."""
    p = logits_x0.softmax(-1).gather(-1, x0[..., None])[..., 0]
    return -torch.log(p + 1e-8)
