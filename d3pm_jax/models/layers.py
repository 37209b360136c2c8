"""The layers of the U-Net, images as [B, H, W, C]."""

from functools import partial

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, Int, Key

ZERO = nnx.initializers.zeros_init()


@partial(jax.custom_vjp, nondiff_argnums=(3, 4))
def group_norm(
    x: Float[Array, "B H W C"], scale: Float[Array, " C"], bias: Float[Array, " C"], groups: int, eps: float
) -> Float[Array, "B H W C"]:
    """Group normalisation (Wu and He 2018) with a backward pass of two reads of x, written by hand.

    Automatic differentiation of the formula stores and rereads several arrays of the size of x, which
    makes a whole training step half as long again on a CPU.

    Args:
        x: images.
        scale, bias: per channel.
        groups: divides C.
        eps: added to the variance.

    Returns:
        x with mean 0 and variance 1 over each group of each image, times scale plus bias.
    """
    return _group_norm_fwd(x, scale, bias, groups, eps)[0]


def _per_pixel(coefficient: Array) -> Array:
    return coefficient[:, None, None, :]


def _group_mean(per_channel: Array, groups: int, pixels: int) -> Array:
    """Sums per channel [B, C] to the mean over each group, again per channel."""
    B, C = per_channel.shape
    mean = per_channel.reshape(B, groups, C // groups).sum(-1) * (groups / (C * pixels))
    return jnp.repeat(mean, C // groups, axis=1)


def _group_norm_fwd(x, scale, bias, groups, eps):
    pixels = x.shape[1] * x.shape[2]
    mean = _group_mean(jnp.sum(x, axis=(1, 2)), groups, pixels)
    variance = _group_mean(jnp.sum((x - _per_pixel(mean)) ** 2, axis=(1, 2)), groups, pixels)
    inverse = jax.lax.rsqrt(variance + eps)
    y = (x - _per_pixel(mean)) * _per_pixel(inverse * scale[None]) + bias[None, None, None]
    return y, (x, scale, mean, inverse)


def _group_norm_bwd(groups, eps, residuals, g):
    x, scale, mean, inverse = residuals
    pixels = x.shape[1] * x.shape[2]
    centred = x - _per_pixel(mean)
    sum_g = jnp.sum(g, axis=(1, 2))
    sum_gx = jnp.sum(g * centred, axis=(1, 2)) * inverse
    mean_g = _group_mean(sum_g * scale[None], groups, pixels)
    mean_gx = _group_mean(sum_gx * scale[None], groups, pixels)
    dx = _per_pixel(inverse) * (
        g * scale[None, None, None] - _per_pixel(mean_g) - centred * _per_pixel(inverse * mean_gx)
    )
    return dx, sum_gx.sum(0), sum_g.sum(0)


group_norm.defvjp(_group_norm_fwd, _group_norm_bwd)


class GroupNorm(nnx.Module):
    """`group_norm` with its parameters."""

    def __init__(self, channels: int, groups: int):
        if groups < 1 or channels % groups:
            raise ValueError(f"{channels} channels do not divide into {groups} groups: change ch or groups")
        self.scale = nnx.Param(jnp.ones(channels))
        self.bias = nnx.Param(jnp.zeros(channels))
        self.groups = groups

    def __call__(self, x: Float[Array, "B H W C"]) -> Float[Array, "B H W C"]:
        return group_norm(x, self.scale[...], self.bias[...], self.groups, 1e-6)


def conv3(n_in: int, n_out: int, rngs: nnx.Rngs, strides: int = 1, zero: bool = False) -> nnx.Conv:
    """A 3 x 3 convolution with SAME padding: (0, 1) at stride 2 on even sizes."""
    init = ZERO if zero else nnx.initializers.lecun_normal()
    return nnx.Conv(n_in, n_out, (3, 3), strides=strides, padding="SAME", kernel_init=init, rngs=rngs)


def dropout(x: Array, rate: float, key: Key[Array, ""] | None) -> Array:
    """x with entries zeroed with probability rate and the rest scaled up; x itself without a key."""
    if key is None or rate == 0.0:
        return x
    keep = jax.random.bernoulli(key, 1.0 - rate, x.shape)
    return jnp.where(keep, x / (1.0 - rate), 0.0)


def time_embedding(t: Int[Array, " B"], dim: int, max_time: int) -> Float[Array, "B dim"]:
    """sin and cos of 1000 (t - 1) / max_time at dim / 2 frequencies from 1 to 1e-4 (Vaswani et al. 2017).

    Args:
        t: steps 1..max_time. The official code counts them from 0, hence t - 1.
        dim: even, at least 4.
        max_time: the number of steps T, so that every T covers the same range.
    """
    half = dim // 2
    frequencies = jnp.exp(jnp.arange(half) * (-jnp.log(10000.0) / (half - 1)))
    angles = ((t - 1) * (1000.0 / max_time))[:, None] * frequencies[None]
    return jnp.concatenate([jnp.sin(angles), jnp.cos(angles)], axis=1)


class ResBlock(nnx.Module):
    """norm, swish, conv, + time, norm, swish, dropout, conv (zero at first), + shortcut."""

    def __init__(self, n_in: int, n_out: int, n_time: int, groups: int, rate: float, rngs: nnx.Rngs):
        self.norm1 = GroupNorm(n_in, groups)
        self.conv1 = conv3(n_in, n_out, rngs)
        self.temb_proj = nnx.Linear(n_time, n_out, rngs=rngs)
        self.norm2 = GroupNorm(n_out, groups)
        self.conv2 = conv3(n_out, n_out, rngs, zero=True)
        self.shortcut = nnx.Linear(n_in, n_out, rngs=rngs) if n_in != n_out else None
        self.rate = rate

    def __call__(self, x: Array, temb: Array, key: Key[Array, ""] | None) -> Array:
        h = self.conv1(nnx.swish(self.norm1(x)))
        h = h + self.temb_proj(nnx.swish(temb))[:, None, None]
        h = self.conv2(dropout(nnx.swish(self.norm2(h)), self.rate, key))
        return h + (x if self.shortcut is None else self.shortcut(x))


class Attention(nnx.Module):
    """Single-head self-attention over the pixels, added to its input; zero at first."""

    def __init__(self, channels: int, groups: int, rngs: nnx.Rngs):
        self.norm = GroupNorm(channels, groups)
        self.q = nnx.Linear(channels, channels, rngs=rngs)
        self.k = nnx.Linear(channels, channels, rngs=rngs)
        self.v = nnx.Linear(channels, channels, rngs=rngs)
        self.proj_out = nnx.Linear(channels, channels, kernel_init=ZERO, rngs=rngs)

    def __call__(self, x: Float[Array, "B H W C"]) -> Float[Array, "B H W C"]:
        B, H, W, C = x.shape
        h = self.norm(x).reshape(B, H * W, C)
        scores = jnp.einsum("bqc,bkc->bqk", self.q(h), self.k(h)) * C**-0.5
        mixed = jnp.einsum("bqk,bkc->bqc", jax.nn.softmax(scores, axis=-1), self.v(h))
        return x + self.proj_out(mixed).reshape(B, H, W, C)
