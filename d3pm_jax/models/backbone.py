"""Holds what the networks share: residual blocks down and up through halved sizes, with skips."""

import dataclasses
from collections.abc import Collection, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, Key

from d3pm_jax.models.layers import Attention, ResBlock, Style, conv_doubled, split_by_layer
from d3pm_jax.numerics.logspace import at_least_float32


def padded_size(size: int, levels: int) -> int:
    """Returns the smallest multiple of 2^(levels - 1) not below size: it can be halved levels - 1 times."""
    factor = 2 ** (levels - 1)
    return -(-size // factor) * factor


class Stage(nnx.Module):
    """Holds the blocks of one resolution, the attention after each if there is any, and a resampling conv."""

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

        widths = [ch * multiple for multiple in ch_mult]
        self.levels = len(widths)
        self.margin = margin
        self.remat = remat

        def attentions(level: int, count: int) -> list[Attention]:
            if level not in attn_levels:
                return []
            return [Attention(widths[level], style) for _ in range(count)]

        # Every layer draws its weights where it is made, so the order of these lines is that of the draws:
        # another order would make other networks of the same seed.
        self.conv_in = style.conv3(n_in, ch)
        down = []
        # Features of the arrays that the way up takes from the way down, the last one first.
        skips = [ch]
        n = ch
        last_level = len(widths) - 1
        for level, width in enumerate(widths):
            blocks = []
            for _ in range(num_res_blocks):
                blocks.append(ResBlock(n, width, style))
                n = width
                skips.append(n)
            attns = attentions(level, len(blocks))
            if level == last_level:
                down.append(Stage(blocks, attns, None))
            else:
                down.append(Stage(blocks, attns, style.conv_halving(n)))
                skips.append(n)
        self.down = nnx.List(down)

        self.mid_block1 = ResBlock(n, n, style)
        self.mid_attn = Attention(n, style)
        self.mid_block2 = ResBlock(n, n, style)

        up = []
        for level in reversed(range(len(widths))):
            width = widths[level]
            blocks = []
            for _ in range(num_res_blocks + 1):
                blocks.append(ResBlock(n + skips.pop(), width, style))
                n = width
            attns = attentions(level, len(blocks))
            if level == 0:
                up.append(Stage(blocks, attns, None))
            else:
                up.append(Stage(blocks, attns, style.conv3(width, width)))
        self.up = nnx.List(up)

        self.norm_out = style.norm(n)
        # The last layer computes in the type of the parameters, whatever the type of the activations is.
        self.conv_out = dataclasses.replace(style, dtype=None).conv3(n, n_out, style.init_last)

    def _run(
        self, x: Float[Array, "B H W n"], temb: Array, cemb: Array | None, key: Key[Array, ""] | None
    ) -> Float[Array, "B H W m"]:
        """Returns the output, float32 or wider; with a key, dropout is on."""
        keys = split_by_layer(key)
        H, W = x.shape[1:3]
        rows = self._pads(H)
        columns = self._pads(W)
        h = self.conv_in(jnp.pad(x, ((0, 0), rows, columns, (0, 0))))  # [B, padded H, padded W, ch]
        skips = [h]
        for stage in self.down:
            for i in range(len(stage.blocks)):
                h = self._apply_block(stage, i, h, temb, cemb, next(keys))
                skips.append(h)
            if stage.conv is not None:
                h = stage.conv(h)
                skips.append(h)

        h = self._apply(self.mid_block1, h, temb, cemb, next(keys))
        h = self._apply(self.mid_attn, h)
        h = self._apply(self.mid_block2, h, temb, cemb, next(keys))

        for stage in self.up:
            for i in range(len(stage.blocks)):
                h = join_features(h, skips.pop())
                h = self._apply_block(stage, i, h, temb, cemb, next(keys))
            if stage.conv is not None:
                h = conv_doubled(stage.conv, h)
        h = self.conv_out(at_least_float32(self.norm_out.swish(h)))
        return h[:, rows[0] : rows[0] + H, columns[0] : columns[0] + W]

    def _apply_block(self, stage: Stage, i: int, h: Array, *args: Array | None) -> Array:
        """Applies block i of a stage and the attention after it, if there is any."""
        h = self._apply(stage.blocks[i], h, *args)
        if stage.attns:
            h = self._apply(stage.attns[i], h)
        return h

    def _apply(self, layer: Any, *args: Array | None) -> Array:
        """Returns layer(*args); where `remat` is True the backward pass computes the layer again."""
        if self.remat:
            return nnx.remat(type(layer).__call__)(layer, *args)
        return layer(*args)

    def _pads(self, side: int) -> tuple[int, int]:
        """Counts the zeros before and after a side: the margin, and padding to a size that fits."""
        total = padded_size(side + 2 * self.margin, self.levels) - side
        return total // 2, total - total // 2


def join_features(h: Float[Array, "B H W n"], skip: Float[Array, "B H W m"]) -> Float[Array, "B H W n+m"]:
    """Returns the features of two layers as those of one."""
    joined = jnp.concatenate([h, skip], axis=-1)
    # XLA would join them once more inside of each kernel that reads them, and for a card that is only
    # described it finds no tiles for such a product of 64 x 14 x 14 rows, the gradient of a linear map. What
    # comes out of a barrier is one array in memory.
    return jax.lax.platform_dependent(joined, cpu=lambda x: x, default=jax.lax.optimization_barrier)
