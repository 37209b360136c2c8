"""Defines the layers of the networks; images are [B, H, W, C]."""

import dataclasses
import itertools
import math
from collections.abc import Iterator
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import Array, Bool, Float, Int, Key, Real

from d3pm_jax.checks import AllowedRange
from d3pm_jax.cpu.conv import conv, conv_of_flax
from d3pm_jax.models.attention import Form, attend, choose_form
from d3pm_jax.numerics.logspace import at_least_float32

# What networks are called with.
CATEGORIES = AllowedRange(0, "K", "the network has K = {K} categories; give it more or fix the data")
TIMES = AllowedRange(
    0, "max_time", "t counts from 1 to max_time = {max_time} of the network, and 0 is clean data"
)
# -1 is the one-hot of no class, an all-zero one, as without labels.
LABELS = AllowedRange(
    -1, "num_classes", "the network has num_classes = {num_classes}, and -1 stands for no label"
)

# Whether the row and the column of an output pixel of `conv_doubled` are odd.
_PARITIES = ((0, 0), (0, 1), (1, 0), (1, 1))

Init = nnx.initializers.Initializer


@partial(jax.custom_vjp, nondiff_argnums=(3, 4))
def group_norm(
    x: Float[Array, "B H W C"], scale: Float[Array, " C"], bias: Float[Array, " C"], groups: int, eps: float
) -> Float[Array, "B H W C"]:
    """Normalises groups of channels (Wu and He 2018); its backward pass is written by hand and reads x twice.

    Automatic differentiation of the formula stores and rereads several arrays of the size of x, which
    makes a whole training step half as long again on a CPU.

    Args:
        x: images. Statistics are taken in float32 where the images are narrower.
        scale, bias: per channel.
        groups: divides C.
        eps: added to the variance.

    Returns:
        x with mean 0 and variance 1 over each group of each image, times scale plus bias.
    """
    return _group_norm_fwd(x, scale, bias, groups, eps)[0]


def _per_pixel(coefficient: Array) -> Array:
    """Adds axes to numbers per channel, [B, C] to [B, 1, 1, C], to broadcast them over pixels."""
    return coefficient[:, None, None, :]


def _group_mean(per_channel: Array, groups: int, pixels: int) -> Array:
    """Turns sums per channel [B, C] into the mean over each group, again per channel."""
    B, C = per_channel.shape
    mean = per_channel.reshape(B, groups, C // groups).sum(-1) * (groups / (C * pixels))
    return jnp.repeat(mean, C // groups, axis=1)


# In one group of one image with N entries, let centred = x - mean, inverse = 1 / sqrt(variance + eps) and
# z = centred inverse. Then y = scale z + bias. With g = dL / dy the gradients are
#
#     dL / dbias  = sum of g,             over images and pixels
#     dL / dscale = sum of g z,           over images and pixels
#     dL / dx     = inverse (g scale - mean(g scale) - z mean(g scale z)),
#
# where the means are over the group: the first comes from x in the mean, the second from x in the variance.
# Both need no more than the sums of g and of g z per channel: one read of x makes these sums, and a second
# one makes dL / dx.


def _group_norm_fwd(x, scale, bias, groups, eps):
    wide = at_least_float32(x)
    in_two_reads = partial(_measure_in_two_reads, groups=groups)
    in_one_read = partial(_measure_in_one_read, groups=groups)
    mean, variance = jax.lax.platform_dependent(wide, cpu=in_two_reads, default=in_one_read)  # [B, C]
    inverse = jax.lax.rsqrt(variance + eps)
    y = (wide - _per_pixel(mean)) * _per_pixel(inverse * scale[None]) + bias[None, None, None]
    return y.astype(x.dtype), (x, scale, mean, inverse)


def _measure_in_two_reads(x: Array, groups: int) -> tuple[Array, Array]:
    """Returns mean and variance of the groups, [B, C]."""
    pixels = x.shape[1] * x.shape[2]
    mean = _group_mean(jnp.sum(x, axis=(1, 2)), groups, pixels)
    # The variance is taken of centred entries: the mean of squares minus the squared mean loses all digits by
    # cancellation where the mean is large.
    return mean, _group_mean(jnp.sum((x - _per_pixel(mean)) ** 2, axis=(1, 2)), groups, pixels)


def _measure_in_one_read(x: Array, groups: int) -> tuple[Array, Array]:
    """Equals `_measure_in_two_reads` up to rounding, for accelerators."""
    channel_mean, channel_variance = _measure_channels(x)
    mean, _, variance = _measure_groups(channel_mean, channel_variance, groups)
    return mean, variance


def _group_norm_bwd(groups, eps, residuals, g):
    x, scale, mean, inverse = residuals
    pixels = x.shape[1] * x.shape[2]
    g = at_least_float32(g)
    centred = at_least_float32(x) - _per_pixel(mean)
    sum_g, sum_gz = jax.lax.platform_dependent(g, g * centred, cpu=_sum_one_by_one, default=_sum_pixels)
    sum_gz = sum_gz * inverse  # [B, C]
    mean_g = _group_mean(sum_g * scale[None], groups, pixels)
    mean_gz = _group_mean(sum_gz * scale[None], groups, pixels)
    dx = _per_pixel(inverse) * (
        g * scale[None, None, None] - _per_pixel(mean_g) - centred * _per_pixel(inverse * mean_gz)
    )
    return dx.astype(x.dtype), sum_gz.sum(0).astype(scale.dtype), sum_g.sum(0).astype(scale.dtype)


group_norm.defvjp(_group_norm_fwd, _group_norm_bwd)


def norm_swish(
    x: Float[Array, "B H W C"],
    scale: Float[Array, " C"],
    bias: Float[Array, " C"],
    groups: int,
    eps: float,
    shifts: tuple[Float[Array, "#B C"], ...] = (),
    keep: Bool[Array, "B H W C"] | None = None,
    rate: float = 0.0,
) -> Float[Array, "B H W C"]:
    """Returns dropout(swish(group_norm(x + shifts))).

    On a CPU these are functions one after the other. Accelerators take `_norm_swish_in_one`, which equals
    them up to rounding, and reads and writes arrays of the size of x less often.

    Args:
        x, scale, bias, groups, eps: as for `group_norm`.
        shifts: are added to all pixels of an image.
        keep: what dropout leaves; None for no dropout.
        rate: of dropout.
    """

    def one_by_one(
        x: Array, shifts: tuple[Array, ...], scale: Array, bias: Array, keep: Array | None
    ) -> Array:
        for shift in shifts:
            x = x + shift[:, None, None]
        return mask_out(nnx.swish(group_norm(x, scale, bias, groups, eps)), keep, rate)

    def in_one(x: Array, shifts: tuple[Array, ...], scale: Array, bias: Array, keep: Array | None) -> Array:
        shift = None
        if shifts:
            shift = jnp.broadcast_to(sum(map(at_least_float32, shifts)), (len(x), len(scale)))  # [B, C]
        return _norm_swish_in_one(x, shift, scale, bias, keep, groups, eps, rate)

    return jax.lax.platform_dependent(x, shifts, scale, bias, keep, cpu=one_by_one, default=in_one)


@partial(jax.custom_vjp, nondiff_argnums=(5, 6, 7))
def _norm_swish_in_one(
    x: Array,
    shift: Array | None,
    scale: Array,
    bias: Array,
    keep: Array | None,
    groups: int,
    eps: float,
    rate: float,
) -> Array:
    """Computes `norm_swish` in kernels that XLA makes for a GPU: one for statistics, one for the result.

    The backward pass has one for sums, and one for dL / dx. In bfloat16 all that is between is float32.
    """
    return _norm_swish_fwd(x, shift, scale, bias, keep, groups, eps, rate)[0]


# Where several kernels of a GPU need the same array, XLA writes it to memory, once it costs an exponential
# to make. Here every kernel makes it again, from x and g alone, for which XLA has to be kept from seeing that
# it is the same: results of `optimization_barrier` are other arrays to it. A barrier also stands after each
# pair of sums, which XLA would otherwise merge with the sums over groups or over images that follow, each a
# pass over x of its own.


def _sum_pixels(first: Array, second: Array) -> tuple[Array, Array]:
    """Sums two arrays [B, H, W, C] over pixels in one pass; rows come first, to keep all of a GPU busy."""

    def add(sums: tuple[Array, Array], summands: tuple[Array, Array]) -> tuple[Array, Array]:
        return sums[0] + summands[0], sums[1] + summands[1]

    zero = jnp.zeros((), first.dtype)
    sums_of_rows = jax.lax.reduce((first, second), (zero, zero), add, (2,))  # [B, H, C]
    sums = jax.lax.reduce(sums_of_rows, (zero, zero), add, (1,))  # [B, C]
    return jax.lax.optimization_barrier(tuple(sums))


def _sum_one_by_one(first: Array, second: Array) -> tuple[Array, Array]:
    """Computes `_sum_pixels` for a CPU."""
    return jnp.sum(first, axis=(1, 2)), jnp.sum(second, axis=(1, 2))


def _measure_channels(x: Array) -> tuple[Array, Array]:
    """Returns mean and variance of each channel of images in float32 or wider, [B, C], from one read."""
    pixels = x.shape[1] * x.shape[2]
    # They come from the sums of d and d^2, where d is the distance to a pivot, the mean of the first row. The
    # square of the distance between this pivot and the mean of the channel is at most H variances, by Cauchy
    # and Schwarz, so that the difference of squares loses at most log2(H) bits, and mostly none.
    pivot = x[:, 0].mean(1)  # [B, C]
    distance = x - _per_pixel(pivot)
    sum_distance, sum_squares = _sum_pixels(distance, distance**2)
    mean_distance = sum_distance / pixels
    return pivot + mean_distance, jnp.maximum(sum_squares / pixels - mean_distance**2, 0.0)


def _measure_groups(mean: Array, variance: Array, groups: int) -> tuple[Array, Array, Array]:
    """Returns means of groups, how far means of channels are from them, and variances of groups, [B, C].

    The variance of a group is the mean of the variances of its channels plus the variance of their means.
    """
    group_mean = _group_mean(mean, groups, 1)
    off_centre = mean - group_mean
    return group_mean, off_centre, _group_mean(variance + off_centre**2, groups, 1)


def _norm_swish_fwd(x, shift, scale, bias, keep, groups, eps, rate):
    wide = at_least_float32(x)
    channel_mean, channel_variance = _measure_channels(wide)
    if shift is not None:
        channel_mean = channel_mean + shift
    mean, off_centre, variance = _measure_groups(channel_mean, channel_variance, groups)
    inverse = jax.lax.rsqrt(variance + eps)
    if shift is not None:
        mean = mean - shift  # of x, which the shift is not yet added to
    y = (wide - _per_pixel(mean)) * _per_pixel(inverse * scale[None]) + bias[None, None, None]
    result = mask_out(y * jax.nn.sigmoid(y), keep, rate).astype(x.dtype)
    return result, (x, shift, scale, bias, keep, mean, off_centre, inverse)


# With y and z as in `group_norm` and s = sigmoid(y), g of the result makes dL / dy = g s (1 + y (1 - s)),
# from which all else follows as there. dL / dshift is the sum of dL / dx over pixels, whose terms are known:
#
#     inverse (scale sum(dL / dy) - n mean(g scale) - sum(z) mean(g scale z)),    n the number of pixels.


def _norm_swish_bwd(groups, eps, rate, residuals, g):
    x, shift, scale, bias, keep, mean, off_centre, inverse = residuals
    pixels = x.shape[1] * x.shape[2]

    def differentiate_swish(x: Array, keep: Array | None, g: Array) -> tuple[Array, Array]:
        """Returns x - mean and dL / dy."""
        centred = at_least_float32(x) - _per_pixel(mean)
        y = centred * _per_pixel(inverse * scale[None]) + bias[None, None, None]
        s = jax.nn.sigmoid(y)
        return centred, mask_out(at_least_float32(g), keep, rate) * (s * (1.0 + y * (1.0 - s)))

    x, keep, g = jax.lax.optimization_barrier((x, keep, g))
    centred, dy = differentiate_swish(x, keep, g)
    sum_g, sum_gz = _sum_pixels(dy, dy * centred)  # [B, C]
    sum_gz = sum_gz * inverse
    mean_g = _group_mean(sum_g * scale[None], groups, pixels)
    mean_gz = _group_mean(sum_gz * scale[None], groups, pixels)

    x, keep, g = jax.lax.optimization_barrier((x, keep, g))
    centred, dy = differentiate_swish(x, keep, g)
    dx = _per_pixel(inverse) * (
        dy * scale[None, None, None] - _per_pixel(mean_g) - centred * _per_pixel(mean_gz * inverse)
    )
    dshift = None
    if shift is not None:
        per_pixel = inverse * (sum_g * scale[None] / pixels - mean_g - off_centre * mean_gz * inverse)
        dshift = (pixels * per_pixel).astype(shift.dtype)
    return (
        dx.astype(x.dtype),
        dshift,
        sum_gz.sum(0).astype(scale.dtype),
        sum_g.sum(0).astype(bias.dtype),
        None,
    )


_norm_swish_in_one.defvjp(_norm_swish_fwd, _norm_swish_bwd)


class GroupNorm(nnx.Module):
    """Holds the scale and bias of `group_norm` and applies it."""

    def __init__(self, channels: int, groups: int, eps: float):
        if channels % groups:
            raise ValueError(f"{channels} channels do not divide into {groups} groups: change ch or groups")
        self.scale = nnx.Param(jnp.ones(channels))
        self.bias = nnx.Param(jnp.zeros(channels))
        self.groups = groups
        self.eps = eps

    def __call__(self, x: Float[Array, "B H W C"]) -> Float[Array, "B H W C"]:
        return group_norm(x, self.scale[...], self.bias[...], self.groups, self.eps)

    def swish(
        self,
        x: Float[Array, "B H W C"],
        shifts: tuple[Float[Array, "#B C"], ...] = (),
        keep: Bool[Array, "B H W C"] | None = None,
        rate: float = 0.0,
    ) -> Float[Array, "B H W C"]:
        """Returns dropout(swish(norm(x + shifts))), see `norm_swish`."""
        return norm_swish(x, self.scale[...], self.bias[...], self.groups, self.eps, shifts, keep, rate)


@dataclasses.dataclass(frozen=True)
class Style:
    """Holds the properties that the layers of a network have in common, and makes its layers."""

    rngs: nnx.Rngs
    init: Init
    """of kernels"""
    init_last: Init
    """of the last convolution of a residual block and of the network"""
    init_attention: Init
    """of the last map of an attention"""
    down_pads: tuple[int, int]
    """zeros before and after rows and columns of a convolution of stride 2"""
    eps: float
    """of every GroupNorm, but for those of attention where `attention_eps` is set"""
    groups: int
    """of every GroupNorm"""
    num_heads: int
    """of every attention"""
    dropout_rate: float
    n_embedding: int
    """width of the embeddings of time and class"""
    labelled: bool
    """whether blocks see a class"""
    dtype: DTypeLike | None
    """of the computation; None: that of the parameters"""
    channels_per_group: int | None = None
    """the minimum number of channels in a group, so that narrow layers have fewer groups"""
    attention_eps: float | None = None
    """of the GroupNorm of attention; None stands for `eps`"""
    attention: Form | None = None
    """of attention on a GPU or TPU, see `choose_form`; None: the best one"""

    def norm(self, channels: int, eps: float | None = None) -> GroupNorm:
        """Makes a GroupNorm; eps is that of the style by default."""
        groups = self.groups
        if self.channels_per_group is not None:
            if channels < self.channels_per_group:
                raise ValueError(
                    f"channels_per_group = {self.channels_per_group}, but a layer has {channels} channels: "
                    f"make it smaller"
                )
            groups = min(channels // self.channels_per_group, groups)
        return GroupNorm(channels, groups, eps or self.eps)

    def linear(self, n_in: int, n_out: int, init: Init | None = None) -> nnx.Linear:
        """Makes a linear map of the last axis."""
        return nnx.Linear(n_in, n_out, dtype=self.dtype, kernel_init=init or self.init, rngs=self.rngs)

    def conv3(self, n_in: int, n_out: int, init: Init | None = None) -> nnx.Conv:
        """Makes a 3 x 3 convolution that keeps the size."""
        return self._conv(n_in, n_out, 1, (1, 1), init or self.init)

    def conv_halving(self, channels: int) -> nnx.Conv:
        """Makes a 3 x 3 convolution of stride 2, for even sizes."""
        return self._conv(channels, channels, 2, self.down_pads, self.init)

    def _conv(self, n_in: int, n_out: int, strides: int, pads: tuple[int, int], init: Init) -> nnx.Conv:
        # On a CPU `conv_of_flax` computes the gradient of a convolution of stride 1 by parts of the batch.
        convolve = conv_of_flax if strides == 1 else jax.lax.conv_general_dilated
        return nnx.Conv(
            n_in,
            n_out,
            (3, 3),
            strides=strides,
            padding=(pads, pads),
            dtype=self.dtype,
            kernel_init=init,
            conv_general_dilated=convolve,
            rngs=self.rngs,
        )


def conv_and_bias(
    layer: nnx.Conv, x: Float[Array, "B H W n"]
) -> tuple[Float[Array, "B H W m"], Float[Array, "1 m"]]:
    """Returns what a layer of `Style.conv3` makes of x before its bias is added, and the bias."""
    assert layer.bias is not None
    x = x.astype(layer.dtype or jnp.result_type(x, layer.kernel[...]))
    # What a function with a gradient by hand returns has no type.
    y: Any = conv(x, layer.kernel[...].astype(x.dtype), ((1, 1), (1, 1)))
    return y, layer.bias[...].astype(x.dtype)[None]


def conv_doubled(layer: nnx.Conv, x: Float[Array, "B H W n"]) -> Float[Array, "B 2*H 2*W m"]:
    """Applies a convolution to x enlarged to twice its size by nearest neighbours.

    It takes four ninths of the multiplications, and its result differs by rounding alone. Of three enlarged
    rows or columns under the kernel two are the same, so their weights are added. This leaves a 2 x 2 kernel
    on x for each of four cases: the row and the column of an output pixel are even or odd.

    Args:
        layer: 3 x 3, of stride 1, with one row and column of zeros around its input, and with a bias.
        x: images.

    Returns:
        The output of the layer for images of twice the size, in which every pixel of x fills 2 x 2 pixels.
    """
    assert layer.bias is not None
    x = x.astype(layer.dtype or jnp.result_type(x, layer.kernel[...]))

    def add_weights(kernel: Array, odd: int, axis: int) -> Array:
        """Adds the weights of one pixel of x: 1 and 2 for an even output pixel, 0 and 1 for an odd one."""
        first, middle, last = jnp.split(kernel, 3, axis)
        if odd:
            return jnp.concatenate([first + middle, last], axis)
        return jnp.concatenate([first, middle + last], axis)

    kernels = []
    for odd_row, odd_column in _PARITIES:
        kernel = add_weights(layer.kernel[...], odd_row, 0)
        kernels.append(add_weights(kernel, odd_column, 1).astype(x.dtype))  # [2, 2, n, m]
    pixels = jax.lax.platform_dependent(x, kernels, cpu=_convolve_one_by_one, default=_convolve_in_one)
    rows = [jnp.stack(columns, axis=3) for columns in (pixels[:2], pixels[2:])]  # [B, H, W, 2, m]
    B, H, W, _ = x.shape
    y = jnp.stack(rows, axis=2).reshape(B, 2 * H, 2 * W, -1)  # from [B, H, 2, W, 2, m]
    return y + layer.bias[...].astype(x.dtype)[None, None, None]


def _convolve_one_by_one(x: Float[Array, "B H W n"], kernels: list[Array]) -> list[Array]:
    """Returns the output pixels of each case of `conv_doubled`, [B, H, W, m], of kernels [2, 2, n, m]."""
    pixels = []
    for (odd_row, odd_column), kernel in zip(_PARITIES, kernels, strict=True):
        pixels.append(conv(x, kernel, ((1 - odd_row, odd_row), (1 - odd_column, odd_column))))
    return pixels


def _convolve_in_one(x: Float[Array, "B H W n"], kernels: list[Array]) -> list[Array]:
    """Computes `_convolve_one_by_one` as a single convolution, for accelerators.

    That reads x once. A GPU would also copy x for each case, since its convolutions take the same number of
    zeros on both sides.
    """
    H, W = x.shape[1:3]
    # What a function with a gradient by hand returns has no type.
    y: Any = conv(x, jnp.concatenate(kernels, axis=-1), ((1, 1), (1, 1)))  # [B, H + 1, W + 1, 4 m]
    pixels = []
    for (odd_row, odd_column), part in zip(_PARITIES, jnp.split(y, len(_PARITIES), axis=-1), strict=True):
        pixels.append(part[:, odd_row : odd_row + H, odd_column : odd_column + W])
    return pixels


def enlarge(x: Real[Array, "B h w c"], H: int, W: int) -> Real[Array, "B H W c"]:
    """Returns images enlarged to H x W by nearest neighbours.

    Raises:
        ValueError: their size does not divide H x W.
    """
    h, w = x.shape[1:3]
    check_enlarges((h, w), (H, W))
    return jnp.repeat(jnp.repeat(x, H // h, axis=1), W // w, axis=2)


def check_channels(xt: Array, channels: int) -> None:
    """Raises ValueError unless the last axis of images is that of their channels."""
    if xt.shape[-1] != channels:
        raise ValueError(
            f"xt has shape {xt.shape}, expected [B, H, W, {channels}]: the last axis holds the channels"
        )


def check_enlarges(size: tuple[int, ...], larger_size: tuple[int, ...]) -> None:
    """Raises ValueError unless rows and columns of a larger image are multiples of those of an image."""
    h, w = size
    H, W = larger_size
    if H % h or W % w:
        raise ValueError(
            f"a condition of {h} x {w} cannot be enlarged to an image of {H} x {W}: {H} and {W} must be "
            f"multiples of {h} and {w}"
        )


def apply_to_rows(linear: nnx.Linear, x: Float[Array, "*S n"]) -> Float[Array, "*S m"]:
    """Returns linear(x) as one product of matrices.

    All axes but the last are merged, so that the gradient of the kernel is one product too. With more axes
    XLA on a CPU makes copies of the array first, which takes as long as the product.
    """
    rows = x.reshape(math.prod(x.shape[:-1]), x.shape[-1])
    return linear(rows).reshape(*x.shape[:-1], linear.out_features)


def product_and_bias(
    linear: nnx.Linear, x: Float[Array, "*S n"]
) -> tuple[Float[Array, "*S m"], Float[Array, "1 m"]]:
    """Returns what `apply_to_rows` makes of x before the bias is added, and the bias."""
    assert linear.bias is not None
    x = x.astype(linear.dtype or jnp.result_type(x, linear.kernel[...]))
    rows = x.reshape(math.prod(x.shape[:-1]), x.shape[-1])
    y = jnp.dot(rows, linear.kernel[...].astype(x.dtype), precision=linear.precision)
    return y.reshape(*x.shape[:-1], linear.out_features), linear.bias[...].astype(x.dtype)[None]


def dropout(x: Array, rate: float, key: Key[Array, ""] | None) -> Array:
    """Zeroes entries of x with probability rate and divides others by 1 - rate; without a key returns x."""
    return mask_out(x, draw_kept(key, rate, x.shape), rate)


def split_by_layer(key: Key[Array, ""] | None) -> Iterator[Any]:
    """Yields a key for each layer of a network, without end: layer i has key i; None each without a key."""
    for i in itertools.count():
        yield None if key is None else jax.random.fold_in(key, i)


def draw_kept(key: Key[Array, ""] | None, rate: float, shape: tuple[int, ...]) -> Bool[Array, "..."] | None:
    """Draws which entries dropout leaves; None without a key, where it leaves all."""
    if key is None or rate == 0.0:
        return None
    return jax.random.bernoulli(key, 1.0 - rate, shape)


def mask_out(x: Array, keep: Bool[Array, "..."] | None, rate: float) -> Array:
    """Zeroes entries of x that are not kept and divides others by 1 - rate; with None returns x."""
    if keep is None:
        return x
    return jnp.where(keep, x / (1.0 - rate), 0.0)


def time_embedding(t: Real[Array, " B"], dim: int, max_time: int) -> Float[Array, "B dim"]:
    """Returns sin and cos of 1000 (t - 1) / max_time at dim / 2 frequencies 1..1e-4 (Vaswani et al. 2017).

    Args:
        t: steps 1..max_time, or real numbers between. The official code counts them from 0, hence t - 1.
        dim: even, at least 4.
        max_time: the number of steps T, so that every T covers the same range.
    """
    half = dim // 2
    frequencies = jnp.exp(jnp.arange(half) * (-jnp.log(10000.0) / (half - 1)))
    angles = ((t - 1) * (1000.0 / max_time))[:, None] * frequencies[None]
    return jnp.concatenate([jnp.sin(angles), jnp.cos(angles)], axis=1)


def class_embedding(
    embed: nnx.Linear | None, label: Int[Array, " B"] | None, B: int
) -> Float[Array, "B n"] | None:
    """Returns embed(onehot(label)); without labels the one-hot is all zero, which leaves the bias.

    Args:
        embed: of a network with classes; None for one without, which has no embedding.
        label: classes from 0; -1 is none.
        B: the number of images.

    Raises:
        ValueError: there are labels but no classes.
    """
    if embed is None:
        if label is not None:
            raise ValueError(
                "labels were passed to a network with num_classes = None: leave label out, or set num_classes"
            )
        return None
    n = embed.in_features
    dtype = embed.kernel.dtype
    if label is None:
        onehot = jnp.zeros((B, n), dtype)
    else:
        onehot = jax.nn.one_hot(label, n, dtype=dtype)
    return embed(onehot)


class Conditioned(nnx.Module):
    """Embeds what a network is told besides x_t, time, class and condition, as the sum of their vectors."""

    def _make_embeddings(
        self, width: int, max_time: int | None, num_classes: int | None, rngs: nnx.Rngs
    ) -> None:
        """Makes the layers of time, which is up to max_time or not told, and of the classes.

        Raises:
            ValueError: the network is told t, and the width is below 4.
        """
        if max_time is not None and width < 4:
            raise ValueError(f"width = {width}: the embedding of time needs a width of at least 4")
        self.width = width
        self.max_time = max_time
        self.num_classes = num_classes
        self.temb1 = None if max_time is None else nnx.Linear(width, width, rngs=rngs)
        self.temb2 = None if max_time is None else nnx.Linear(width, width, rngs=rngs)
        self.class_emb = None if num_classes is None else nnx.Linear(num_classes, width, rngs=rngs)

    # It draws its weights last, so that all others are those of the network of the same seed without it.
    def _make_condition(self, shape: tuple[int, ...] | None, rngs: nnx.Rngs) -> None:
        """Makes the layer of a condition of a shape, which is flattened; None: there is none."""
        self.condition_shape = shape
        self.condition = None if shape is None else nnx.Linear(math.prod(shape), self.width, rngs=rngs)

    def _embed_inputs(
        self, t: Real[Array, " #B"], label: Int[Array, " #B"] | None, condition: Array | None, B: int
    ) -> Float[Array, "#B width"] | None:
        """Returns the sum of the embeddings, or None for a network that is told nothing besides x_t.

        Raises:
            ValueError: there are labels but no classes, or the condition of B examples is not of its shape.
        """
        check_condition(condition, self.condition_shape, B)
        class_part = class_embedding(self.class_emb, label, len(t))
        parts = []
        if self.temb1 is not None and self.temb2 is not None and self.max_time is not None:
            time_part = self.temb1(time_embedding(t, self.width, self.max_time))
            parts.append(self.temb2(nnx.swish(time_part)))
        if class_part is not None:
            parts.append(class_part)
        if self.condition is not None and condition is not None:
            parts.append(self.condition(condition.reshape(B, -1).astype(self.condition.kernel.dtype)))
        return sum(parts[1:], start=parts[0]) if parts else None


def check_condition(condition: Array | None, shape: tuple[int, ...] | None, B: int) -> None:
    """Raises ValueError where the condition of B examples is not of the shape that a network is for."""
    if shape is None:
        if condition is not None:
            raise ValueError(
                "a condition was passed to a network with condition = None: leave it out, or set "
                "condition to its shape"
            )
        return
    expected = (B, *shape)
    if condition is None:
        raise ValueError(f"the network needs a condition of shape {expected}: pass condition")
    if condition.shape != expected:
        raise ValueError(f"the condition has shape {condition.shape}: expected {expected}")


class ResBlock(nnx.Module):
    """Applies norm, swish, conv, + time, + class, norm, swish, dropout, conv, + shortcut."""

    def __init__(self, n_in: int, n_out: int, style: Style):
        self.norm1 = style.norm(n_in)
        self.conv1 = style.conv3(n_in, n_out)
        self.temb_proj = style.linear(style.n_embedding, n_out)
        self.norm2 = style.norm(n_out)
        self.conv2 = style.conv3(n_out, n_out, style.init_last)
        self.shortcut = style.linear(n_in, n_out) if n_in != n_out else None
        self.class_proj = style.linear(style.n_embedding, n_out) if style.labelled else None
        self.dropout_rate = style.dropout_rate

    def __call__(self, x: Array, temb: Array, cemb: Array | None, key: Key[Array, ""] | None) -> Array:
        """Returns the output of the block; temb and cemb [B, n_embedding] embed time and class."""
        # The bias of the convolution is added by the norm, which makes its gradient without a read of h.
        h, conv_bias = conv_and_bias(self.conv1, self.norm1.swish(x))
        shifts = (conv_bias, self.temb_proj(nnx.swish(temb)))
        if self.class_proj is not None and cemb is not None:
            shifts = (*shifts, self.class_proj(cemb))
        keep = draw_kept(key, self.dropout_rate, h.shape)
        h, bias = conv_and_bias(self.conv2, self.norm2.swish(h, shifts, keep, self.dropout_rate))
        if self.shortcut is not None:
            x, shortcut_bias = product_and_bias(self.shortcut, x)
            bias = bias + shortcut_bias
        # A GPU adds one bias, and x, in the kernel of the convolution.
        return h + bias[:, None, None] + x


class Attention(nnx.Module):
    """Adds self-attention over the pixels to its input; head i takes part i of the channels of q, k, v.

    The parameters have the same shapes for any number of heads: a kernel [C, heads, C / heads] of the
    official code is [C, C] here.
    """

    def __init__(self, channels: int, style: Style):
        self.num_heads = style.num_heads
        if channels % self.num_heads:
            raise ValueError(
                f"{channels} channels do not divide into {self.num_heads} heads: change ch or num_heads"
            )
        self.form: Form = choose_form(style.attention, style.dtype)
        self.norm = style.norm(channels, style.attention_eps)
        self.q = style.linear(channels, channels)
        self.k = style.linear(channels, channels)
        self.v = style.linear(channels, channels)
        self.proj_out = style.linear(channels, channels, style.init_attention)

    def __call__(self, x: Float[Array, "B H W C"]) -> Float[Array, "B H W C"]:
        B, H, W, C = x.shape
        h = self.norm(x).reshape(B, H * W, C)
        # Each [B, H W, heads, C / heads].
        q, k, v = (
            apply_to_rows(linear, h).reshape(B, H * W, self.num_heads, -1)
            for linear in (self.q, self.k, self.v)
        )
        mixed = attend(q, k, v, None, self.form)
        return x + apply_to_rows(self.proj_out, mixed.reshape(B, H, W, C))
