"""Defines a transformer: it maps categories to one vector for each place."""

import math
from functools import partial
from typing import Annotated, Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.core import Tracer
from jax.typing import DTypeLike
from jaxtyping import Array, Bool, Float, Int, Key, Real, Shaped

from d3pm_jax.blocks import Layout
from d3pm_jax.checks import (
    FINITE,
    NOT_EMPTY,
    Categories,
    Count,
    FloatType,
    Size,
    UnitInterval,
    at_least,
    declared,
    shorten_value,
)
from d3pm_jax.models.attention import Form, attend, choose_form
from d3pm_jax.models.layers import (
    CATEGORIES,
    LABELS,
    TIMES,
    Conditioned,
    apply_to_rows,
    dropout,
)
from d3pm_jax.models.places import look_up, make_places
from d3pm_jax.numerics.logspace import at_least_float32

# Every norm adds this to the variance.
EPS = 1e-6


class Transformer(Conditioned):
    """Maps xt int32 [B, *S], t [B], label int32 [B], weight [B, *S], condition [B, *C] to float32 [B, *S, K].

    Blocks of attention and two linear maps, each after a layer norm whose scale and shift, and the factor of
    what is added, come from the embedding of time, class and condition, as in adaLN-zero (Peebles and Xie
    2023, arXiv 2212.09748). At first the output is 0, but of tied weights. The parameters of all blocks are
    stacked, [num_layers, ...].

    By default positions are rotary (Su et al. 2021, arXiv 2104.09864): examples are sequences [L] of any
    length, and the network knows only distances between places: of a row whose categories are all equal, so
    are its logits. Learned positions tell places apart: a vector for each place is added to the input, or for
    a grid, the sum of one for each axis. Such a network is for examples of one shape, which may be any, and
    for sequences that are shorter.

    Args:
        K: categories.
        max_time: T of the process; the embedding of time sees 1000 (t - 1) / max_time, whatever T.
        width: of the residual stream; divides by num_heads into even parts.
        num_layers: blocks.
        num_heads: of every attention.
        mlp_ratio: width of the hidden layer of a block as a multiple of width.
        dropout: rate, of what a block adds, used when a key is passed.
        see_time: whether the network is told t. The predictions of an absorbing process need no time.
        num_classes: of the labels, if there are any; without labels class_emb gives its bias alone.
        remat: keep only the input of each block for the backward pass, and compute the rest again.
        dtype: of the computation, that of the parameters by default. In bfloat16 the parameters, the
            embeddings, the statistics of norms, the softmax and the last layer stay float32.
        positions: "rotary"; "learned", a vector for each place; "grid", a vector for each place along each
            axis of *S, of which a place has the sum.
        shape: *S of an example, for positions other than "rotary", and for sizes.
        condition: shape of what an example is conditioned on besides its class, if there is anything: a
            linear map of its numbers, `condition`, is added to the embedding of time and class.
        sizes: categories of each place, nested tuples with the shape *S, where they differ. K is then the
            largest of them, or one more for a mask K - 1 that all places have. Each place has embeddings and
            a last layer of its own, and the logits of what it cannot be, a mask too, are -inf. None: the
            places have these in common.
        tied: whether the kernel of the last layer is the embedding of categories, transposed; it still has a
            bias. Not with sizes.
        attention: form of attention on a GPU or TPU, see `models.choose_form`; None: the best one.
        rngs: for the initial weights.

    Raises:
        ValueError: an argument is not what it may be; the width does not divide into heads of an even width,
            or is below 4 where the network is told t; shape, positions and sizes do not fit each other; the
            device does not allow the form of attention.
    """

    @declared()
    def __init__(
        self,
        K: Categories,
        max_time: Count,
        width: Size = 256,
        num_layers: Size = 6,
        num_heads: Size = 4,
        mlp_ratio: Size = 4,
        dropout: UnitInterval = 0.0,
        see_time: bool = True,
        num_classes: Count | None = None,
        remat: bool = False,
        dtype: FloatType = None,
        *,
        positions: Literal["rotary", "learned", "grid"] = "rotary",
        shape: Annotated[tuple[Size, ...], NOT_EMPTY] | None = None,
        condition: tuple[Size, ...] | None = None,
        sizes: tuple | None = None,
        tied: bool = False,
        attention: Form | None = None,
        rngs: nnx.Rngs,
    ):
        check_heads(width, num_heads)
        if tied and sizes is not None:
            raise ValueError("tied = True is for places that share their categories: leave it or sizes out")
        axes = _find_axes(positions, shape, sizes)
        self.K = K
        self.num_layers = num_layers
        self.num_heads = num_heads
        self.dropout_rate = dropout
        self.remat = remat
        self.dtype = dtype
        self.tied = tied
        self.attention: Form = choose_form(attention, dtype)
        conditioned = see_time or num_classes is not None or condition is not None
        # What places differ in, where that is known.
        self.places = None if shape is None else make_places(shape, K, sizes)
        self.shares_categories = sizes is None
        num_rows = num_logits = K
        if self.places is not None and not self.shares_categories:
            num_rows = sum(self.places.row_counts)
            num_logits = self.places.num_logits
        self.embed = nnx.Embed(num_rows, width, rngs=rngs)
        self._make_embeddings(width, max_time if see_time else None, num_classes, rngs)
        # Steps are checked by it in either case.
        self.max_time = max_time

        # The parameters of all blocks are stacked, so that one scan over them runs the blocks: the compiled
        # program has one block, however many there are.
        @nnx.split_rngs(splits=num_layers)
        @nnx.vmap
        def make_blocks(rngs: nnx.Rngs) -> Block:
            return Block(width, num_heads, mlp_ratio, dropout, conditioned, dtype, rngs)

        self.layers = make_blocks(rngs)
        self.modulation = Modulation(2, width, conditioned, None, rngs)
        self.head = nnx.Linear(width, num_logits, kernel_init=nnx.initializers.zeros_init(), rngs=rngs)
        if tied:
            del self.head.kernel
        self._make_condition(condition, rngs)
        self.positions = nnx.List([nnx.Embed(length, width, rngs=rngs) for length in axes])

    # The output has no names of places: a wrong category anywhere in an example marks all of its output.
    @declared(xt=CATEGORIES, t=TIMES, label=LABELS, weight=at_least(0), condition=FINITE)
    def __call__(
        self,
        xt: Int[Array, " B *places"],
        t: Real[Array, " #B"],
        *,
        label: Int[Array, " #B"] | None = None,
        weight: Shaped[Array, " B *places"] | None = None,
        condition: Real[Array, " B *C"] | None = None,
        layout: Layout | None = None,
        key: Key[Array, ""] | None = None,
    ) -> Float[Array, "B *S K"]:
        """Returns the output of the network for examples x_t of some classes at step t.

        Args:
            xt: categories.
            t: steps 1..max_time, or real numbers from 0 on; one of shape [1] is that of all examples.
            label: classes from 0, of shape [1] where all are the same.
            weight: places of weight 0, or False, are not attended to.
            condition: of the shape that the network is for.
            layout: of sequences, which place of an example each place of xt is, and which others it attends
                to. Without it they are those of the example, and attend to all.
            key: with a key, dropout is on.

        Raises:
            ValueError: a category, step, label or weight is out of range, where it is known: under `jit` the
                output of such an example is NaN; examples or conditions have another shape than the network
                is for; there are labels but no num_classes; a layout is not of these places, or the network
                has categories of each place.
        """
        x = self.hidden(
            xt, t, label=label, weight=weight, condition=condition, layout=layout, key=key
        )  # [B, *S, width]
        if self.places is not None and not self.shares_categories:
            return self.places.apply_heads(self.head, x.reshape(len(xt), -1, self.width))
        if not self.tied:
            return apply_to_rows(self.head, x)
        kernel, bias, _ = self.projection()
        return (jnp.dot(x.reshape(-1, self.width), kernel.T) + bias[None]).reshape(*xt.shape, self.K)

    @declared(xt=CATEGORIES, t=TIMES, label=LABELS, weight=at_least(0), condition=FINITE)
    def hidden(
        self,
        xt: Int[Array, " B *places"],
        t: Real[Array, " #B"],
        *,
        label: Int[Array, " #B"] | None = None,
        weight: Shaped[Array, " B *places"] | None = None,
        condition: Real[Array, " B *C"] | None = None,
        layout: Layout | None = None,
        key: Key[Array, ""] | None = None,
    ) -> Float[Array, "B *S width"]:
        """Returns what the last layer is given, [B, *S, width]; arguments and errors are those of a call."""
        if layout is None:
            self._check_shape(xt)
        else:
            self._check_layout(xt, layout)
        embedded = self._embed_inputs(t, label, condition, len(xt))  # [B, width], or None
        graphdef, layers = nnx.split(self.layers)
        keys = None if key is None else jax.random.split(key, self.num_layers)  # [num_layers]
        angles = None
        if not self.positions:
            angles = rotary_angles(xt.shape[1], self.width // self.num_heads)  # [L, width / heads / 2]
        attended = None if weight is None else weight.reshape(len(weight), -1)[:, None] > 0  # [B, 1, L]
        if layout is not None:
            angles = None if angles is None else angles[layout.places]
            attended = layout.attended[None] & (True if attended is None else attended)
            attended = jnp.broadcast_to(attended, (len(xt), *layout.attended.shape))  # [B, L, L]

        def block(x: Array, layer: tuple) -> tuple[Array, None]:
            params, key = layer
            return nnx.merge(graphdef, params)(x, embedded, angles, attended, key, self.attention), None

        if self.remat:
            block = jax.checkpoint(block)
        # The embedding has the type of the parameters.
        x = self._embed_places(xt, layout)  # [B, L, width]
        if self.dtype is not None:
            x = x.astype(self.dtype)
        x, _ = jax.lax.scan(block, x, (layers, keys))
        x = at_least_float32(x)
        scale, shift = self.modulation(embedded)
        return modulated_norm(x, scale, shift).reshape(*xt.shape, self.width)

    def projection(self) -> tuple[Array, Array, bool]:
        """Returns the last layer, the same for all places: its kernel, its bias [K], and whether it is tied.

        The kernel is [width, K]; of tied weights it is the embedding, [K, width].

        Raises:
            ValueError: each place has a last layer of its own.
        """
        if not self.shares_categories:
            raise ValueError("places have categories and last layers of their own: make it without sizes")
        bias: Any = self.head.bias
        if self.tied:
            return self.embed.embedding[...], bias[...], True
        return self.head.kernel[...], bias[...], False

    def _check_shape(self, xt: Int[Array, " B *places"]) -> None:
        """Raises ValueError where examples have a shape that the network is not for."""
        if self.places is None:
            if xt.ndim != 2:
                raise ValueError(f"xt has shape {list(xt.shape)}, expected [B, L]: pass sequences")
            return
        # The first places of a sequence are a sequence too.
        is_sequence = self.shares_categories and len(self.places.shape) == 1 and xt.ndim == 2
        if not (is_sequence and xt.shape[1] < self.places.shape[0]):
            self.places.check_shape(xt)

    def _check_layout(self, xt: Int[Array, " B *places"], layout: Layout) -> None:
        """Raises ValueError where x_t has not the places of a layout, or the network is for no sequences."""
        if not self.shares_categories or (self.places is not None and len(self.places.shape) > 1):
            raise ValueError(
                "a layout is of sequences whose places share their categories: make the network without "
                "sizes, and with a shape (L,) or none"
            )
        if xt.shape[1:] != layout.places.shape:
            raise ValueError(
                f"xt has shape {list(xt.shape)}, and the layout is of {len(layout.places)} places: pass xt "
                f"[B, {len(layout.places)}]"
            )
        # A layout that is an argument of a compiled function has no values yet.
        if self.places is None or isinstance(layout.places, Tracer):
            return
        length = math.prod(self.places.shape)
        last = np.asarray(layout.places).max()
        if last >= length:
            raise ValueError(
                f"the layout has place {last}, and the network is for {length} places: make it with shape = "
                f"({last + 1},)"
            )

    def _embed_places(self, xt: Int[Array, " B *places"], layout: Layout | None) -> Float[Array, "B L n"]:
        """Returns the sum of the vectors of categories and of positions."""
        table = self.embed.embedding[...]
        if self.places is None or self.shares_categories:
            x = table[xt.reshape(len(xt), -1)]
        else:
            x = look_up(table, self.places.find_rows(xt))
        if not self.positions:
            return x
        # The vectors of an axis are repeated along the others.
        num_axes = len(self.positions)
        vectors_by_axis = []
        for axis, layer in enumerate(self.positions):
            others = [other for other in range(num_axes) if other != axis]
            vectors_by_axis.append(jnp.expand_dims(layer.embedding[...], others))
        vectors = sum(vectors_by_axis[1:], start=vectors_by_axis[0]).reshape(1, -1, self.width)
        if layout is not None:
            return x + vectors[:, layout.places]
        return x + vectors[:, : x.shape[1]]


class Block(nnx.Module):
    """Adds to a sequence its self-attention, then the output of two linear maps with a GELU between."""

    def __init__(
        self,
        width: int,
        num_heads: int,
        mlp_ratio: int,
        dropout_rate: float,
        conditioned: bool,
        dtype: DTypeLike | None,
        rngs: nnx.Rngs,
    ):
        linear = partial(nnx.Linear, dtype=dtype, rngs=rngs)
        self.num_heads = num_heads
        self.dropout_rate = dropout_rate
        self.modulation = Modulation(6, width, conditioned, dtype, rngs)
        self.qkv = linear(width, 3 * width)
        self.proj_out = linear(width, width)
        self.mlp1 = linear(width, mlp_ratio * width)
        self.mlp2 = linear(mlp_ratio * width, width)

    def __call__(
        self,
        x: Float[Array, "B L n"],
        condition: Float[Array, "#B n"] | None,
        angles: Float[Array, "L m"] | None,
        attended: Bool[Array, "B n_from L"] | None,
        key: Key[Array, ""] | None,
        form: Form = "xla",
    ) -> Float[Array, "B L n"]:
        """Returns the output of the block; each place ignores those outside of its row of `attended`."""
        attention_key, mlp_key = (None, None) if key is None else jax.random.split(key)
        scale_a, shift_a, gate_a, scale_m, shift_m, gate_m = self.modulation(condition)

        B, L, _ = x.shape
        qkv = map_normed(self.qkv, x, scale_a, shift_a)  # [B, L, 3 n]
        q, k, v = (x.reshape(B, L, self.num_heads, -1) for x in jnp.split(qkv, 3, axis=-1))
        if angles is not None:
            q = rotate_pairs(q, angles)
            k = rotate_pairs(k, angles)
        mixed = attend(q, k, v, attended, form)
        h = apply_to_rows(self.proj_out, mixed.reshape(B, L, -1))
        x = x + gate_a * dropout(h, self.dropout_rate, attention_key)

        h = map_normed(self.mlp1, x, scale_m, shift_m)
        h = map_activated(self.mlp2, h)
        return x + gate_m * dropout(h, self.dropout_rate, mlp_key)


class Modulation(nnx.Module):
    """Makes n vectors from the embedding of time and class, or n constant vectors without; all begin at 0."""

    def __init__(self, n: int, width: int, conditioned: bool, dtype: DTypeLike | None, rngs: nnx.Rngs):
        self.n = n
        self.dtype = dtype
        zeros = nnx.initializers.zeros_init()
        # The layer is made in either case, since that takes a key from rngs: so layers that are made after it
        # have the same weights with and without a condition.
        linear = nnx.Linear(width, n * width, dtype=dtype, kernel_init=zeros, rngs=rngs)
        if conditioned:
            self.linear = linear
            self.bias = None
        else:
            self.linear = None
            self.bias = nnx.Param(jnp.zeros(n * width, jnp.float32))

    def __call__(self, condition: Float[Array, "#B n"] | None) -> list[Array]:
        """Returns n arrays [B, 1, width], or [1, 1, width] for a network that sees no time and no class."""
        if self.linear is not None:
            assert condition is not None
            vectors = self.linear(nnx.swish(condition))  # [B, n width]
        else:
            assert self.bias is not None
            vectors = self.bias[...][None]  # [1, n width]
            if self.dtype is not None:
                vectors = vectors.astype(self.dtype)
        return jnp.split(vectors[:, None], self.n, axis=-1)


# A function that is wrapped in this is computed again in the backward pass: on a CPU storing its intermediate
# values takes longer. The barriers that keep XLA from merging both computations are needed only outside of a
# scan.
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


# For the gradient of its kernel a linear map keeps what it is given. In these two the backward pass makes it
# again, from x and from h, which it keeps in any case.


@computed_again
def map_normed(linear: nnx.Linear, x: Array, scale: Array, shift: Array) -> Float[Array, "B L m"]:
    """Returns linear(modulated_norm(x, scale, shift))."""
    return apply_to_rows(linear, modulated_norm(x, scale, shift))


@computed_again
def map_activated(linear: nnx.Linear, h: Float[Array, "B L m"]) -> Float[Array, "B L n"]:
    """Returns linear(gelu(h))."""
    return apply_to_rows(linear, nnx.gelu(h))


def _find_axes(positions: str, shape: tuple[int, ...] | None, sizes: tuple | None) -> tuple[int, ...]:
    """Returns how many vectors each axis of positions has; none where these are rotary.

    Raises:
        ValueError: there is no shape where one is needed, or rotary positions have that of no sequences.
    """
    if shape is None:
        if positions != "rotary" or sizes is not None:
            raise ValueError(
                f"positions = {positions!r}, sizes = {shorten_value(sizes)}: such a network needs the shape "
                f"of an example, pass shape"
            )
        return ()
    if positions == "grid":
        return shape
    if positions == "learned":
        return (math.prod(shape),)
    if len(shape) != 1:
        raise ValueError(
            f"shape = {shape}, but rotary positions are for sequences: pass positions='grid' or 'learned'"
        )
    return ()


def check_heads(width: int, num_heads: int) -> None:
    """Raises ValueError unless a width divides into heads of an even width, whose halves are rotated."""
    if width % (2 * num_heads):
        raise ValueError(
            f"width = {width} does not divide into {num_heads} heads of an even width: change one"
        )


def rotary_angles(length: int, d: int) -> Float[Array, "length m"]:
    """Returns place * 10000^(-2 i / d) for i = 0..d / 2 - 1."""
    frequencies = 10000.0 ** (-jnp.arange(d // 2) / (d // 2))
    return jnp.arange(length)[:, None] * frequencies[None]


def rotate_pairs(x: Float[Array, "B L h d"], angles: Float[Array, "L m"]) -> Float[Array, "B L h d"]:
    """Rotates entries i and i + d / 2 of x, taken as a point of the plane, by angle i of their place."""
    angles = angles[None, :, None]  # [1, L, 1, d / 2]
    cos = jnp.cos(angles)
    sin = jnp.sin(angles)
    first, second = jnp.split(at_least_float32(x), 2, axis=-1)
    turned = [first * cos - second * sin, first * sin + second * cos]
    return jnp.concatenate(turned, axis=-1).astype(x.dtype)
