"""Holds a transformer for sequences: categories in, one vector per place out."""

from functools import partial

import jax
import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import Array, Bool, Float, Int, Key, Real

from d3pm_jax.models.attention import attention, rotary_angles, rotated
from d3pm_jax.models.layers import at_least_float32, class_embedding, dropout, time_embedding

EPS = 1e-6  # of every norm


class Transformer(nnx.Module):
    """Maps xt int32 [B, L], t [B], label int32 [B], weight [B, L] to float32 [B, L, K].

    Blocks of attention and two linear maps, each after a layer norm whose scale and shift, and the factor of
    what is added, come from the embedding of time and class, as in adaLN-zero (Peebles and Xie 2023,
    arXiv 2212.09748). Places are told apart by rotary positions (Su et al. 2021, arXiv 2104.09864), so L may
    be any length. At first the output is 0. The parameters of all blocks are stacked, [num_layers, ...].

    Args:
        K: categories.
        max_time: T of the process; the embedding of time sees 1000 (t - 1) / max_time, whatever T.
        width: of the residual stream; divides by num_heads into even parts.
        num_layers: blocks.
        num_heads: of every attention.
        mlp_ratio: width of the hidden layer of a block as a multiple of width.
        dropout: rate, of what a block adds, used when a key is passed.
        see_time: whether the network is told t. The predictions of an absorbing process need no time.
        num_classes: of the labels, if there are any; called without, it sees the bias of class_emb alone.
        remat: keep only the input of each block for the backward pass, and compute the rest again.
        dtype: of the computation, that of the parameters by default. In bfloat16 the parameters, the
            embeddings, the statistics of norms, the softmax and the last layer stay float32.
        rngs: for the initial weights.

    Raises:
        ValueError: the width does not divide into heads of an even width.
    """

    def __init__(
        self,
        K: int,
        max_time: int,
        width: int = 256,
        num_layers: int = 6,
        num_heads: int = 4,
        mlp_ratio: int = 4,
        dropout: float = 0.0,
        see_time: bool = True,
        num_classes: int | None = None,
        remat: bool = False,
        dtype: DTypeLike | None = None,
        *,
        rngs: nnx.Rngs,
    ):
        if num_heads < 1 or width % (2 * num_heads):
            raise ValueError(
                f"width = {width} does not divide into {num_heads} heads of an even width: change one"
            )
        self.K, self.width, self.max_time = K, width, max_time
        self.num_layers, self.num_heads = num_layers, num_heads
        self.rate, self.remat, self.dtype = dropout, remat, dtype
        conditioned = see_time or num_classes is not None
        self.embed = nnx.Embed(K, width, rngs=rngs)
        self.temb1 = nnx.Linear(width, width, rngs=rngs) if see_time else None
        self.temb2 = nnx.Linear(width, width, rngs=rngs) if see_time else None
        self.class_emb = None if num_classes is None else nnx.Linear(num_classes, width, rngs=rngs)

        @nnx.split_rngs(splits=num_layers)
        @nnx.vmap
        def stacked(rngs: nnx.Rngs) -> Block:
            return Block(width, num_heads, mlp_ratio, dropout, conditioned, dtype, rngs)

        self.layers = stacked(rngs)
        self.modulation = Modulation(2, width, conditioned, None, rngs)
        self.head = nnx.Linear(width, K, kernel_init=nnx.initializers.zeros_init(), rngs=rngs)

    def __call__(
        self,
        xt: Int[Array, "B L"],
        t: Real[Array, " B"],
        *,
        label: Int[Array, " B"] | None = None,
        weight: Float[Array, "B L"] | None = None,
        key: Key[Array, ""] | None = None,
    ) -> Float[Array, "B L K"]:
        """Returns the output for x_t at time t, in steps, of sequences of these classes.

        Args:
            xt: categories.
            t: steps 1..max_time, or real numbers between.
            label: classes from 0.
            weight: places of weight 0 are not attended to.
            key: with a key, dropout is on.

        Raises:
            ValueError: there are labels but no num_classes.
        """
        condition = self._condition(t, label, len(xt))
        graphdef, layers = nnx.split(self.layers)
        keys = None if key is None else jax.random.split(key, self.num_layers)
        angles = rotary_angles(xt.shape[1], self.width // self.num_heads)
        seen = None if weight is None else weight > 0

        def block(x: Array, layer: tuple) -> tuple[Array, None]:
            params, key = layer
            return nnx.merge(graphdef, params)(x, condition, angles, seen, key), None

        x = self.embed.embedding[...][xt]  # in the type of the parameters
        x = x if self.dtype is None else x.astype(self.dtype)
        x, _ = jax.lax.scan(jax.checkpoint(block) if self.remat else block, x, (layers, keys))
        return of_each_token(self.head, modulated_norm(at_least_float32(x), *self.modulation(condition)))

    def _condition(self, t: Array, label: Array | None, B: int) -> Array | None:
        """Returns the sum of the embeddings of time and class [B, width], None for a network of neither."""
        found = class_embedding(self.class_emb, label, B)
        if self.temb1 is None or self.temb2 is None:
            return found
        time = self.temb2(nnx.swish(self.temb1(time_embedding(t, self.width, self.max_time))))
        return time if found is None else time + found


class Block(nnx.Module):
    """Adds self-attention to a sequence, and then what two linear maps with a GELU between make of it."""

    def __init__(
        self,
        width: int,
        num_heads: int,
        mlp_ratio: int,
        rate: float,
        conditioned: bool,
        dtype: DTypeLike | None,
        rngs: nnx.Rngs,
    ):
        linear = partial(nnx.Linear, dtype=dtype, rngs=rngs)
        self.num_heads, self.rate = num_heads, rate
        self.modulation = Modulation(6, width, conditioned, dtype, rngs)
        self.qkv = linear(width, 3 * width)
        self.proj_out = linear(width, width)
        self.mlp1 = linear(width, mlp_ratio * width)
        self.mlp2 = linear(mlp_ratio * width, width)

    def __call__(
        self,
        x: Float[Array, "B L n"],
        condition: Float[Array, "B n"] | None,
        angles: Float[Array, "L m"],
        seen: Bool[Array, "B L"] | None,
        key: Key[Array, ""] | None,
    ) -> Float[Array, "B L n"]:
        """Returns x with what the block adds; places that are not seen are not attended to."""
        one, two = (None, None) if key is None else jax.random.split(key)
        scale_a, shift_a, gate_a, scale_m, shift_m, gate_m = self.modulation(condition)
        h = self._attend(modulated_norm(x, scale_a, shift_a), angles, seen)
        x = x + gate_a * dropout(h, self.rate, one)
        h = of_each_token(self.mlp1, modulated_norm(x, scale_m, shift_m))
        h = of_each_token(self.mlp2, gelu(h))
        return x + gate_m * dropout(h, self.rate, two)

    def _attend(self, h: Array, angles: Array, seen: Array | None) -> Array:
        B, L, _ = h.shape
        parts = jnp.split(of_each_token(self.qkv, h), 3, axis=-1)
        q, k, v = (part.reshape(B, L, self.num_heads, -1) for part in parts)
        mixed = attention(rotated(q, angles), rotated(k, angles), v, seen)
        return of_each_token(self.proj_out, mixed.reshape(B, L, -1))


class Modulation(nnx.Module):
    """Makes n vectors of a width from the embedding of time and class, or n constants without; at first 0."""

    def __init__(self, n: int, width: int, conditioned: bool, dtype: DTypeLike | None, rngs: nnx.Rngs):
        zeros = nnx.initializers.zeros_init()
        linear = nnx.Linear(width, n * width, dtype=dtype, kernel_init=zeros, rngs=rngs)
        self.n, self.dtype = n, dtype
        self.linear = linear if conditioned else None
        self.bias = None if conditioned else nnx.Param(jnp.zeros(n * width, jnp.float32))

    def __call__(self, condition: Float[Array, "B n"] | None) -> list[Array]:
        """Returns n arrays [B, 1, width], or [1, 1, width] where there is nothing to see."""
        if self.linear is not None:
            assert condition is not None
            found = self.linear(nnx.swish(condition))
        else:
            assert self.bias is not None
            found = self.bias[...][None]
            found = found if self.dtype is None else found.astype(self.dtype)
        return jnp.split(found[:, None], self.n, axis=-1)


def of_each_token(linear: nnx.Linear, x: Float[Array, "B L n"]) -> Float[Array, "B L m"]:
    """Returns linear(x), taken of one matrix of B L rows.

    So the gradient of its kernel is one product. Of an array of three axes XLA on a CPU makes copies first,
    which take as long as the product.
    """
    B, L, n = x.shape
    return linear(x.reshape(B * L, n)).reshape(B, L, -1)


# Computed again in the backward pass: a CPU takes longer to store what is between. A scan needs no barriers.
computed_again = partial(jax.checkpoint, prevent_cse=False)

gelu = computed_again(nnx.gelu)


@computed_again
def modulated_norm(x: Array, scale: Array, shift: Array) -> Array:
    """Returns (1 + scale) y + shift, y = x with mean 0 and variance 1 over the last axis.

    Args:
        x: [B, L, n]; statistics are taken in float32 where x is narrower.
        scale, shift: [B, 1, n] or [1, 1, n].
    """
    wide = at_least_float32(x)
    centred = wide - wide.mean(-1, keepdims=True)
    y = centred * jax.lax.rsqrt((centred**2).mean(-1, keepdims=True) + EPS)
    return (y * (1.0 + at_least_float32(scale)) + at_least_float32(shift)).astype(x.dtype)
