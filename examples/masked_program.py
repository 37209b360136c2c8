"""Masked diffusion in continuous time as a small PyTorch program: schedule, loss and sampler.

Nothing is wrong with it: `python -m parity_tests --against examples/masked_program.py` finds nothing.
Categories are 0..K - 1, and K is the mask.
"""

import itertools
import math

import torch
import torch.nn.functional as F

noise = "mask"
schedule = "cosine"


def alpha(t):
    """The probability that a place is not masked at time t."""
    return torch.cos(t * math.pi / 2)


def alpha_derivative(t):
    return -math.pi / 2 * torch.sin(t * math.pi / 2)


def draw_times(batch):
    """One time in (0, 1] for each example, spread over the batch."""
    offset = torch.rand(1)
    return 1 - (torch.arange(batch) + offset) / batch


def add_noise(x0, t, K):
    """x_t: each place is masked on its own."""
    keep = alpha(t)[:, None]
    is_masked = torch.rand(x0.shape) > keep
    return torch.where(is_masked, K, x0)


def predict(logits, x0, K):
    """-log p(x_0) at each place; the network never predicts the mask."""
    logits = logits.clone()
    logits[..., K] = -math.inf
    return F.cross_entropy(logits.transpose(1, 2), x0, reduction="none")


def loss(network, x0, K):
    """The bound on -log p(x_0), nats for each place."""
    t = draw_times(len(x0))
    xt = add_noise(x0, t, K)
    logits = network(xt, t)  # [B, L, K + 1]
    ce = predict(logits, x0, K)
    weight = -alpha_derivative(t) / (1 - alpha(t))
    is_masked = xt == K
    return (weight[:, None] * ce * is_masked).mean()


def gumbel_like(x, generator):
    u = torch.rand(x.shape, generator=generator, dtype=torch.float64)
    return -torch.log(-torch.log(u))


def sample(denoise, K, L, n, seed, calls):
    """Ancestral: between t and s a masked place is revealed with probability (a(s) - a(t)) / (1 - a(t))."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.full((n, L), K)
    times = torch.linspace(1, 0, calls + 1)
    for t, s in itertools.pairwise(times):
        log_p = denoise(x, alpha(t))  # [n, L, K]
        drawn = (log_p + gumbel_like(log_p, generator)).argmax(-1)
        reveal_probability = (alpha(s) - alpha(t)) / (1 - alpha(t))
        reveal = torch.rand(x.shape, generator=generator) < reveal_probability
        x = torch.where((x == K) & reveal, drawn, x)
    return x
