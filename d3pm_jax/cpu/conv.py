"""Convolves images; on CPUs the gradient of a kernel is summed over parts of the batch that fit a cache."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

Pads = tuple[tuple[int, int], tuple[int, int]]
# Bytes of images and gradients in a part, for each device: at most half of a second level cache; parts of
# less than the smaller number gain nothing.
_MOST_BYTES = 2**20
_LEAST_BYTES = 2**17
# Numbers in a vector of the processor: a last axis that is a multiple is computed several times faster.
_LANES = 16


# The gradient for x is the one that JAX derives. That for the kernel is written by hand, for CPUs: see
# `_kernel_gradient_by_parts`.
@partial(jax.custom_vjp, nondiff_argnums=(2,))
def conv(x: Float[Array, "B H W n"], kernel: Float[Array, "h w n m"], pads: Pads) -> Float[Array, "B I J m"]:
    """sum_abc kernel[a, b, c, m] x[., . + a, . + b, c]: a convolution of stride 1. There is no forward mode.

    Args:
        x: images.
        kernel: of the type of x.
        pads: rows and columns of zeros before and after x, each smaller than the kernel.
    """
    return _convolve(x, kernel, pads)


def conv_of_flax(
    x: Array,
    kernel: Array,
    strides: Any,
    padding: Any,
    *,
    lhs_dilation: Any,
    rhs_dilation: Any,
    feature_group_count: int,
    **_: Any,
) -> Array:
    """Computes `conv` with the signature that `nnx.Conv` calls, for stride 1 and pads that are numbers."""
    assert {*strides, *lhs_dilation, *rhs_dilation, feature_group_count} == {1}
    return conv(x, kernel, tuple(tuple(pads) for pads in padding))


def _convolve(x: Array, kernel: Array, pads: Pads, out: Any = None) -> Array:
    """Computes `conv` by XLA, in the type `out` or that of x."""
    return jax.lax.conv_general_dilated(
        x, kernel, (1, 1), pads, dimension_numbers=("NHWC", "HWIO", "NHWC"), preferred_element_type=out
    )


def _forward(x: Array, kernel: Array, pads: Pads) -> tuple[Array, tuple[Array, Array]]:
    return _convolve(x, kernel, pads), (x, kernel)


def _backward(pads: Pads, residuals: tuple[Array, Array], g: Array) -> tuple[Array, Array]:
    x, kernel = residuals

    def kernel_gradient(x: Array, g: Array) -> Array:
        return jax.vjp(lambda kernel: _convolve(x, kernel, pads), kernel)[1](g)[0]

    (x_gradient,) = jax.vjp(lambda x: _convolve(x, kernel, pads), x)[1](g)
    n = _choose_part_size(x, g)
    if n == len(x):
        return x_gradient, kernel_gradient(x, g)
    by_parts = partial(_kernel_gradient_by_parts, n=n, pads=pads)
    return x_gradient, jax.lax.platform_dependent(x, g, cpu=by_parts, default=kernel_gradient)


conv.defvjp(_forward, _backward)


def _kernel_gradient_by_parts(x: Array, g: Array, n: int, pads: Pads) -> Array:
    """Sums the gradient of the kernel over parts of n examples, for g that of the output.

    It is a convolution of x by a kernel of the size of an image, g, with the examples as features. XLA reads
    all of g again for every few rows of the result, from memory if no cache holds it. A part takes examples
    at equal distances, so that each device of the process has as many of its own in it.
    """
    B = len(x)
    wide = jnp.promote_types(x.dtype, jnp.float32)
    x = x.reshape(n, B // n, *x.shape[1:])  # [n, B / n, H, W, channels]: part i is x[:, i]
    g = g.reshape(n, B // n, *g.shape[1:])

    def gradient_of_part(i: Array | int) -> Array:
        x_part = jax.lax.dynamic_index_in_dim(x, i, 1, keepdims=False)
        g_part = jax.lax.dynamic_index_in_dim(g, i, 1, keepdims=False)
        return _kernel_gradient_of_part(x_part, g_part, pads, wide)

    zero = jnp.zeros(jax.eval_shape(gradient_of_part, 0).shape, wide)
    total = jax.lax.fori_loop(0, B // n, lambda i, total: total + gradient_of_part(i), zero)
    return total.astype(x.dtype)


def _choose_part_size(x: Array, g: Array) -> int:
    """Returns how many examples a part has: a divisor of B and a multiple of the devices, or all of B.

    All where parts would be too small to gain, where processes would have to add up each of them, and where
    a user says what each device has (`jax.shard_map`, a mesh of explicit axes).
    """
    B = len(x)
    devices = jax.device_count()
    auto = all(a == jax.sharding.AxisType.Auto for a in jax.sharding.get_abstract_mesh().axis_types)
    if B == 0 or jax.process_count() > 1 or not auto:
        return B

    # The largest part that fits the caches of all devices, or the smallest there is.
    bytes_of_example = (x[0].size + g[0].size) * x.dtype.itemsize
    possible = [n for n in range(devices, B + 1, devices) if B % n == 0] or [B]
    fitting = [n for n in possible if n * bytes_of_example <= devices * _MOST_BYTES]
    n = max(fitting, default=possible[0])
    if n * bytes_of_example < devices * _LEAST_BYTES:
        return B
    return n


def _kernel_gradient_of_part(x: Array, g: Array, pads: Pads, wide: Any) -> Array:
    """Computes the gradient of the kernel for a part, summed in the type `wide`."""
    # Channels of x become the batch, examples the features that are summed over, and the images of g the
    # kernel; so the channels of g are the last axis, along which vectors are computed. It also goes the other
    # way round, with x as the kernel and the result flipped. The last axis is the one that fills vectors, or
    # the one with fewer channels.
    x_channels = x.shape[3]
    g_channels = g.shape[3]
    if (x_channels % _LANES > 0, x_channels) >= (g_channels % _LANES > 0, g_channels):
        gradient = _convolve(x.transpose(3, 1, 2, 0), g.transpose(1, 2, 0, 3), pads, wide)
        return gradient.transpose(1, 2, 0, 3)

    # A convolution of g by x gives sum_i g[i] x[i + a] with a counted from the other end: so the pads are
    # turned, and both axes of the result. h and w are one less than the size of the kernel.
    (top, bottom), (left, right) = pads
    h = x.shape[1] + top + bottom - g.shape[1]
    w = x.shape[2] + left + right - g.shape[2]
    turned_pads = (h - top, h - bottom), (w - left, w - right)
    flipped = _convolve(g.transpose(3, 1, 2, 0), x.transpose(1, 2, 0, 3), turned_pads, wide)
    return flipped[:, ::-1, ::-1].transpose(1, 2, 3, 0)
