"""Draws categories from uniform noise. The noise is u, or u + g u_low with two words, g the grid of u."""

import torch
from torch import Tensor

from torch_ref.checks import declared


@declared(log_p="*S K floats", u="*S noise", u_low="*S noise")
def categorical(log_p: Tensor, u: Tensor, u_low: Tensor | None = None) -> Tensor:
    """Returns the first k with p_k > 0 and p_0 + ... + p_k > u (p_0 + ... + p_{K-1}).

    Where rounding leaves none, the last k with p_k > 0; -1 without a distribution. Sums are float64.

    Arguments as in `d3pm_jax.categorical`.
    """
    p = (log_p - log_p.amax(dim=-1, keepdim=True)).double().exp()  # [*S, K]

    # As hardware does that has no denormal numbers.
    p = torch.where(p < torch.finfo(p.dtype).tiny, 0.0, p)
    cdf = p.cumsum(dim=-1)
    possible = p > 0
    hit = possible & (cdf > noise_from_words(u, u_low)[..., None] * cdf[..., -1:])
    first = hit.int().argmax(dim=-1)
    last = p.shape[-1] - 1 - possible.flip(-1).int().argmax(dim=-1)
    k = torch.where(hit.any(dim=-1), first, last)
    return torch.where(possible.any(dim=-1), k, -1)


def noise_from_words(u: Tensor, u_low: Tensor | None) -> Tensor:
    """Returns the noise in float64."""
    if u_low is None:
        return u.double()
    return u.double() + u_low.double() * torch.finfo(u.dtype).eps
