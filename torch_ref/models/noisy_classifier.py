"""Builds a small classifier of noised examples, one-hots in, logits of the label out."""

import math
from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn

from torch_ref.models.layers import time_embedding

EPS = 1e-6


class NoisyClassifier(nn.Module):
    """one_hots [B, *S, K], t [B] -> [B, classes]; parameters as in d3pm_jax.models.NoisyClassifier.

    Its initial weights are PyTorch's: load others, for example those of `d3pm_jax.weights.twin.to_torch`.
    """

    def __init__(
        self,
        shape: Sequence[int],
        K: int,
        classes: int,
        max_time: int,
        width: int = 256,
        num_layers: int = 2,
        embedding: int = 8,
        dropout: float = 0.1,
    ):
        super().__init__()
        self.width = width
        self.max_time = max_time
        self.embed = nn.Linear(K, embedding, bias=False)
        self.first = nn.Linear(math.prod(shape) * embedding, width)
        self.temb1 = nn.Linear(width, width)
        self.temb2 = nn.Linear(width, width)
        self.blocks = nn.ModuleList(DenseBlock(width, dropout) for _ in range(num_layers))
        self.norm = nn.LayerNorm(width, eps=EPS)
        self.last = nn.Linear(width, classes)

    def forward(self, one_hots: Tensor, t: Tensor) -> Tensor:
        h = self.first(self.embed(one_hots).flatten(1))
        embedded = time_embedding(t, self.width, self.max_time).to(h.dtype)
        h = h + self.temb2(F.silu(self.temb1(embedded)))
        for block in self.blocks:
            h = block(h)
        return self.last(F.silu(self.norm(h)))


class DenseBlock(nn.Module):
    """Adds dropout(linear(silu(norm(h)))) to h."""

    def __init__(self, width: int, rate: float):
        super().__init__()
        self.norm = nn.LayerNorm(width, eps=EPS)
        self.linear = nn.Linear(width, width)
        self.dropout = nn.Dropout(rate)

    def forward(self, h: Tensor) -> Tensor:
        return h + self.dropout(self.linear(F.silu(self.norm(h))))
