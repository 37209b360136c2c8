"""D3PM with uniform noise in T steps as a small PyTorch program: schedule, matrices, loss and sampler.

Nothing is wrong with it: `python -m parity_tests --against examples/uniform_program.py` finds nothing.
Steps are t = 1..T; tables have T + 1 rows, and row 0 is the identity.
"""

import math

import torch

noise = "uniform"
schedule = "cosine"
T = 10
ce_weight = 0.01


def alpha_bar(T):
    """The probability that nothing happened up to t = 1..T."""
    f = torch.cos((torch.arange(T + 1) / T + 0.008) / 1.008 * math.pi / 2)
    beta = (1 - f[1:] / f[:-1]).clamp(max=0.999)
    return torch.cumprod(1 - beta, 0)


def mix(keep, K):
    """Matrices that keep the category with this probability, and else draw any of the K."""
    keep = keep[:, None, None]
    return keep * torch.eye(K) + (1 - keep) / K


class Tables:
    def __init__(self, T, K):
        total = torch.cat([torch.ones(1), alpha_bar(T)])
        step = total[1:] / total[:-1]
        self.Q = mix(torch.cat([torch.ones(1), step]), K)  # [T + 1, K, K], from x_{t-1} to x_t
        self.Qbar = mix(total, K)  # from x_0 to x_t

    def posterior(self, p0, xt, t):
        """x_{t-1} given x_t and the law p0 of x_0, [B, L, K]."""
        evidence = self.Q.mT[t[:, None], xt]
        prior = p0 @ self.Qbar[t - 1]
        joint = evidence * prior
        return joint / joint.sum(-1, keepdim=True)


def draw(p):
    """One category for each row."""
    return torch.multinomial(p.flatten(0, -2), 1).reshape(p.shape[:-1])


def draw_steps(batch):
    return torch.randint(1, T + 1, (batch,))


def kl(p, q):
    return (torch.xlogy(p, p) - torch.xlogy(p, q)).sum(-1)


def loss(network, x0, K):
    """KL of one step back, and a little cross entropy, nats for each place."""
    tables = Tables(T, K)
    t = draw_steps(len(x0))
    xt = draw(tables.Qbar[t[:, None], x0])
    logits = network(xt, t)  # [B, L, K]
    one_hot = torch.nn.functional.one_hot(x0, K).to(logits.dtype)
    true = tables.posterior(one_hot, xt, t)
    predicted = tables.posterior(logits.softmax(-1), xt, t)
    ce = -logits.log_softmax(-1).gather(-1, x0[..., None])[..., 0]
    return (kl(true, predicted) + ce_weight * ce).mean()


def sample(denoise, K, L, n, seed, calls):
    """Ancestral: x_{t-1} given x_t and the network's x_0, at t = calls, .., 1."""
    torch.manual_seed(seed)
    tables = Tables(calls, K)
    total = torch.cat([torch.ones(1), alpha_bar(calls)])
    x = torch.randint(K, (n, L))
    for t in range(calls, 0, -1):
        p0 = denoise.leave_one_out(x, total[t]).exp()
        x = draw(tables.posterior(p0, x, torch.full((n,), t)))
    return x
