"""Defines the U-Net of D3PM (appendix B.2; Ho et al. 2020), from categories to a vector for each pixel."""

from typing import Annotated

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, Int, Key, Real

from d3pm_jax.checks import (
    FINITE,
    LARGEST_SIZE,
    NOT_EMPTY,
    Categories,
    Count,
    Epsilon,
    FloatType,
    Interval,
    Natural,
    Size,
    UnitInterval,
    declared,
)
from d3pm_jax.models.attention import Form
from d3pm_jax.models.backbone import Backbone, padded_size
from d3pm_jax.models.layers import (
    CATEGORIES,
    LABELS,
    TIMES,
    Style,
    check_channels,
    check_condition,
    check_enlarges,
    class_embedding,
    enlarge,
    time_embedding,
)


class UNet(Backbone):
    """Maps xt int32 [B, H, W, C], t int32 [B], label int32 [B] to float32 [B, H, W, C, outputs].

    Attention always stands in the middle, as in the official code. At first the output is 0. Sizes that
    cannot be halved often enough are padded with zeros, as evenly on both sides as can be.

    Args:
        K: categories.
        channels: C, the channels of an image.
        size: (H, W), or one number for both.
        max_time: T of the process; the embedding of time sees 1000 (t - 1) / max_time, whatever T.
        ch: width of the first level; the time embedding has 4 ch.
        ch_mult: width of each level as a multiple of ch; each level halves the size, padded to a
            multiple of 2^(levels - 1).
        num_res_blocks: residual blocks per level on the way down, one more on the way up. With 0 the width
            is ch all the way down, as in the official code.
        attn_resolutions: sizes of the larger side, after the padding, at which every block is followed
            by attention.
        dropout: rate, used when a key is passed.
        groups: of every GroupNorm; divides all widths. The official code has 32.
        channels_per_group: a layer of C channels has min(C // channels_per_group, groups) groups.
        attention_eps: of the GroupNorm of attention, where it is not that of the others, 1e-6.
        input_range: numbers that the input has as -1 and 1, in place of 0 and K - 1: (0, 255) in the
            official code, whatever K.
        onehot_input: besides 2 x / (K - 1) - 1, give the network onehot(x). For categories without
            order, an absorbing mask among them.
        outputs: numbers for each element in place of K logits: 2 for `heads.logistic`. As in the official
            code, the last layer has the first number of every channel before the second of any, but
            keeps the logits of a channel together.
        num_classes: of the labels, if there are any. Called without labels, such a network sees the bias
            of class_emb alone, an all-zero one-hot.
        num_heads: of every attention; divides the widths that have one. The official code's default is 1.
        condition: shape of what an image is conditioned on besides its class, if there is anything. For a
            vector (D,) a linear map to the width of the time embedding, `condition`, is added to that
            embedding. An image (h, w, c) is enlarged to H x W by nearest neighbours and joined to the
            channels of the input, after those of x_t; h divides H and w divides W. Numbers are taken as they
            are, integers too.
        remat: keep only the input of each block for the backward pass, and compute the rest again.
        attention: form of attention on a GPU or TPU, see `choose_form`; None: the best one.
        dtype: of the computation, that of the parameters by default. In bfloat16 the parameters, the
            embeddings, the statistics of GroupNorm, the softmax and the last layer stay float32.
        rngs: for the initial weights.

    Raises:
        ValueError: an argument is not what it may be; a width is not divisible by groups or num_heads; ch is
            odd or below 4; input_range does not grow; condition is neither a vector nor an image whose size
            divides `size`; the device does not allow the form of attention.
    """

    @declared()
    def __init__(
        self,
        K: Categories,
        channels: Size,
        size: Size | tuple[Size, Size],
        max_time: Count,
        ch: Size = 128,
        ch_mult: Annotated[tuple[Size, ...], NOT_EMPTY] = (1, 2, 2, 2),
        num_res_blocks: Natural = 2,
        attn_resolutions: tuple[Size, ...] = (16,),
        dropout: UnitInterval = 0.1,
        groups: Size = 32,
        onehot_input: bool = False,
        outputs: Size | None = None,
        num_classes: Count | None = None,
        dtype: FloatType = None,
        num_heads: Count = 1,
        *,
        channels_per_group: Count | None = None,
        attention_eps: Epsilon | None = None,
        input_range: Interval | None = None,
        condition: tuple[int, ...] | None = None,
        remat: bool = False,
        attention: Form | None = None,
        rngs: nnx.Rngs,
    ):
        if isinstance(size, int):
            size = (size, size)
        if ch < 4 or ch % 2:
            raise ValueError(f"ch = {ch}: the time embedding needs an even width of at least 4")
        if condition is not None:
            _check_condition_shape(condition, size)
        self.K = K
        self.channels = channels
        self.ch = ch
        self.max_time = max_time
        self.onehot_input = onehot_input
        self.outputs = outputs
        self.num_classes = num_classes
        self.condition_shape = condition
        # A condition is an image that is joined to the input, or else a vector.
        self.joins_condition = condition is not None and len(condition) == 3
        self.least, self.greatest = input_range or (0, K - 1)

        # As in the official code the last convolutions of blocks begin at 0, so that a block begins as its
        # shortcut, and eps is the one that Flax has by default.
        zeros = nnx.initializers.zeros_init()
        style = Style(
            rngs,
            init=nnx.initializers.lecun_normal(),
            init_last=zeros,
            init_attention=zeros,
            down_pads=(0, 1),
            eps=1e-6,
            groups=groups,
            num_heads=num_heads,
            dropout_rate=dropout,
            n_embedding=4 * ch,
            labelled=num_classes is not None,
            dtype=dtype,
            channels_per_group=channels_per_group,
            attention_eps=attention_eps,
            attention=attention,
        )
        self.temb1 = nnx.Linear(ch, 4 * ch, rngs=rngs)
        self.temb2 = nnx.Linear(4 * ch, 4 * ch, rngs=rngs)
        self.class_emb = None if num_classes is None else nnx.Linear(num_classes, 4 * ch, rngs=rngs)

        n_in = channels * (1 + K) if onehot_input else channels
        if condition is not None and self.joins_condition:
            n_in += condition[-1]
        levels = len(ch_mult)
        # `attn_resolutions` names sizes after the padding: the padded size, its half, and so on.
        padded_side = padded_size(max(size), levels)
        self._build(
            style,
            n_in=n_in,
            n_out=channels * (outputs or K),
            ch=ch,
            ch_mult=ch_mult,
            num_res_blocks=num_res_blocks,
            attn_levels=[level for level in range(levels) if padded_side // 2**level in attn_resolutions],
            remat=remat,
        )
        # It draws its weights last, so that all others are those of the network of the same seed without it.
        if condition is None or self.joins_condition:
            self.condition = None
        else:
            self.condition = nnx.Linear(condition[0], 4 * ch, rngs=rngs)

    # The output has no names of places: a wrong category anywhere in an image marks all of its output.
    @declared(xt=CATEGORIES, t=TIMES, label=LABELS, condition=FINITE)
    def __call__(
        self,
        xt: Int[Array, "B H W C"],
        t: Real[Array, " #B"],
        *,
        label: Int[Array, " #B"] | None = None,
        condition: Real[Array, " B *D"] | None = None,
        key: Key[Array, ""] | None = None,
    ) -> Float[Array, "B *S outputs"]:
        """Returns the output of the network for images x_t of some classes at step t; a key turns dropout on.

        Raises:
            ValueError: a category, step or label is out of range, where it is known: under `jit` the output
                of such an example is NaN; channels are not last; there are labels but no num_classes; the
                condition is not of the shape that the network is for, is missing, or the network takes none.
        """
        check_channels(xt, self.channels)
        check_condition(condition, self.condition_shape, len(xt))
        temb = self.temb1(time_embedding(t, self.ch, self.max_time))  # [B, 4 ch]
        temb = self.temb2(nnx.swish(temb))
        if condition is not None and self.condition is not None:
            temb = temb + self.condition(condition.astype(temb.dtype))
        cemb = class_embedding(self.class_emb, label, len(xt))
        x = (xt - self.least) * (2.0 / (self.greatest - self.least)) - 1.0  # [B, H, W, C], in [-1, 1]
        if self.onehot_input:
            onehot = jax.nn.one_hot(xt.astype(jnp.int32), self.K).reshape(*xt.shape[:3], -1)  # [B, H, W, C K]
            x = jnp.concatenate([x, onehot], axis=-1)
        if condition is not None and self.joins_condition:
            enlarged = enlarge(condition, *xt.shape[1:3])  # [B, H, W, c]
            x = jnp.concatenate([x, enlarged.astype(x.dtype)], axis=-1)
        output = self._run(x, temb, cemb, key)  # [B, H, W, C outputs]
        if self.outputs is None:
            return output.reshape(*xt.shape, self.K)
        # The official code has the first number of all channels, then the second of all.
        return jnp.stack(jnp.split(output, self.outputs, axis=-1), axis=-1)


def _check_condition_shape(condition: tuple[int, ...], size: tuple[int, int]) -> None:
    """Raises ValueError unless it is the shape of a vector, or of an image that can be enlarged to size."""
    if len(condition) not in (1, 3) or min(condition) < 1 or max(condition) > LARGEST_SIZE:
        raise ValueError(
            f"condition = {condition}: it must be a vector (D,) or an image (h, w, c), of sizes of at least 1"
        )
    if len(condition) == 3:
        check_enlarges(condition[:2], size)
