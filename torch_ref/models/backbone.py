"""Builds what the networks share: residual blocks down and up through halved sizes, with skips."""

from collections.abc import Collection, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from torch_ref.models.layers import Attention, Halving, ResBlock, Style, conv3, group_norm


def padded_size(size: int, levels: int) -> int:
    """Returns the smallest multiple of 2^(levels - 1) that is not below size."""
    while size % 2 ** (levels - 1):
        size += 1
    return size


class Stage(nn.Module):
    """Holds the blocks at one resolution, with or without attention behind each, and a resampling conv."""

    def __init__(self, blocks: list[ResBlock], attns: list[Attention], conv: nn.Conv2d | None):
        super().__init__()
        self.blocks = nn.ModuleList(blocks)
        self.attns = nn.ModuleList(attns)
        self.conv = conv

    def block(self, i: int, h: Tensor, temb: Tensor, cemb: Tensor | None) -> Tensor:
        """Applies block i and its attention."""
        h = self.blocks[i](h, temb, cemb)
        if len(self.attns) == 0:
            return h
        return self.attns[i](h)


class Down(Stage):
    """Goes down: every block and the conv leave a skip."""

    def forward(self, h: Tensor, temb: Tensor, cemb: Tensor | None, skips: list[Tensor]) -> Tensor:
        for i in range(len(self.blocks)):
            h = self.block(i, h, temb, cemb)
            skips.append(h)
        if self.conv is not None:
            h = self.conv(h)
            skips.append(h)
        return h


class Up(Stage):
    """Goes up: every block takes a skip."""

    def forward(self, h: Tensor, temb: Tensor, cemb: Tensor | None, skips: list[Tensor]) -> Tensor:
        for i in range(len(self.blocks)):
            h = self.block(i, torch.cat([h, skips.pop()], dim=1), temb, cemb)
        if self.conv is None:
            return h
        return self.conv(F.interpolate(h, scale_factor=2, mode="nearest"))


class Backbone(nn.Module):
    """Maps features [B, n_in, H, W] and embeddings to [B, n_out, H, W]; networks derive from it."""

    def __init__(
        self,
        style: Style,
        n_in: int,
        n_out: int,
        ch: int,
        ch_mult: Sequence[int],
        num_res_blocks: int,
        attn_levels: Collection[int],
        margin: int = 0,
    ):
        super().__init__()
        self.levels = len(ch_mult)
        self.margin = margin
        last = len(ch_mult) - 1

        def make_blocks(n_ins: list[int], i: int) -> tuple[list[ResBlock], list[Attention]]:
            width = ch * ch_mult[i]
            blocks = [ResBlock(n, width, style) for n in n_ins]
            attns = []
            if i in attn_levels:
                attns = [Attention(width, style) for _ in n_ins]
            return blocks, attns

        # Layers are built in the order in which initial weights were always drawn: the blocks and attentions
        # of a stage, then its conv. n is the number of channels that the next block gets, and skips those of
        # what is left for the way up.
        self.conv_in = conv3(n_in, ch)
        self.down = nn.ModuleList()
        skips = [ch]
        n = ch
        for i in range(len(ch_mult)):
            width = ch * ch_mult[i]
            n_ins = ([n] + [width] * num_res_blocks)[:num_res_blocks]
            if num_res_blocks > 0:
                n = width
            blocks, attns = make_blocks(n_ins, i)
            conv = None
            if i < last:
                conv = Halving(n, style)
            self.down.append(Down(blocks, attns, conv))
            skips += [n] * (num_res_blocks + (i < last))
        self.mid_block1 = ResBlock(n, n, style)
        self.mid_attn = Attention(n, style)
        self.mid_block2 = ResBlock(n, n, style)
        self.up = nn.ModuleList()
        for i in range(last, -1, -1):
            width = ch * ch_mult[i]
            # Each block takes the last skip that is left. The first has the channels of the level below
            # beside it.
            n_ins = [n + skips.pop()]
            n_ins += [width + skips.pop() for _ in range(num_res_blocks)]
            blocks, attns = make_blocks(n_ins, i)
            conv = None
            if i > 0:
                conv = conv3(width, width)
            self.up.append(Up(blocks, attns, conv))
            n = width
        self.norm_out = group_norm(n, style)
        self.conv_out = conv3(n, n_out)

    def run(self, x: Tensor, temb: Tensor, cemb: Tensor | None = None) -> Tensor:
        """Returns the output for x, padded with zeros to a size that can be halved, and cropped after."""
        top, bottom = self.pads(x.shape[-2])
        left, right = self.pads(x.shape[-1])
        h = self.conv_in(F.pad(x.to(self.conv_in.weight.dtype), (left, right, top, bottom)))
        skips = [h]
        for level in self.down:
            h = level(h, temb, cemb, skips)
        h = self.mid_block2(self.mid_attn(self.mid_block1(h, temb, cemb)), temb, cemb)
        for level in self.up:
            h = level(h, temb, cemb, skips)
        h = self.conv_out(F.silu(self.norm_out(h)))
        return h[:, :, top : h.shape[2] - bottom, left : h.shape[3] - right]

    def pads(self, side: int) -> tuple[int, int]:
        """Counts the zeros before and after a side."""
        total = padded_size(side + 2 * self.margin, self.levels) - side
        return total // 2, total - total // 2


def channels_first(x: Tensor) -> Tensor:
    """Turns [B, H, W, ...] into [B, all other axes as one, H, W]."""
    return x.flatten(3).movedim(-1, 1)
