"""Defines a network of places: a residual stream of the whole example, dense layers, logits of each place."""

import dataclasses
from typing import Annotated

from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Int, Key, Real

from d3pm_jax.checks import (
    FINITE,
    NOT_EMPTY,
    Categories,
    Count,
    FloatType,
    Size,
    UnitInterval,
    check_value,
    declared,
)
from d3pm_jax.models.layers import CATEGORIES, LABELS, TIMES, Conditioned, dropout, split_by_layer
from d3pm_jax.models.places import make_places
from d3pm_jax.numerics.logspace import at_least_float32

# Every norm adds this to the variance.
EPS = 1e-6


@dataclasses.dataclass(frozen=True)
class Inputs:
    """Says what a network of places is called with, and so what it predicts.

    Raises:
        ValueError: a field is not what it may be; sizes do not fit shape or K.
    """

    shape: Annotated[tuple[Size, ...], NOT_EMPTY]
    """*S of an example"""
    K: Categories
    """categories of x_t and of the logits"""
    max_time: Count | None = None
    """T of the process: the embedding of time sees 1000 (t - 1) / max_time, whatever T; None: it is not told
    t, as the predictions of an absorbing process need no time"""
    num_classes: Count | None = None
    """of the labels; None: there are none"""
    condition: tuple[Size, ...] | None = None
    """*C, the shape of what an example is conditioned on besides its class; None: there is nothing"""
    sizes: tuple | None = None
    """categories of each place, nested tuples with the shape *S, where they differ: K is then the largest of
    them, or one more for a mask K - 1 that all places have; None: each has K"""

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            plain = check_value(field.name, getattr(self, field.name), field.type)
            object.__setattr__(self, field.name, plain)
        make_places(self.shape, self.K, self.sizes)


class MLP(Conditioned):
    """Maps xt int32 [B, *S], t [B], label int32 [B], condition [B, *C] to float32 [B, *S, K].

    Each category of each place has a vector of its own, a mask too. The sum of those of an example, which is
    a linear map of the one-hots of all places, and the vectors of time, class and condition begin a residual
    stream. Blocks of a norm, a linear map, a swish and a linear map add to it. Of a last norm one more linear
    map makes the logits of all places. At first the output is 0. Where places have sizes, only their own
    categories have parameters, and the logits of all others, a mask among them, are -inf.

    Unlike a Transformer it supposes nothing of the places, neither that they are alike nor that they have an
    order, and has parameters for each of their categories: it is for columns of a table, bits of a code, and
    other places that are few or small.

    Args:
        inputs: what it is called with.
        width: of the residual stream.
        num_layers: blocks.
        dropout: rate, of what a block adds, used when a key is passed.
        remat: keep only the input of each block for the backward pass, and compute the rest again.
        dtype: of the computation, that of the parameters by default. In bfloat16 the parameters, the
            embeddings, the statistics of norms and the last layer stay float32.
        rngs: for the initial weights.

    Raises:
        ValueError: an argument is not what it may be; the width is below 4 where the network is told t.
    """

    @declared()
    def __init__(
        self,
        inputs: Inputs,
        width: Size = 256,
        num_layers: Size = 4,
        dropout: UnitInterval = 0.0,
        remat: bool = False,
        dtype: FloatType = None,
        *,
        rngs: nnx.Rngs,
    ):
        self.K = inputs.K
        self.places = make_places(inputs.shape, inputs.K, inputs.sizes)
        self.remat = remat
        self.dtype = dtype
        # The sum over places then has the variance 1.
        init = nnx.initializers.normal(len(self.places.sizes) ** -0.5)
        self.embed = nnx.Embed(sum(self.places.row_counts), width, embedding_init=init, rngs=rngs)
        self._make_embeddings(width, inputs.max_time, inputs.num_classes, rngs)
        self.blocks = nnx.List([ResidualBlock(width, dropout, dtype, rngs) for _ in range(num_layers)])
        self.norm = nnx.LayerNorm(width, epsilon=EPS, rngs=rngs)
        zeros = nnx.initializers.zeros_init()
        self.head = nnx.Linear(width, self.places.num_logits, kernel_init=zeros, rngs=rngs)
        self._make_condition(inputs.condition, rngs)

    # The output has no names of places: a wrong category anywhere in an example marks all of its output.
    @declared(xt=CATEGORIES, t=TIMES, label=LABELS, condition=FINITE)
    def __call__(
        self,
        xt: Int[Array, " B *places"],
        t: Real[Array, " #B"],
        *,
        label: Int[Array, " #B"] | None = None,
        condition: Real[Array, " B *C"] | None = None,
        key: Key[Array, ""] | None = None,
    ) -> Float[Array, "B *S K"]:
        """Returns the output of the network for examples x_t of some classes at step t.

        Args:
            xt: categories.
            t: steps 1..max_time, or real numbers from 0 on; one of shape [1] is that of all examples.
            label: classes from 0, of shape [1] where all are the same.
            condition: of the shape that the network is for.
            key: with a key, dropout is on.

        Raises:
            ValueError: a category, step or label is out of range, where it is known: under `jit` the output
                of such an example is NaN; examples or conditions have another shape than the network was made
                for; there are labels but no num_classes.
        """
        # The embedding has the type of the parameters.
        h = self.places.sum_rows(self.embed.embedding[...], self.places.find_rows(xt))  # [B, width]
        embedded = self._embed_inputs(t, label, condition, len(xt))
        if embedded is not None:
            h = h + embedded
        if self.dtype is not None:
            h = h.astype(self.dtype)
        for block, block_key in zip(self.blocks, split_by_layer(key), strict=False):
            if self.remat:
                h = nnx.remat(ResidualBlock.__call__)(block, h, block_key)
            else:
                h = block(h, block_key)
        return self.places.split_logits(self.head(self.norm(at_least_float32(h))))


class ResidualBlock(nnx.Module):
    """Adds dropout(linear(swish(linear(norm(h))))) to h; the last map begins at 0."""

    def __init__(self, width: int, dropout: float, dtype: DTypeLike | None, rngs: nnx.Rngs):
        self.norm = nnx.LayerNorm(width, epsilon=EPS, dtype=dtype, rngs=rngs)
        self.linear1 = nnx.Linear(width, width, dtype=dtype, rngs=rngs)
        zeros = nnx.initializers.zeros_init()
        self.linear2 = nnx.Linear(width, width, dtype=dtype, kernel_init=zeros, rngs=rngs)
        self.dropout_rate = dropout

    def __call__(self, h: Float[Array, "B n"], key: Key[Array, ""] | None) -> Float[Array, "B n"]:
        """Returns the output of the block, with dropout for a key."""
        added = self.linear2(nnx.swish(self.linear1(self.norm(h))))
        return h + dropout(added, self.dropout_rate, key)
