"""Builds a network of places, categories of an example in, one vector per place out."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch.nn.functional as F
from torch import Tensor, nn

from torch_ref.models.layers import check_condition, class_embedding, time_embedding
from torch_ref.models.places import make_places

EPS = 1e-6


class Inputs(NamedTuple):
    """Holds what a network of places is called with: fields as in d3pm_jax.models.Inputs."""

    shape: Sequence[int]
    K: int
    max_time: int | None = None
    num_classes: int | None = None
    condition: tuple[int, ...] | None = None
    sizes: Sequence | None = None


class MLP(nn.Module):
    """xt [B, *S], t [B], label [B], condition [B, *C] -> [B, *S, K]; parameters as in d3pm_jax.models.MLP.

    Its initial weights are PyTorch's: load others, for example those of `d3pm_jax.weights.twin.to_torch`.
    """

    def __init__(self, inputs: Inputs, width: int = 256, num_layers: int = 4, dropout: float = 0.0):
        super().__init__()
        self.places = make_places(inputs.shape, inputs.K, inputs.sizes)
        self.inputs = inputs
        self.width = width
        self.embed = nn.Embedding(sum(self.places.row_counts), width)
        self.temb1 = None
        self.temb2 = None
        if inputs.max_time is not None:
            self.temb1 = nn.Linear(width, width)
            self.temb2 = nn.Linear(width, width)
        self.class_emb = None
        if inputs.num_classes is not None:
            self.class_emb = nn.Linear(inputs.num_classes, width)
        self.condition = None
        if inputs.condition is not None:
            self.condition = nn.Linear(math.prod(inputs.condition), width)
        self.blocks = nn.ModuleList(ResidualBlock(width, dropout) for _ in range(num_layers))
        self.norm = nn.LayerNorm(width, eps=EPS)
        self.head = nn.Linear(width, sum(self.places.sizes))

    def forward(
        self, xt: Tensor, t: Tensor, label: Tensor | None = None, condition: Tensor | None = None
    ) -> Tensor:
        check_condition(condition, self.inputs.condition, len(xt))
        h = self.embed(self.places.find_rows(xt)).sum(1)
        max_time = self.inputs.max_time
        if self.temb1 is not None and self.temb2 is not None and max_time is not None:
            embedded = time_embedding(t, self.width, max_time).to(h.dtype)
            h = h + self.temb2(F.silu(self.temb1(embedded)))
        class_part = class_embedding(self.class_emb, label, len(xt))
        if class_part is not None:
            h = h + class_part
        if self.condition is not None and condition is not None:
            h = h + self.condition(condition.reshape(len(xt), -1).to(h.dtype))
        for block in self.blocks:
            h = block(h)
        return self.places.split_logits(self.head(self.norm(h)))


class ResidualBlock(nn.Module):
    """Adds dropout(linear(silu(linear(norm(h))))) to h."""

    def __init__(self, width: int, rate: float):
        super().__init__()
        self.norm = nn.LayerNorm(width, eps=EPS)
        self.linear1 = nn.Linear(width, width)
        self.linear2 = nn.Linear(width, width)
        self.dropout = nn.Dropout(rate)

    def forward(self, h: Tensor) -> Tensor:
        return h + self.dropout(self.linear2(F.silu(self.linear1(self.norm(h)))))
