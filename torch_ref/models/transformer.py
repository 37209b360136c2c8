"""Builds the transformer for sequences, categories in, one vector per place out."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from torch_ref.models.layers import class_embedding, time_embedding


class Transformer(nn.Module):
    """xt [B, L], t [B], label [B], weight [B, L] -> [B, L, K]; parameters as in d3pm_jax.models.Transformer.

    Its initial weights are PyTorch's: load others, for example those of `d3pm_jax.weights.twin.to_torch`.
    """

    def __init__(
        self,
        K: int,
        max_time: int,
        width: int = 256,
        num_layers: int = 6,
        num_heads: int = 4,
        mlp_ratio: int = 4,
        dropout: float = 0.0,
        see_time: bool = True,
        num_classes: int | None = None,
    ):
        super().__init__()
        if num_heads < 1 or width % (2 * num_heads):
            raise ValueError(
                f"width = {width} does not divide into {num_heads} heads of an even width: change one"
            )
        self.width = width
        self.num_heads = num_heads
        self.max_time = max_time
        conditioned = see_time or num_classes is not None
        self.embed = nn.Embedding(K, width)
        self.temb1 = None
        self.temb2 = None
        if see_time:
            self.temb1 = nn.Linear(width, width)
            self.temb2 = nn.Linear(width, width)
        self.class_emb = None
        if num_classes is not None:
            self.class_emb = nn.Linear(num_classes, width)
        self.layers = nn.ModuleList(
            Block(width, num_heads, mlp_ratio, dropout, conditioned) for _ in range(num_layers)
        )
        self.modulation = Modulation(2, width, conditioned)
        self.head = nn.Linear(width, K)

    def forward(
        self, xt: Tensor, t: Tensor, label: Tensor | None = None, weight: Tensor | None = None
    ) -> Tensor:
        condition = class_embedding(self.class_emb, label, len(xt))
        if self.temb1 is not None and self.temb2 is not None:
            embedded = time_embedding(t, self.width, self.max_time).to(self.temb1.weight.dtype)
            temb = self.temb2(F.silu(self.temb1(embedded)))
            if condition is None:
                condition = temb
            else:
                condition = temb + condition
        x = self.embed(xt)
        angles = rotary_angles(xt.shape[1], self.width // self.num_heads).to(xt.device)
        seen = None
        if weight is not None:
            seen = weight > 0  # [B, L]
        for block in self.layers:
            x = block(x, condition, angles, seen)
        return self.head(modulated_norm(x, *self.modulation(condition)))


class Block(nn.Module):
    """Adds self-attention to its input, and then two linear maps with a GELU between to that."""

    def __init__(self, width: int, num_heads: int, mlp_ratio: int, rate: float, conditioned: bool):
        super().__init__()
        self.num_heads = num_heads
        self.dropout = nn.Dropout(rate)
        self.modulation = Modulation(6, width, conditioned)
        self.qkv = nn.Linear(width, 3 * width)
        self.proj_out = nn.Linear(width, width)
        self.mlp1 = nn.Linear(width, mlp_ratio * width)
        self.mlp2 = nn.Linear(mlp_ratio * width, width)

    def forward(self, x: Tensor, condition: Tensor | None, angles: Tensor, seen: Tensor | None) -> Tensor:
        scale_a, shift_a, gate_a, scale_m, shift_m, gate_m = self.modulation(condition)
        x = x + gate_a * self.dropout(self._attend(modulated_norm(x, scale_a, shift_a), angles, seen))
        h = self.mlp2(F.gelu(self.mlp1(modulated_norm(x, scale_m, shift_m)), approximate="tanh"))
        return x + gate_m * self.dropout(h)

    def _attend(self, h: Tensor, angles: Tensor, seen: Tensor | None) -> Tensor:
        q, k, v = self.qkv(h).chunk(3, dim=-1)
        q = self._split_heads(q)
        k = self._split_heads(k)
        v = self._split_heads(v)
        mask = None
        if seen is not None:
            mask = seen[:, None, None]  # [B, 1, 1, L]
        mixed = F.scaled_dot_product_attention(rotated(q, angles), rotated(k, angles), v, attn_mask=mask)
        return self.proj_out(mixed.transpose(1, 2).flatten(2))

    def _split_heads(self, x: Tensor) -> Tensor:
        """Turns [B, L, width] into [B, heads, L, width / heads]."""
        return x.unflatten(-1, (self.num_heads, -1)).transpose(1, 2)


class Modulation(nn.Module):
    """Makes n vectors of a width from the embedding of time and class, or n constants where there is none."""

    def __init__(self, n: int, width: int, conditioned: bool):
        super().__init__()
        self.n = n
        self.linear = None
        self.bias = None
        if conditioned:
            self.linear = nn.Linear(width, n * width)
        else:
            self.bias = nn.Parameter(torch.zeros(n * width))

    def forward(self, condition: Tensor | None) -> tuple[Tensor, ...]:
        if self.linear is None:
            assert self.bias is not None
            return self.bias[None, None].chunk(self.n, dim=-1)
        assert condition is not None
        return self.linear(F.silu(condition))[:, None].chunk(self.n, dim=-1)


def modulated_norm(x: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
    """(1 + scale) y + shift, y = x with mean 0 and variance 1 over the last axis."""
    return F.layer_norm(x, x.shape[-1:], eps=1e-6) * (1 + scale) + shift


def rotary_angles(length: int, d: int) -> Tensor:
    """Returns place * 10000^(-2 i / d) for i = 0..d / 2 - 1."""
    dtype = torch.get_default_dtype()
    frequencies = 10000.0 ** (-torch.arange(d // 2, dtype=dtype) / (d // 2))
    return torch.arange(length, dtype=dtype)[:, None] * frequencies


def rotated(x: Tensor, angles: Tensor) -> Tensor:
    """Turns entries i and i + d / 2 of x [B, heads, L, d] by angle i of the place."""
    first, second = x.chunk(2, dim=-1)
    cos = angles.cos()
    sin = angles.sin()
    return torch.cat([first * cos - second * sin, first * sin + second * cos], dim=-1).to(x.dtype)
