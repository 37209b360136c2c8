"""The U-Net of D3PM (appendix B.2), categories in, one vector per pixel out."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from torch_ref.models.layers import Attention, ResBlock, conv3, group_norm, pad_end, time_embedding


class Level(nn.Module):
    """The blocks at one resolution, each followed by attention where asked for, then a resampling conv."""

    def __init__(self, blocks: list[ResBlock], attns: list[Attention], conv: nn.Conv2d | None):
        super().__init__()
        self.blocks = nn.ModuleList(blocks)
        self.attns = nn.ModuleList(attns)
        self.conv = conv

    def block(self, i: int, h: Tensor, temb: Tensor) -> Tensor:
        """Block i and its attention."""
        h = self.blocks[i](h, temb)
        return self.attns[i](h) if len(self.attns) else h


class Down(Level):
    """Every block and the conv leave a skip."""

    def forward(self, h: Tensor, temb: Tensor, skips: list[Tensor]) -> Tensor:
        for i in range(len(self.blocks)):
            h = self.block(i, h, temb)
            skips.append(h)
        if self.conv is not None:
            h = self.conv(pad_end(h))
            skips.append(h)
        return h


class Up(Level):
    """Every block takes a skip."""

    def forward(self, h: Tensor, temb: Tensor, skips: list[Tensor]) -> Tensor:
        for i in range(len(self.blocks)):
            h = self.block(i, torch.cat([h, skips.pop()], dim=1), temb)
        return h if self.conv is None else self.conv(F.interpolate(h, scale_factor=2, mode="nearest"))


class UNet(nn.Module):
    """xt [B, H, W, C], t [B] -> [B, H, W, C, outputs]; parameters as in d3pm_jax.models.UNet.

    Its initial weights are PyTorch's: load others, for example those of `d3pm_jax.models.convert.to_torch`.
    """

    def __init__(
        self,
        K: int,
        channels: int,
        size: int,
        max_time: int,
        ch: int = 128,
        ch_mult: tuple[int, ...] = (1, 2, 2, 2),
        num_res_blocks: int = 2,
        attn_resolutions: tuple[int, ...] = (16,),
        dropout: float = 0.1,
        groups: int = 32,
        onehot_input: bool = False,
        outputs: int | None = None,
    ):
        super().__init__()
        self.K, self.ch, self.max_time, self.onehot_input = K, ch, max_time, onehot_input
        self.outputs = K if outputs is None else outputs
        n_time, last = 4 * ch, len(ch_mult) - 1

        def blocks(n_ins: list[int], i: int) -> tuple[list[ResBlock], list[Attention]]:
            width, attended = ch * ch_mult[i], size // 2**i in attn_resolutions
            res = [ResBlock(n, width, n_time, groups, dropout) for n in n_ins]
            return res, [Attention(width, groups) for _ in n_ins if attended]

        self.temb1 = nn.Linear(ch, n_time)
        self.temb2 = nn.Linear(n_time, n_time)
        self.conv_in = conv3(channels * (1 + K if onehot_input else 1), ch)
        self.down, skips, n = nn.ModuleList(), [ch], ch
        for i, width in enumerate(ch * m for m in ch_mult):
            conv = conv3(width, width, strides=2) if i < last else None
            self.down.append(Down(*blocks([n] + [width] * (num_res_blocks - 1), i), conv))
            skips += [width] * (num_res_blocks + (i < last))
            n = width
        self.mid_block1 = ResBlock(n, n, n_time, groups, dropout)
        self.mid_attn = Attention(n, groups)
        self.mid_block2 = ResBlock(n, n, n_time, groups, dropout)
        self.up = nn.ModuleList()
        for i in range(last, -1, -1):
            width = ch * ch_mult[i]
            n_ins = [(n if j == 0 else width) + skips.pop() for j in range(num_res_blocks + 1)]
            self.up.append(Up(*blocks(n_ins, i), conv3(width, width) if i else None))
            n = width
        self.norm_out = group_norm(n, groups)
        self.conv_out = conv3(n, channels * self.outputs)

    def forward(self, xt: Tensor, t: Tensor) -> Tensor:
        temb = self.temb2(F.silu(self.temb1(time_embedding(t, self.ch, self.max_time))))
        h = self.conv_in(self._input(xt))
        skips = [h]
        for level in self.down:
            h = level(h, temb, skips)
        h = self.mid_block2(self.mid_attn(self.mid_block1(h, temb)), temb)
        for level in self.up:
            h = level(h, temb, skips)
        h = self.conv_out(F.silu(self.norm_out(h)))
        return h.movedim(1, -1).reshape(*xt.shape, self.outputs)

    def _input(self, xt: Tensor) -> Tensor:
        """Categories as numbers in [-1, 1], and one-hot where asked for, [B, channels, H, W]."""
        scaled = xt.to(torch.get_default_dtype()) * (2.0 / (self.K - 1)) - 1.0
        if self.onehot_input:
            onehot = F.one_hot(xt, self.K).flatten(3).to(scaled.dtype)
            scaled = torch.cat([scaled, onehot], dim=-1)
        return scaled.movedim(-1, 1)
