"""The networks of other programs in plain PyTorch, written from their layouts, and files as those write them.

Nothing here is of d3pm_jax or torch_ref: names, layouts, eps, groups and the order of heads are said again.
"""

import math

import torch
import torch.nn.functional as F
from torch import nn


def sinusoids(t, ch):
    half = ch // 2
    frequencies = torch.exp(torch.arange(half, dtype=torch.float64) * (-math.log(10000) / (half - 1)))
    angles = t.double()[:, None] * frequencies
    return torch.cat([angles.sin(), angles.cos()], 1)


class Sinusoids(nn.Module):
    def __init__(self, ch):
        super().__init__()
        self.ch = ch

    def forward(self, t):
        return sinusoids(t, self.ch).to(torch.get_default_dtype())


def norm(C, eps=1e-6):
    return nn.GroupNorm(min(C // 4, 32), C, eps=eps)


class SeedRes(nn.Module):
    def __init__(self, a, b, tdim):
        super().__init__()
        self.norm1 = norm(a)
        self.conv1 = nn.Conv2d(a, b, 3, padding=1)
        self.time = nn.Sequential(nn.SiLU(), nn.Linear(tdim, b))
        self.norm2 = norm(b)
        self.conv2 = nn.Conv2d(b, b, 3, padding=1)
        if a != b:
            self.skip = nn.Linear(a, b)

    def forward(self, x, temb):
        h = self.conv1(F.silu(self.norm1(x))) + self.time(temb)[:, :, None, None]
        h = self.conv2(F.silu(self.norm2(h)))
        return h + (self.skip(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2) if hasattr(self, "skip") else x)


class SeedAttention(nn.Module):
    def __init__(self, C, heads):
        super().__init__()
        self.heads = heads
        self.norm = norm(C, 1e-5)
        self.qkv = nn.Conv1d(C, 3 * C, 1)
        self.proj_out = nn.Conv1d(C, C, 1)

    def forward(self, x):
        B, C, H, W = x.shape
        d = C // self.heads
        rows = self.qkv(self.norm(x).reshape(B, C, H * W)).reshape(B * self.heads, 3 * d, H * W)
        q, k, v = rows.split(d, 1)
        weights = torch.einsum("bct,bcs->bts", q * d**-0.25, k * d**-0.25).softmax(-1)
        h = torch.einsum("bts,bcs->bct", weights, v).reshape(B, C, H * W)
        return x + self.proj_out(h).reshape(x.shape)


class SeedBlock(nn.Module):
    def __init__(self, a, b, tdim, heads, attends):
        super().__init__()
        self.resblocks = SeedRes(a, b, tdim)
        if attends:
            self.attention = SeedAttention(b, heads)

    def forward(self, x, temb):
        h = self.resblocks(x, temb)
        return self.attention(h) if hasattr(self, "attention") else h


class SeedDown(nn.Module):
    def __init__(self, C):
        super().__init__()
        self.downsample = nn.Sequential(nn.Conv2d(C, C, 3, stride=2))

    def forward(self, x, temb):
        return self.downsample(F.pad(x, [0, 1, 0, 1]))


class SeedUNet(nn.Module):
    """x [B, C, H, W], t from 0 -> logits [B, C, H, W, K]."""

    def __init__(self, K, channels, ch, mult, blocks, attends, heads=1, outputs=None):
        super().__init__()
        tdim = 4 * ch
        self.K = K
        self.channels = channels
        last = len(mult) - 1
        self.time = nn.Sequential(Sinusoids(ch), nn.Linear(ch, tdim), nn.SiLU(), nn.Linear(tdim, tdim))
        down = [nn.Conv2d(channels, ch, 3, padding=1)]
        n = ch
        skips = [ch]
        for i, m in enumerate(mult):
            for _ in range(blocks):
                down.append(SeedBlock(n, ch * m, tdim, heads, i in attends))
                n = ch * m
                skips.append(n)
            if i < last:
                down.append(SeedDown(n))
                skips.append(n)
        self.down = nn.ModuleList(down)
        self.mid = nn.ModuleList([SeedBlock(n, n, tdim, heads, True), SeedBlock(n, n, tdim, heads, False)])
        up = []
        for i in range(last, -1, -1):
            for _ in range(blocks + 1):
                up.append(SeedBlock(n + skips.pop(), ch * mult[i], tdim, heads, i in attends))
                n = ch * mult[i]
            if i:
                up.append(nn.Sequential(nn.Upsample(scale_factor=2), nn.Conv2d(n, n, 3, padding=1)))
        self.up = nn.ModuleList(up)
        self.out = nn.Sequential(norm(n), nn.SiLU(), nn.Conv2d(n, channels * (outputs or K), 3, padding=1))

    def forward(self, x, t):
        x = 2 * x.to(torch.get_default_dtype()) / (self.K - 1) - 1
        temb = self.time(t)
        hs = []
        h = x
        for layer in self.down:
            h = layer(h) if isinstance(layer, nn.Conv2d) else layer(h, temb)
            hs.append(h)
        for layer in self.mid:
            h = layer(h, temb)
        for layer in self.up:
            doubles = isinstance(layer, nn.Sequential)
            h = layer(h) if doubles else layer(torch.cat([h, hs.pop()], 1), temb)
        h = self.out(h)
        B, _, H, W = h.shape
        return h.reshape(B, self.channels, -1, H, W).permute(0, 1, 3, 4, 2)


class ScoreAttention(nn.Module):
    def __init__(self, C):
        super().__init__()
        self.group_norm = nn.GroupNorm(32, C)
        self.proj_q = nn.Conv2d(C, C, 1)
        self.proj_k = nn.Conv2d(C, C, 1)
        self.proj_v = nn.Conv2d(C, C, 1)
        self.proj = nn.Conv2d(C, C, 1)

    def forward(self, x):
        B, C, H, W = x.shape
        h = self.group_norm(x)
        q = self.proj_q(h).flatten(2)
        k = self.proj_k(h).flatten(2)
        v = self.proj_v(h).flatten(2)
        weights = (q.mT @ k / C**0.5).softmax(-1)
        return x + self.proj((v @ weights.mT).reshape(B, C, H, W))


class ScoreRes(nn.Module):
    def __init__(self, a, b, tdim, attends):
        super().__init__()
        self.block1 = nn.Sequential(nn.GroupNorm(32, a), nn.SiLU(), nn.Conv2d(a, b, 3, padding=1))
        self.temb_proj = nn.Sequential(nn.SiLU(), nn.Linear(tdim, b))
        conv2 = nn.Conv2d(b, b, 3, padding=1)
        self.block2 = nn.Sequential(nn.GroupNorm(32, b), nn.SiLU(), nn.Dropout(0.1), conv2)
        self.shortcut = nn.Conv2d(a, b, 1) if a != b else nn.Identity()
        self.attn = ScoreAttention(b) if attends else nn.Identity()

    def forward(self, x, temb):
        h = self.block1(x) + self.temb_proj(temb)[:, :, None, None]
        return self.attn(self.block2(h) + self.shortcut(x))


class Resample(nn.Module):
    def __init__(self, C, stride):
        super().__init__()
        self.main = nn.Conv2d(C, C, 3, stride=stride, padding=1)
        self.stride = stride

    def forward(self, x, temb):
        return self.main(x if self.stride == 2 else F.interpolate(x, scale_factor=2))


class Fourier(nn.Module):
    def __init__(self, dim):
        super().__init__()
        self.W = nn.Parameter(30 * torch.randn(dim // 2), requires_grad=False)

    def forward(self, t):
        angles = t[:, None] * self.W[None] * 2 * math.pi
        return torch.cat([angles.sin(), angles.cos()], -1)


class MNISTScoreNet(nn.Module):
    """x one-hot [B, 28, 28, 2], t in (0, 4] -> [B, 28, 28, 2]."""

    def __init__(self, ch, mult, attends, blocks, weights):
        super().__init__()
        tdim = 4 * ch
        n = ch
        skips = [ch]
        last = len(mult) - 1
        self.register_buffer("time_dependent_weights", weights)
        self.time_embedding = nn.Sequential(Fourier(tdim), nn.Linear(tdim, tdim))
        self.head = nn.Conv2d(2, ch, 3, padding=3)
        self.downblocks = nn.ModuleList()
        self.upblocks = nn.ModuleList()
        for i, m in enumerate(mult):
            for _ in range(blocks):
                self.downblocks.append(ScoreRes(n, ch * m, tdim, i in attends))
                n = ch * m
                skips.append(n)
            if i < last:
                self.downblocks.append(Resample(n, 2))
                skips.append(n)
        self.middleblocks = nn.ModuleList([ScoreRes(n, n, tdim, True), ScoreRes(n, n, tdim, False)])
        for i in range(last, -1, -1):
            for _ in range(blocks + 1):
                self.upblocks.append(ScoreRes(skips.pop() + n, ch * mult[i], tdim, i in attends))
                n = ch * mult[i]
            if i:
                self.upblocks.append(Resample(n, 1))
        self.tail = nn.Sequential(nn.GroupNorm(32, n), nn.SiLU(), nn.Conv2d(n, 2, 3, padding=1))

    def forward(self, x, t):
        dtype = torch.get_default_dtype()
        temb = self.time_embedding((t / 4).to(dtype))
        h = self.head(x.to(dtype).permute(0, 3, 1, 2))
        hs = [h]
        for layer in self.downblocks:
            h = layer(h, temb)
            hs.append(h)
        for layer in self.middleblocks:
            h = layer(h, temb)
        for layer in self.upblocks:
            h = layer(torch.cat([h, hs.pop()], 1) if isinstance(layer, ScoreRes) else h, temb)
        h = self.tail(h)[:, :, 2:-2, 2:-2].permute(0, 2, 3, 1)
        at = (t / 0.01 - 1).clamp(min=0)
        low = at.floor().long()
        w = self.time_dependent_weights
        if w is None:
            return h - h.mean(-1, keepdim=True)
        scale = w[low] + (at - low) * (w[(low + 1).clamp(max=len(w) - 1)] - w[low])
        return (h - h.mean(-1, keepdim=True)) * scale[:, None, None, None].to(dtype)


def randomise(module):
    """Weights far from zero, in float32 as the programs train."""
    generator = torch.Generator().manual_seed(0)
    for name, p in module.named_parameters():
        if not name.endswith(".W"):
            fan = p[0].numel() if p.ndim > 1 else 1
            draw = torch.randn(p.shape, generator=generator) * (0.8 / math.sqrt(fan) if p.ndim > 1 else 0.2)
            p.data = draw + (1.0 if "norm" in name and name.endswith("weight") else 0.0)
    return module.eval()
