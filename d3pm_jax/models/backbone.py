"""Holds what the networks share: residual blocks down and up through halved sizes, with skips."""

import dataclasses
import itertools
from collections.abc import Collection, Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, Key

from d3pm_jax.models.layers import Attention, ResBlock, Style, at_least_float32, conv_doubled


def padded_size(size: int, levels: int) -> int:
    """Returns the smallest multiple of 2^(levels - 1) not below size: it can be halved levels - 1 times."""
    factor = 2 ** (levels - 1)
    return -(-size // factor) * factor


class Stage(nnx.Module):
    """Holds the blocks at one resolution, each followed by attention if there is any; a resampling conv."""

    def __init__(self, blocks: list[ResBlock], attns: list[Attention], conv: nnx.Conv | None):
        self.blocks = nnx.List(blocks)
        self.attns = nnx.List(attns)
        self.conv = conv


class Backbone(nnx.Module):
    """Maps features [B, H, W, n_in] and embeddings to [B, H, W, n_out]; networks derive from it."""

    def _build(
        self,
        style: Style,
        n_in: int,
        n_out: int,
        ch: int,
        ch_mult: Sequence[int],
        num_res_blocks: int,
        attn_levels: Collection[int],
        margin: int = 0,
        remat: bool = False,
    ) -> None:
        """Makes the layers.

        Args:
            style: of all layers.
            n_in, n_out: features of the input and of the output.
            ch: features after conv_in.
            ch_mult: features of each level as a multiple of ch.
            num_res_blocks: residual blocks per level on the way down, one more on the way up. With 0 there
                are ch features all the way down.
            attn_levels: levels at which every block is followed by attention; the middle always has one.
            margin: rows and columns of zeros around the input, before it is padded to a size that fits.
            remat: keep only the input of each block and attention for the backward pass.
        """

        def attns(level: int, count: int) -> list[Attention]:
            return [Attention(widths[level], style) for _ in range(count) if level in attn_levels]

        widths, n = [ch * m for m in ch_mult], ch
        self.levels, self.margin, self.remat = len(widths), margin, remat
        self.conv_in = style.conv3(n_in, ch)
        down, skips = [], [ch]
        for i, width in enumerate(widths):
            blocks = [ResBlock(n if j == 0 else width, width, style) for j in range(num_res_blocks)]
            last, n = i == len(widths) - 1, width if blocks else n
            down.append(Stage(blocks, attns(i, len(blocks)), None if last else style.halving(n)))
            skips += [n] * (num_res_blocks + (not last))
        self.down = nnx.List(down)
        self.mid_block1, self.mid_attn = ResBlock(n, n, style), Attention(n, style)
        self.mid_block2 = ResBlock(n, n, style)
        up = []
        for i, width in reversed(list(enumerate(widths))):
            n_ins = [(n if j == 0 else width) + skips.pop() for j in range(num_res_blocks + 1)]
            blocks = [ResBlock(n_in, width, style) for n_in in n_ins]
            up.append(Stage(blocks, attns(i, len(blocks)), style.conv3(width, width) if i else None))
            n = width
        self.up = nnx.List(up)
        self.norm_out = style.norm(n)
        self.conv_out = dataclasses.replace(style, dtype=None).conv3(n, n_out, style.init_last)

    def _run(
        self, x: Float[Array, "B H W n"], temb: Array, cemb: Array | None, key: Key[Array, ""] | None
    ) -> Float[Array, "B H W m"]:
        """Returns the output, float32 or wider; with a key, dropout is on."""
        keys: Iterator[Any] = itertools.repeat(None)  # for each block in turn
        if key is not None:
            keys = (jax.random.fold_in(key, i) for i in itertools.count())
        H, W = x.shape[1:3]
        rows, columns = self._pads(H), self._pads(W)
        h = self.conv_in(jnp.pad(x, ((0, 0), rows, columns, (0, 0))))
        skips = [h]
        for level in self.down:
            for i in range(len(level.blocks)):
                h = self._block(level, i, h, temb, cemb, next(keys))
                skips.append(h)
            if level.conv is not None:
                h = level.conv(h)
                skips.append(h)
        h = self._apply(self.mid_block1, h, temb, cemb, next(keys))
        h = self._apply(self.mid_block2, self._apply(self.mid_attn, h), temb, cemb, next(keys))
        for level in self.up:
            for i in range(len(level.blocks)):
                h = self._block(level, i, jnp.concatenate([h, skips.pop()], axis=-1), temb, cemb, next(keys))
            if level.conv is not None:
                h = conv_doubled(level.conv, h)
        h = self.conv_out(at_least_float32(nnx.swish(self.norm_out(h))))
        return h[:, rows[0] : rows[0] + H, columns[0] : columns[0] + W]

    def _block(self, level: Stage, i: int, h: Array, *more: Array | None) -> Array:
        """Applies block i of a level and its attention."""
        h = self._apply(level.blocks[i], h, *more)
        return self._apply(level.attns[i], h) if level.attns else h

    def _apply(self, layer: nnx.Module, *args: Array | None) -> Array:
        """Returns layer(*args), with remat such that the backward pass computes its inside again."""
        return nnx.remat(_call)(layer, *args) if self.remat else _call(layer, *args)

    def _pads(self, side: int) -> tuple[int, int]:
        """Returns how many zeros come before and after a side: the margin, and up to a size that fits."""
        total = padded_size(side + 2 * self.margin, self.levels) - side
        return total // 2, total - total // 2


def _call(layer: Any, *args: Array | None) -> Array:
    return layer(*args)
