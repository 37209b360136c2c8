"""Convolves images; on CPUs the gradient of a kernel is summed over parts of the batch that fit a cache."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

Pads = tuple[tuple[int, int], tuple[int, int]]
# Bytes of images and gradients of a part of a device: half a second level cache, and what gains nothing
_MOST, _LEAST = 2**20, 2**17
_LANES = 16  # numbers in a vector: a last axis of a multiple is computed several times faster


@partial(jax.custom_vjp, nondiff_argnums=(2,))
def conv(x: Float[Array, "B H W n"], kernel: Float[Array, "h w n m"], pads: Pads) -> Float[Array, "B I J m"]:
    """sum_abc kernel[a, b, c, m] x[., . + a, . + b, c]: a convolution of stride 1. There is no forward mode.

    Args:
        x: images.
        kernel: of the type of x.
        pads: rows and columns of zeros before and after x, each smaller than the kernel.
    """
    return _plain(x, kernel, pads)


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


def _plain(x: Array, kernel: Array, pads: Pads, out: Any = None) -> Array:
    return jax.lax.conv_general_dilated(
        x, kernel, (1, 1), pads, dimension_numbers=("NHWC", "HWIO", "NHWC"), preferred_element_type=out
    )


def _forward(x: Array, kernel: Array, pads: Pads) -> tuple[Array, tuple[Array, Array]]:
    return _plain(x, kernel, pads), (x, kernel)


def _backward(pads: Pads, kept: tuple[Array, Array], g: Array) -> tuple[Array, Array]:
    x, kernel = kept

    def plain(x: Array, g: Array) -> Array:
        return jax.vjp(lambda kernel: _plain(x, kernel, pads), kernel)[1](g)[0]

    (dx,) = jax.vjp(lambda x: _plain(x, kernel, pads), x)[1](g)
    n = _examples(x, g)
    if n == len(x):
        return dx, plain(x, g)
    return dx, jax.lax.platform_dependent(x, g, cpu=partial(_by_parts, n=n, pads=pads), default=plain)


conv.defvjp(_forward, _backward)


def _by_parts(x: Array, g: Array, n: int, pads: Pads) -> Array:
    """Returns the gradient of the kernel, for g that of the output, from parts of n examples.

    It is a convolution of x by a kernel of the size of an image, g, with the examples as features. XLA reads
    all of g again for every few rows of the result, from memory if no cache holds it. A part takes examples
    at equal distances, so that each device of the process has as many of its own in it.
    """
    B, wide = len(x), jnp.promote_types(x.dtype, jnp.float32)
    x, g = (y.reshape(n, B // n, *y.shape[1:]) for y in (x, g))

    def part(i: Array | int) -> Array:
        x_part, g_part = (jax.lax.dynamic_index_in_dim(y, i, 1, keepdims=False) for y in (x, g))
        return _of_part(x_part, g_part, pads, wide)

    zero = jnp.zeros(jax.eval_shape(part, 0).shape, wide)
    return jax.lax.fori_loop(0, B // n, lambda i, total: total + part(i), zero).astype(x.dtype)


def _examples(x: Array, g: Array) -> int:
    """Returns how many examples a part has: a divisor of B and a multiple of the devices, or all of B.

    All where parts would be too small to gain, where processes would have to add up each of them, and where
    a user says what each device has (`jax.shard_map`, a mesh of explicit axes).
    """
    B, devices = len(x), jax.device_count()
    auto = all(a == jax.sharding.AxisType.Auto for a in jax.sharding.get_abstract_mesh().axis_types)
    if B == 0 or jax.process_count() > 1 or not auto:
        return B
    size = (x[0].size + g[0].size) * x.dtype.itemsize
    possible = [n for n in range(devices, B + 1, devices) if B % n == 0] or [B]
    n = max([n for n in possible if n * size <= devices * _MOST], default=possible[0])
    return n if n * size >= devices * _LEAST else B


def _of_part(x: Array, g: Array, pads: Pads, wide: Any) -> Array:
    """Returns the gradient for a part; the kernel is x or g, whose features fit vectors or are fewer."""
    if (x.shape[3] % _LANES > 0, x.shape[3]) >= (g.shape[3] % _LANES > 0, g.shape[3]):
        return _plain(x.transpose(3, 1, 2, 0), g.transpose(1, 2, 0, 3), pads, wide).transpose(1, 2, 0, 3)
    (top, bottom), (left, right) = pads
    h, w = x.shape[1] + top + bottom - g.shape[1], x.shape[2] + left + right - g.shape[2]
    turned = (h - top, h - bottom), (w - left, w - right)
    flipped = _plain(g.transpose(3, 1, 2, 0), x.transpose(1, 2, 0, 3), turned, wide)
    return flipped[:, ::-1, ::-1].transpose(1, 2, 3, 0)
