"""Defines a small classifier of noised examples, which takes them as one-hots."""

import math
from typing import Annotated

from flax import nnx
from jaxtyping import Array, Float, Key, Real

from d3pm_jax.checks import FINITE, NOT_EMPTY, Categories, Count, Size, UnitInterval, declared
from d3pm_jax.models.layers import TIMES, apply_to_rows, dropout, split_by_layer, time_embedding

# Every norm adds this to the variance.
EPS = 1e-6


class NoisyClassifier(nnx.Module):
    """Maps one-hots of x_t, float [B, *S, K], and t [B] to logits of the label, [B, classes].

    Each element is embedded, and the embeddings of an example, one after the other, go through a linear map
    to the width of a residual stream, to which the embedding of time is added. Layers of a norm, a swish and
    a linear map add to it. It is a function of one-hots rather than of categories, so that there is a
    gradient in them: guidance by a classifier takes it to first order.

    Args:
        shape: *S of an example.
        K: categories.
        classes: number of labels.
        max_time: T of the process; the embedding of time sees 1000 (t - 1) / max_time, whatever T.
        width: of the residual stream.
        num_layers: layers after the first linear map.
        embedding: numbers for each element of an example.
        dropout: rate, of what a layer adds, used when a key is passed.
        rngs: for the initial weights.

    Raises:
        ValueError: an argument is not what it may be; the width is below 4.
    """

    @declared()
    def __init__(
        self,
        shape: Annotated[tuple[Size, ...], NOT_EMPTY],
        K: Categories,
        classes: Count,
        max_time: Count,
        width: Size = 256,
        num_layers: Size = 2,
        embedding: Size = 8,
        dropout: UnitInterval = 0.1,
        *,
        rngs: nnx.Rngs,
    ):
        if width < 4:
            raise ValueError(f"width = {width}: the embedding of time needs a width of at least 4")
        self.shape = shape
        self.K = K
        self.width = width
        self.max_time = max_time
        self.embed = nnx.Linear(K, embedding, use_bias=False, rngs=rngs)
        self.first = nnx.Linear(math.prod(shape) * embedding, width, rngs=rngs)
        self.temb1 = nnx.Linear(width, width, rngs=rngs)
        self.temb2 = nnx.Linear(width, width, rngs=rngs)
        self.blocks = nnx.List([DenseBlock(width, dropout, rngs) for _ in range(num_layers)])
        self.norm = nnx.LayerNorm(width, epsilon=EPS, rngs=rngs)
        self.last = nnx.Linear(width, classes, rngs=rngs)

    @declared(one_hots=FINITE, t=TIMES)
    def __call__(
        self, one_hots: Float[Array, "B *S K"], t: Real[Array, " #B"], *, key: Key[Array, ""] | None = None
    ) -> Float[Array, "B classes"]:
        """Returns logits of the label for examples x_t at step t.

        Args:
            one_hots: of the categories, or other numbers in their place.
            t: steps 0..max_time, or real numbers between; one of shape [1] is that of all examples.
            key: with a key, dropout is on.

        Raises:
            ValueError: the examples have another shape; a number is not finite, or a step is out of range,
                where it is known: under `jit` the logits of such an example are NaN.
        """
        if one_hots.shape[1:] != (*self.shape, self.K):
            axes = ", ".join(map(str, ("B", *self.shape, self.K)))
            raise ValueError(
                f"one_hots has shape {list(one_hots.shape)}: pass [{axes}], one-hots of the {self.K} "
                f"categories of each element"
            )
        embedded = apply_to_rows(self.embed, one_hots)  # [B, *S, embedding]
        h = self.first(embedded.reshape(len(one_hots), -1))  # [B, width]
        time_part = self.temb1(time_embedding(t, self.width, self.max_time))
        h = h + self.temb2(nnx.swish(time_part))
        for block, block_key in zip(self.blocks, split_by_layer(key), strict=False):
            h = block(h, block_key)
        return self.last(nnx.swish(self.norm(h)))


class DenseBlock(nnx.Module):
    """Adds dropout(linear(swish(norm(h)))) to h."""

    def __init__(self, width: int, dropout: float, rngs: nnx.Rngs):
        self.norm = nnx.LayerNorm(width, epsilon=EPS, rngs=rngs)
        self.linear = nnx.Linear(width, width, rngs=rngs)
        self.dropout_rate = dropout

    def __call__(self, h: Float[Array, "B n"], key: Key[Array, ""] | None) -> Float[Array, "B n"]:
        """Returns the output of the block, with dropout for a key."""
        return h + dropout(self.linear(nnx.swish(self.norm(h))), self.dropout_rate, key)
