"""Builds the layers of the networks, images as [B, C, H, W]."""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Style(NamedTuple):
    """Holds what the layers of one network have in common."""

    eps: float  # of every GroupNorm, but that of attention; 1e-5 is PyTorch's own, 1e-6 that of Flax
    groups: int
    num_heads: int  # of every attention
    rate: float  # of dropout
    n_embedding: int  # width of the embeddings of time and class
    labelled: bool  # whether blocks see a class
    down_pads: tuple[int, int]  # zeros before and after rows and columns of a convolution of stride 2
    channels_per_group: int | None = None  # at least so many: narrow layers have fewer groups
    attention_eps: float | None = None  # of the GroupNorm of attention; eps without


def group_norm(channels: int, style: Style) -> nn.GroupNorm:
    """Returns a GroupNorm of the style."""
    groups = style.groups
    if style.channels_per_group is not None:
        groups = min(channels // style.channels_per_group, groups)
    return nn.GroupNorm(groups, channels, eps=style.eps)


def conv3(n_in: int, n_out: int) -> nn.Conv2d:
    """Returns a 3 x 3 convolution that keeps the size."""
    return nn.Conv2d(n_in, n_out, 3, padding=1)


class Halving(nn.Conv2d):
    """Applies a 3 x 3 convolution of stride 2, for even sizes."""

    def __init__(self, channels: int, style: Style):
        super().__init__(channels, channels, 3, stride=2)
        self.pads = style.down_pads

    def forward(self, input: Tensor) -> Tensor:
        return super().forward(F.pad(input, (*self.pads, *self.pads)))


def per_pixel(linear: nn.Linear, x: Tensor) -> Tensor:
    """Applies a linear map to the channels."""
    return linear(x.movedim(1, -1)).movedim(-1, 1)


def time_embedding(t: Tensor, dim: int, max_time: int) -> Tensor:
    """Returns sin and cos of 1000 (t - 1) / max_time at dim / 2 frequencies from 1 to 1e-4, [B, dim]."""
    half = dim // 2
    frequencies = 10000.0 ** (
        -torch.arange(half, dtype=torch.get_default_dtype(), device=t.device) / (half - 1)
    )
    angles = ((t - 1) * (1000.0 / max_time))[:, None] * frequencies
    return torch.cat([angles.sin(), angles.cos()], dim=1)


def class_embedding(embed: nn.Linear | None, label: Tensor | None, B: int) -> Tensor | None:
    """Returns the embedding of one-hot labels; the bias for each of B images where there are none."""
    if embed is None:
        if label is not None:
            raise ValueError(
                "labels were passed to a network with num_classes = None: leave label out, or set num_classes"
            )
        return None
    if label is None:
        return embed.bias.expand(B, -1)
    return embed(F.one_hot(label, embed.in_features).to(embed.weight.dtype))


def enlarge(x: Tensor, H: int, W: int) -> Tensor:
    """Returns images [B, h, w, c] enlarged to [B, H, W, c] by nearest neighbours."""
    h, w = x.shape[1:3]
    check_enlarges((h, w), (H, W))
    return x.repeat_interleave(H // h, dim=1).repeat_interleave(W // w, dim=2)


def check_enlarges(size: tuple[int, ...], larger_size: tuple[int, ...]) -> None:
    """Raises ValueError unless rows and columns of a larger image are multiples of those of an image."""
    h, w = size
    H, W = larger_size
    if H % h or W % w:
        raise ValueError(
            f"a condition of {h} x {w} cannot be enlarged to an image of {H} x {W}: {H} and {W} must be "
            f"multiples of {h} and {w}"
        )


def check_condition(condition: Tensor | None, shape: tuple[int, ...] | None, B: int) -> None:
    """Raises ValueError where the condition of B examples is not of the shape that a network is for."""
    if shape is None:
        if condition is not None:
            raise ValueError(
                "a condition was passed to a network with condition = None: leave it out, or set "
                "condition to its shape"
            )
        return
    expected = (B, *shape)
    if condition is None:
        raise ValueError(f"the network needs a condition of shape {expected}: pass condition")
    if tuple(condition.shape) != expected:
        raise ValueError(f"the condition has shape {tuple(condition.shape)}: expected {expected}")


class ResBlock(nn.Module):
    """Applies norm, swish, conv, + time, + class, norm, swish, dropout, conv, + shortcut."""

    def __init__(self, n_in: int, n_out: int, style: Style):
        super().__init__()
        self.norm1 = group_norm(n_in, style)
        self.conv1 = conv3(n_in, n_out)
        self.temb_proj = nn.Linear(style.n_embedding, n_out)
        self.class_proj = None
        if style.labelled:
            self.class_proj = nn.Linear(style.n_embedding, n_out)
        self.norm2 = group_norm(n_out, style)
        self.dropout = nn.Dropout(style.rate)
        self.conv2 = conv3(n_out, n_out)
        self.shortcut = None
        if n_in != n_out:
            self.shortcut = nn.Linear(n_in, n_out)

    def forward(self, x: Tensor, temb: Tensor, cemb: Tensor | None) -> Tensor:
        h = self.conv1(F.silu(self.norm1(x)))
        h = h + self.temb_proj(F.silu(temb))[:, :, None, None]
        if self.class_proj is not None:
            h = h + self.class_proj(cemb)[:, :, None, None]
        h = self.conv2(self.dropout(F.silu(self.norm2(h))))
        if self.shortcut is not None:
            x = per_pixel(self.shortcut, x)
        return h + x


class Attention(nn.Module):
    """Adds self-attention over the pixels to its input; each head has a part of the channels."""

    def __init__(self, channels: int, style: Style):
        super().__init__()
        if style.num_heads < 1 or channels % style.num_heads:
            raise ValueError(
                f"{channels} channels do not divide into {style.num_heads} heads: change ch or num_heads"
            )
        self.num_heads = style.num_heads
        self.norm = group_norm(channels, style)
        if style.attention_eps is not None:
            self.norm.eps = style.attention_eps
        self.q = nn.Linear(channels, channels)
        self.k = nn.Linear(channels, channels)
        self.v = nn.Linear(channels, channels)
        self.proj_out = nn.Linear(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        h = self.norm(x).flatten(2).mT  # [B, H W, C]
        heads = []
        qs = self.q(h).chunk(self.num_heads, dim=-1)
        ks = self.k(h).chunk(self.num_heads, dim=-1)
        vs = self.v(h).chunk(self.num_heads, dim=-1)
        for q, k, v in zip(qs, ks, vs, strict=True):  # [B, H W, C / heads]
            heads.append((q @ k.mT / q.shape[-1] ** 0.5).softmax(-1) @ v)
        return x + self.proj_out(torch.cat(heads, dim=-1)).mT.reshape(x.shape)
