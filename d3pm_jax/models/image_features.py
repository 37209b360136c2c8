"""Defines a network from vectors at pixels to features of each, for the conditioners of a flow of images."""

from typing import Annotated

import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, Key

from d3pm_jax.checks import NOT_EMPTY, Count, Natural, Size, UnitInterval, declared
from d3pm_jax.models.backbone import Backbone
from d3pm_jax.models.layers import Style
from d3pm_jax.models.sequence_features import Features


class UNetFeatures(Features, Backbone):
    """Maps vectors [B, H, W, n] to features [B, H, W, ch] by a U-Net without a time.

    Sizes that cannot be halved often enough are padded with zeros, as in `UNet`.

    Args:
        size: (H, W).
        n_in: numbers of a vector.
        causal: False, as a U-Net sees all pixels.
        ch: width of the first level, and number of features.
        ch_mult: width of each level as a multiple of ch; each level halves the size.
        num_res_blocks: residual blocks per level on the way down, one more on the way up.
        dropout: rate, used when a key is passed.
        groups: of every GroupNorm; divides all widths.
        num_heads: of the attention in the middle.
        rngs: for the initial weights.

    Raises:
        ValueError: an argument is not what it may be; a width is not divisible by groups or num_heads.
    """

    @declared()
    def __init__(
        self,
        size: tuple[Size, Size],
        n_in: Size,
        causal: bool,
        ch: Size = 32,
        ch_mult: Annotated[tuple[Size, ...], NOT_EMPTY] = (1, 2),
        num_res_blocks: Natural = 1,
        dropout: UnitInterval = 0.0,
        groups: Size = 8,
        num_heads: Count = 1,
        *,
        rngs: nnx.Rngs,
    ):
        if causal:
            raise ValueError(
                "causal = True: a U-Net sees all pixels; take LSTMFeatures or TransformerFeatures"
            )
        self.out_features = ch
        # Blocks add an embedding of time, which is one number here, and always 0.
        style = Style(
            rngs,
            init=nnx.initializers.lecun_normal(),
            init_last=nnx.initializers.lecun_normal(),
            init_attention=nnx.initializers.zeros_init(),
            down_pads=(0, 1),
            eps=1e-6,
            groups=groups,
            num_heads=num_heads,
            dropout_rate=dropout,
            n_embedding=1,
            labelled=False,
            dtype=None,
        )
        self._build(style, n_in, ch, ch, ch_mult, num_res_blocks, attn_levels=())

    def __call__(
        self, v: Float[Array, "B H W n"], *, key: Key[Array, ""] | None = None
    ) -> Float[Array, "B H W out_features"]:
        """Returns the features; with a key, dropout is on."""
        no_time = jnp.zeros((len(v), 1), v.dtype)
        return self._run(v, no_time, None, key)
