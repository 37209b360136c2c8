"""Holds MNISTScoreNet, the U-Net of a Dirichlet diffusion score model on binary MNIST, as logits of x_0.

A U-Net of the DDPM kind in PyTorch's habits, with random Fourier features of time (Song et al. 2021) and
the output of a score on the simplex (Avdeyev et al. 2023): centred over the categories, and scaled with t.
"""

from functools import partial
from typing import Annotated

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, Int, Key, Real

from d3pm_jax.checks import NOT_EMPTY, Categories, Count, FloatType, Natural, Size, UnitInterval, declared
from d3pm_jax.models.attention import Form
from d3pm_jax.models.backbone import Backbone
from d3pm_jax.models.layers import CATEGORIES, LABELS, TIMES, Style, check_channels, class_embedding

# The standard deviation of the random frequencies of time, as in the original.
FOURIER_SCALE = 30.0


class ScoreNet(Backbone):
    """Maps xt int32 [B, H, W, C], t and label int32 [B] to float32 [B, H, W, C, K], of mean 0 over K.

    The input is onehot(x_t) with two rows and columns of zeros around it, so 28 becomes 32, and more along
    an axis where that is no multiple of 2^(levels - 1). Attention always stands in the middle. At first the
    output is near 0.

    Args:
        K: categories; the original has 2.
        channels: C, the channels of an image.
        max_time: T of the process.
        ch: width of the first level; the time embedding has 4 ch.
        ch_mult: width of each level as a multiple of ch; each level halves the padded size.
        attn: levels, from 0, at which every block is followed by attention.
        num_res_blocks: residual blocks per level on the way down, one more on the way up.
        dropout: rate, used when a key is passed.
        time_dependent_weights: n numbers, at least 2, that the output is multiplied by: number i = 1..n
            at t = i T / n, linear between, constant before the first. With n = T, number t at t. 1 without.
        groups: of every GroupNorm; divides all widths. The original has 32.
        dtype: of the computation, as in `UNet`.
        num_classes: of the labels, if there are any, as in `UNet`; the original has none.
        num_heads: of every attention; divides the widths that have one. The original has 1.
        remat: keep only the input of each block for the backward pass, and compute the rest again.
        attention: form of attention on a GPU or TPU, see `choose_form`; None: the best one.
        rngs: for the initial weights and for the frequencies of the time embedding, which are saved with
            the weights and never trained.

    Raises:
        ValueError: an argument is not what it may be; a width is not divisible by groups or num_heads; attn
            holds no level; the device does not allow the form of attention; fewer than 2 weights.
    """

    @declared()
    def __init__(
        self,
        K: Categories,
        channels: Size,
        max_time: Count,
        ch: Size = 32,
        ch_mult: Annotated[tuple[Size, ...], NOT_EMPTY] = (1, 2, 2),
        attn: tuple[Natural, ...] = (1,),
        num_res_blocks: Natural = 2,
        dropout: UnitInterval = 0.1,
        time_dependent_weights: tuple[float, ...] | None = None,
        groups: Size = 32,
        dtype: FloatType = None,
        num_classes: Count | None = None,
        num_heads: Count = 1,
        *,
        remat: bool = False,
        attention: Form | None = None,
        rngs: nnx.Rngs,
    ):
        levels = len(ch_mult)
        missing_levels = [level for level in attn if not 0 <= level < levels]
        if missing_levels:
            raise ValueError(f"attn holds {missing_levels}, but the levels of ch_mult are 0..{levels - 1}")
        if time_dependent_weights is not None and len(time_dependent_weights) < 2:
            raise ValueError(
                f"{len(time_dependent_weights)} time_dependent_weights: pass at least 2, or None for none"
            )
        self.K = K
        self.channels = channels
        self.max_time = max_time
        self.num_classes = num_classes
        self.time_dependent_weights = time_dependent_weights
        xavier = nnx.initializers.xavier_uniform()
        # Xavier with a gain of 1e-5: a variance of 1e-10.
        xavier_small = nnx.initializers.variance_scaling(1e-10, "fan_avg", "uniform")
        style = Style(
            rngs,
            init=xavier,
            init_last=xavier_small,
            init_attention=xavier,
            down_pads=(1, 1),
            eps=1e-5,
            groups=groups,
            num_heads=num_heads,
            dropout_rate=dropout,
            n_embedding=4 * ch,
            labelled=num_classes is not None,
            dtype=dtype,
            attention=attention,
        )
        self.frequencies = nnx.Param(FOURIER_SCALE * jax.random.normal(rngs(), (2 * ch,)))
        # The original leaves the weights of the embeddings as PyTorch makes them.
        torch_init = nnx.initializers.variance_scaling(1 / 3, "fan_in", "uniform")
        embedding = partial(nnx.Linear, out_features=4 * ch, kernel_init=torch_init, rngs=rngs)
        self.temb = embedding(4 * ch)
        self.class_emb = None if num_classes is None else embedding(num_classes)
        self._build(
            style,
            n_in=channels * K,
            n_out=channels * K,
            ch=ch,
            ch_mult=ch_mult,
            num_res_blocks=num_res_blocks,
            attn_levels=attn,
            margin=2,
            remat=remat,
        )

    # The output has no names of places: a wrong category anywhere in an image marks all of its output.
    @declared(xt=CATEGORIES, t=TIMES, label=LABELS)
    def __call__(
        self,
        xt: Int[Array, "B H W C"],
        t: Real[Array, " #B"],
        *,
        label: Int[Array, " #B"] | None = None,
        key: Key[Array, ""] | None = None,
    ) -> Float[Array, "B *S K"]:
        """Returns the logits for images x_t of some classes at step t, which may lie between two steps.

        With a key, dropout is on.

        Raises:
            ValueError: a category, step or label is out of range, where it is known: under `jit` the output
                of such an example is NaN; channels are not last; there are labels but no num_classes.
        """
        check_channels(xt, self.channels)
        cemb = class_embedding(self.class_emb, label, len(xt))
        # The frequencies are drawn once and saved with the weights, and never trained.
        frequencies = jax.lax.stop_gradient(self.frequencies[...])
        angles = (t.astype(float) / self.max_time)[:, None] * frequencies[None] * (2 * jnp.pi)  # [B, 2 ch]
        temb = self.temb(jnp.concatenate([jnp.sin(angles), jnp.cos(angles)], axis=1))
        onehot = jax.nn.one_hot(xt, self.K).reshape(*xt.shape[:3], -1)  # [B, H, W, C K]
        logits = self._run(onehot, temb, cemb, key).reshape(*xt.shape, self.K)
        logits = logits - logits.mean(axis=-1, keepdims=True)
        if self.time_dependent_weights is None:
            return logits
        n = len(self.time_dependent_weights)
        position = t.astype(float) * (n / self.max_time)  # in (0, n]
        weights = jnp.interp(position, jnp.arange(1.0, n + 1), jnp.array(self.time_dependent_weights))  # [B]
        return logits * weights[:, None, None, None, None]
