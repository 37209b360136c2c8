"""Attention of the transformer, and the rotation that tells it places."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from d3pm_jax.models.layers import at_least_float32


@jax.custom_vjp
def attention(q: Array, k: Array, v: Array, seen: Array | None) -> Array:
    """softmax(q k^T / sqrt(d)) v over the places that are seen.

    Accelerators take `jax.nn.dot_product_attention`. It is good to 1e-7 only in float64, and slower on a CPU:
    there the formula is taken. The backward pass computes the softmax again. There is no forward mode.

    Args:
        q, k, v: [B, L, heads, d].
        seen: bool [B, L], or None for all.
    """
    return _on_this_platform(q.dtype, lambda f: f, q, k, v, seen)


def _forward(q: Array, k: Array, v: Array, seen: Array | None) -> tuple[Array, tuple]:
    return attention(q, k, v, seen), (q, k, v, seen)


def _backward(kept: tuple, g: Array) -> tuple:
    def gradient(f: Callable[..., Array]) -> Callable[..., tuple]:
        return lambda g, q, k, v, seen: jax.vjp(lambda *qkv: f(*qkv, seen), q, k, v)[1](g)

    return *_on_this_platform(g.dtype, gradient, g, *kept), None


attention.defvjp(_forward, _backward)


def _on_this_platform(
    dtype: DTypeLike, transform: Callable[[Callable[..., Array]], Callable], *arrays: Array | None
) -> Any:
    """Applies the transformed formula on a CPU or in float64, elsewhere the transformed function of JAX."""
    formula, other = transform(_formula), transform(_of_jax)
    if dtype == jnp.float64:
        return formula(*arrays)
    return jax.lax.platform_dependent(*arrays, cpu=formula, default=other)


def _of_jax(q: Array, k: Array, v: Array, seen: Array | None) -> Array:
    return jax.nn.dot_product_attention(q, k, v, mask=None if seen is None else seen[:, None, None])


def _formula(q: Array, k: Array, v: Array, seen: Array | None) -> Array:
    B, L, heads, d = q.shape
    q, k, v = (x.swapaxes(1, 2).reshape(B * heads, L, d) for x in (q, k, v))
    wide = at_least_float32(q).dtype
    scores = jnp.einsum("nqd,nkd->nqk", q, k, preferred_element_type=wide) * d**-0.5
    if seen is not None:
        scores = jnp.where(jnp.repeat(seen, heads, 0)[:, None], scores, jnp.finfo(wide).min)
    found = jnp.einsum("nqk,nkd->nqd", jax.nn.softmax(scores, axis=-1).astype(v.dtype), v)
    return found.reshape(B, heads, L, d).swapaxes(1, 2)


def rotary_angles(length: int, d: int) -> Float[Array, "length m"]:
    """Returns place * 10000^(-2 i / d) for i = 0..d / 2 - 1."""
    frequencies = 10000.0 ** (-jnp.arange(d // 2) / (d // 2))
    return jnp.arange(length)[:, None] * frequencies[None]


def rotated(x: Float[Array, "B L h d"], angles: Float[Array, "L m"]) -> Float[Array, "B L h d"]:
    """Returns x with its entries i and i + d / 2 turned, as a point of the plane, by angle i of the place."""
    angles = angles[None, :, None]
    cos, sin = jnp.cos(angles), jnp.sin(angles)
    first, second = jnp.split(at_least_float32(x), 2, axis=-1)
    turned = [first * cos - second * sin, first * sin + second * cos]
    return jnp.concatenate(turned, axis=-1).astype(x.dtype)
