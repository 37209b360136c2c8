"""The U-Net of D3PM (appendix B.2; Ho et al. 2020), categories in, one vector per pixel out."""

from collections.abc import Iterator

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, Int, Key

from d3pm_jax.models.layers import Attention, GroupNorm, ResBlock, conv3, time_embedding


class Level(nnx.Module):
    """The blocks at one resolution, each followed by attention where asked for, then a resampling conv."""

    def __init__(self, blocks: list[ResBlock], attns: list[Attention], conv: nnx.Conv | None):
        self.blocks = nnx.List(blocks)
        self.attns = nnx.List(attns)
        self.conv = conv

    def block(self, i: int, h: Array, temb: Array, key: Key[Array, ""] | None) -> Array:
        """Block i and its attention."""
        h = self.blocks[i](h, temb, key)
        return self.attns[i](h) if self.attns else h


class UNet(nnx.Module):
    """xt int32 [B, H, W, C], t int32 [B] -> float32 [B, H, W, C, outputs].

    Attention always stands in the middle, as in the official code. At first the output is 0.

    Args:
        K: categories.
        channels: C, the channels of an image.
        size: H = W; attention goes where the running size is one of attn_resolutions.
        max_time: T of the process.
        ch: width of the first level; the time embedding has 4 ch.
        ch_mult: width of each level as a multiple of ch; each level halves the size.
        num_res_blocks: residual blocks per level on the way down, one more on the way up.
        attn_resolutions: sizes at which every block is followed by attention.
        dropout: rate, used when a key is passed.
        groups: of every GroupNorm; divides all widths. The official code has 32.
        onehot_input: besides 2 x / (K - 1) - 1, give the network onehot(x). For categories without
            order, an absorbing mask among them.
        outputs: numbers for each element: K logits by default, 2 for `heads.logistic`.
        rngs: for the initial weights.

    Raises:
        ValueError: size is not divisible by 2^(levels - 1), or a width by groups; ch is odd or below 4.
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
        *,
        rngs: nnx.Rngs,
    ):
        factor = 2 ** (len(ch_mult) - 1)
        if size % factor:
            raise ValueError(
                f"images of size {size} cannot be halved {len(ch_mult) - 1} times: shorten ch_mult"
            )
        if ch < 4 or ch % 2:
            raise ValueError(f"ch = {ch}: the time embedding needs an even width of at least 4")
        self.K, self.ch, self.max_time, self.onehot_input = K, ch, max_time, onehot_input
        self.num_res_blocks, self.outputs = num_res_blocks, K if outputs is None else outputs
        widths = [ch * m for m in ch_mult]
        sizes = [size // 2**i for i in range(len(ch_mult))]

        def res(n_in: int, n_out: int) -> ResBlock:
            return ResBlock(n_in, n_out, 4 * ch, groups, dropout, rngs)

        def attention(level: int) -> list[Attention]:
            return [Attention(widths[level], groups, rngs)] if sizes[level] in attn_resolutions else []

        self.temb1 = nnx.Linear(ch, 4 * ch, rngs=rngs)
        self.temb2 = nnx.Linear(4 * ch, 4 * ch, rngs=rngs)
        self.conv_in = conv3(channels * (1 + K if onehot_input else 1), ch, rngs)
        down, skips, n = [], [ch], ch
        for i, width in enumerate(widths):
            blocks = [res(n if j == 0 else width, width) for j in range(num_res_blocks)]
            attns = [a for _ in blocks for a in attention(i)]
            last = i == len(widths) - 1
            down.append(Level(blocks, attns, None if last else conv3(width, width, rngs, strides=2)))
            skips += [width] * (num_res_blocks + (not last))
            n = width
        self.down = nnx.List(down)
        self.mid_block1, self.mid_attn, self.mid_block2 = res(n, n), Attention(n, groups, rngs), res(n, n)
        up = []
        for i, width in reversed(list(enumerate(widths))):
            blocks = []
            for _ in range(num_res_blocks + 1):
                blocks.append(res(n + skips.pop(), width))
                n = width
            attns = [a for _ in blocks for a in attention(i)]
            up.append(Level(blocks, attns, conv3(width, width, rngs) if i else None))
        self.up = nnx.List(up)
        self.norm_out = GroupNorm(n, groups)
        self.conv_out = conv3(n, channels * self.outputs, rngs, zero=True)

    def __call__(
        self, xt: Int[Array, "B H W C"], t: Int[Array, " B"], *, key: Key[Array, ""] | None = None
    ) -> Float[Array, "B H W C outputs"]:
        """The output for x_t at step t; with a key, dropout is on."""
        keys = _keys(key)
        temb = self.temb2(nnx.swish(self.temb1(time_embedding(t, self.ch, self.max_time))))
        h = self.conv_in(self._input(xt))
        skips = [h]
        for level in self.down:
            for i in range(len(level.blocks)):
                h = level.block(i, h, temb, next(keys))
                skips.append(h)
            if level.conv is not None:
                h = level.conv(h)
                skips.append(h)
        h = self.mid_block1(h, temb, next(keys))
        h = self.mid_block2(self.mid_attn(h), temb, next(keys))
        for level in self.up:
            for i in range(len(level.blocks)):
                h = level.block(i, jnp.concatenate([h, skips.pop()], axis=-1), temb, next(keys))
            if level.conv is not None:
                h = level.conv(_double(h))
        return self.conv_out(nnx.swish(self.norm_out(h))).reshape(*xt.shape, self.outputs)

    def _input(self, xt: Array) -> Array:
        """Categories as numbers in [-1, 1], and one-hot where asked for, channels last."""
        scaled = xt * (2.0 / (self.K - 1)) - 1.0
        if not self.onehot_input:
            return scaled
        onehot = jax.nn.one_hot(xt.astype(jnp.int32), self.K).reshape(*xt.shape[:3], -1)
        return jnp.concatenate([scaled, onehot], axis=-1)


def _keys(key: Key[Array, ""] | None) -> Iterator[Key[Array, ""] | None]:
    """A key for each block in turn, or None for ever."""
    i = 0
    while True:
        yield None if key is None else jax.random.fold_in(key, i)
        i += 1


def _double(x: Float[Array, "B H W C"]) -> Float[Array, "B H2 W2 C"]:
    """Nearest-neighbour upsampling by 2."""
    return jnp.repeat(jnp.repeat(x, 2, axis=1), 2, axis=2)
