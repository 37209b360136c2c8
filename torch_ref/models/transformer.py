"""Builds the transformer, categories in, one vector per place out."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from torch_ref.blocks import Layout
from torch_ref.models.layers import check_condition, class_embedding, time_embedding
from torch_ref.models.places import make_places


class Transformer(nn.Module):
    """xt [B, *S], t [B], label [B], weight [B, *S], condition [B, *C] -> [B, *S, K].

    Parameters as in d3pm_jax.models.Transformer.

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
        *,
        positions: str = "rotary",
        shape: tuple[int, ...] | None = None,
        condition: tuple[int, ...] | None = None,
        sizes: tuple | None = None,
        tied: bool = False,
    ):
        super().__init__()
        if num_heads < 1 or width % (2 * num_heads):
            raise ValueError(
                f"width = {width} does not divide into {num_heads} heads of an even width: change one"
            )
        self.width = width
        self.num_heads = num_heads
        self.max_time = max_time
        self.K = K
        self.condition_shape = condition
        conditioned = see_time or num_classes is not None or condition is not None
        self.places = None
        axes: tuple[int, ...] = ()
        if shape is not None:
            self.places = make_places(shape, K, sizes)
            axes = {"rotary": (), "learned": (math.prod(shape),), "grid": tuple(shape)}[positions]
        self.shares_categories = sizes is None
        num_rows = num_logits = K
        if self.places is not None and not self.shares_categories:
            num_rows = sum(self.places.row_counts)
            num_logits = sum(self.places.sizes)
        self.embed = nn.Embedding(num_rows, width)
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
        self.head = nn.Linear(width, num_logits)
        self.tied = tied
        if tied:
            self.head.register_parameter("weight", None)
        self.condition = None
        if condition is not None:
            self.condition = nn.Linear(math.prod(condition), width)
        self.axes = axes
        self.positions = nn.ModuleList(nn.Embedding(length, width) for length in axes)

    def forward(
        self,
        xt: Tensor,
        t: Tensor,
        label: Tensor | None = None,
        weight: Tensor | None = None,
        condition: Tensor | None = None,
        layout: Layout | None = None,
    ) -> Tensor:
        if layout is not None and not self.shares_categories:
            raise ValueError("a layout is of places that share their categories: leave out sizes")
        x = self._embed_places(xt, layout)
        embedded = self._embed_inputs(t, label, condition, len(xt))
        angles = None
        if not self.positions:
            angles = rotary_angles(x.shape[1], self.width // self.num_heads).to(xt.device)
        seen = None
        if weight is not None:
            seen = weight.flatten(1)[:, None] > 0  # [B, 1, L]
        if layout is not None:
            angles = None if angles is None else angles[layout.places]
            seen = layout.attended[None] & (seen if seen is not None else layout.attended[None])  # [B, L, L]
        for block in self.layers:
            x = block(x, embedded, angles, seen)
        x = modulated_norm(x, *self.modulation(embedded))
        if self.places is not None and not self.shares_categories:
            return self.places.apply_heads(self.head, x)
        kernel = self.embed.weight if self.tied else self.head.weight
        return F.linear(x, kernel, self.head.bias).reshape(*xt.shape, self.K)

    def _embed_places(self, xt: Tensor, layout: Layout | None) -> Tensor:
        """Returns the sum of the vectors of categories and of positions, [B, L, width]."""
        if self.places is None:
            return self.embed(xt)
        if self.shares_categories:
            # The first places of a sequence are a sequence too.
            is_sequence = xt.ndim == 2 and len(self.axes) == 1 and xt.shape[1] <= self.axes[0]
            if layout is None and not is_sequence:
                self.places.check_shape(xt)
            x = self.embed(xt.flatten(1))
        else:
            x = self.embed(self.places.find_rows(xt))
        # Index i of an axis is that of its places, in C order.
        indices = [torch.arange(length, device=xt.device) for length in self.axes]
        if indices:
            for layer, index in zip(self.positions, torch.meshgrid(indices, indexing="ij"), strict=True):
                index = index.flatten()[: x.shape[1]] if layout is None else index[layout.places]
                x = x + layer(index)
        return x

    def _embed_inputs(
        self, t: Tensor, label: Tensor | None, condition: Tensor | None, B: int
    ) -> Tensor | None:
        """Returns the sum of the embeddings of time, class and condition, [B, width], or None."""
        check_condition(condition, self.condition_shape, B)
        parts = []
        if self.temb1 is not None and self.temb2 is not None:
            embedded = time_embedding(t, self.width, self.max_time).to(self.temb1.weight.dtype)
            parts.append(self.temb2(F.silu(self.temb1(embedded))))
        class_part = class_embedding(self.class_emb, label, B)
        if class_part is not None:
            parts.append(class_part)
        if self.condition is not None and condition is not None:
            parts.append(self.condition(condition.reshape(B, -1).to(self.condition.weight.dtype)))
        if not parts:
            return None
        return sum(parts[1:], start=parts[0])


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

    def forward(
        self, x: Tensor, condition: Tensor | None, angles: Tensor | None, seen: Tensor | None
    ) -> Tensor:
        scale_a, shift_a, gate_a, scale_m, shift_m, gate_m = self.modulation(condition)
        x = x + gate_a * self.dropout(self._attend(modulated_norm(x, scale_a, shift_a), angles, seen))
        h = self.mlp2(F.gelu(self.mlp1(modulated_norm(x, scale_m, shift_m)), approximate="tanh"))
        return x + gate_m * self.dropout(h)

    def _attend(self, h: Tensor, angles: Tensor | None, seen: Tensor | None) -> Tensor:
        q, k, v = self.qkv(h).chunk(3, dim=-1)
        q = self._split_heads(q)
        k = self._split_heads(k)
        v = self._split_heads(v)
        if angles is not None:
            q = rotated(q, angles)
            k = rotated(k, angles)
        mask = None
        if seen is not None:
            mask = seen[:, None]  # [B, 1, 1 or L, L]
        mixed = F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
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
