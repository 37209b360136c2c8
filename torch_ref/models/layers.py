"""The layers of the U-Net, images as [B, C, H, W]."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def group_norm(channels: int, groups: int) -> nn.GroupNorm:
    """eps as in the official code; PyTorch's own is 1e-5."""
    return nn.GroupNorm(groups, channels, eps=1e-6)


def conv3(n_in: int, n_out: int, strides: int = 1) -> nn.Conv2d:
    """A 3 x 3 convolution; one of stride 2 expects its input padded by `pad_end`."""
    return nn.Conv2d(n_in, n_out, 3, strides, padding=1 if strides == 1 else 0)


def pad_end(x: Tensor) -> Tensor:
    """One row and one column of zeros at the end: what SAME means at stride 2 and even sizes."""
    return F.pad(x, (0, 1, 0, 1))


def per_pixel(linear: nn.Linear, x: Tensor) -> Tensor:
    """A linear map of the channels."""
    return linear(x.movedim(1, -1)).movedim(-1, 1)


def time_embedding(t: Tensor, dim: int, max_time: int) -> Tensor:
    """sin and cos of 1000 (t - 1) / max_time at dim / 2 frequencies from 1 to 1e-4, [B, dim]."""
    half = dim // 2
    frequencies = 10000.0 ** (-torch.arange(half, dtype=torch.get_default_dtype()) / (half - 1))
    angles = ((t - 1) * (1000.0 / max_time))[:, None] * frequencies
    return torch.cat([angles.sin(), angles.cos()], dim=1)


class ResBlock(nn.Module):
    """norm, swish, conv, + time, norm, swish, dropout, conv, + shortcut."""

    def __init__(self, n_in: int, n_out: int, n_time: int, groups: int, rate: float):
        super().__init__()
        self.norm1 = group_norm(n_in, groups)
        self.conv1 = conv3(n_in, n_out)
        self.temb_proj = nn.Linear(n_time, n_out)
        self.norm2 = group_norm(n_out, groups)
        self.dropout = nn.Dropout(rate)
        self.conv2 = conv3(n_out, n_out)
        self.shortcut = nn.Linear(n_in, n_out) if n_in != n_out else None

    def forward(self, x: Tensor, temb: Tensor) -> Tensor:
        h = self.conv1(F.silu(self.norm1(x)))
        h = h + self.temb_proj(F.silu(temb))[:, :, None, None]
        h = self.conv2(self.dropout(F.silu(self.norm2(h))))
        return h + (x if self.shortcut is None else per_pixel(self.shortcut, x))


class Attention(nn.Module):
    """Single-head self-attention over the pixels, added to its input."""

    def __init__(self, channels: int, groups: int):
        super().__init__()
        self.norm = group_norm(channels, groups)
        self.q = nn.Linear(channels, channels)
        self.k = nn.Linear(channels, channels)
        self.v = nn.Linear(channels, channels)
        self.proj_out = nn.Linear(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        h = self.norm(x).flatten(2).mT  # [B, H W, C]
        scores = self.q(h) @ self.k(h).mT / h.shape[-1] ** 0.5
        mixed = self.proj_out(scores.softmax(-1) @ self.v(h))
        return x + mixed.mT.reshape(x.shape)
