"""Defines networks from vectors at places to features of each place, for the conditioners of a flow.

Places are those of a sequence, or the pixels of an image.
"""

from typing import Annotated, Any

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, Key

from d3pm_jax.checks import NOT_EMPTY, Count, Natural, Size, UnitInterval, declared
from d3pm_jax.models.attention import Form, choose_form
from d3pm_jax.models.backbone import Backbone
from d3pm_jax.models.layers import Style, apply_to_rows, split_by_layer
from d3pm_jax.models.transformer import (
    Block,
    Modulation,
    check_heads,
    gelu,
    modulated_norm,
    rotary_angles,
)

Memory = Any  # pytree of what a causal network remembers of the vectors before a place


class Features(nnx.Module):
    """Maps vectors [B, *places, n] to features [B, *places, out_features]; networks derive from it."""

    out_features: int

    def __call__(
        self, v: Float[Array, "B *places n"], *, key: Key[Array, ""] | None = None
    ) -> Float[Array, "B *places out_features"]:
        """Returns the features; with a key, dropout is on."""
        raise NotImplementedError(f"{type(self).__name__} has no __call__: define it")


class SequenceFeatures(Features):
    """Maps vectors [B, L, n] to features [B, L, out_features]; networks derive from it.

    In a causal network the features of a place depend on the vectors before that place alone.
    """

    length: int
    n_in: int

    def start(self, B: int) -> Memory:
        """Returns the memory of a causal network before the first place."""
        # Row 0 stands for the vector before the first place, which no features depend on.
        return jnp.zeros((B, self.length + 1, self.n_in))

    def step(
        self, memory: Memory, place: Array, previous: Float[Array, "B n"]
    ) -> tuple[Float[Array, "B out_features"], Memory]:
        """Returns the features of a place of a causal network, and the memory for the next place.

        By definition these are the features that the network has there. It is called for all vectors so far,
        and a network that can go on from what it has computed has a faster step.

        Args:
            memory: that of the place before, or of `start`.
            place: from 0.
            previous: the vector of the place before; it is ignored at place 0.
        """
        memory = memory.astype(previous.dtype)
        memory = jax.lax.dynamic_update_index_in_dim(memory, previous, place, axis=1)
        features = self(memory[:, 1:])
        return jax.lax.dynamic_index_in_dim(features, place, axis=1, keepdims=False), memory


class LSTMFeatures(SequenceFeatures):
    """Applies layers of LSTM to embedded vectors and places, as the flows of arXiv 2102.05379 do.

    A vector is embedded by two linear maps, each with a GELU after it, and a place by a table. The layers go
    in both directions, or from left to right where the network is causal: then the input of a place is the
    embedding of the place before.

    Args:
        length: L.
        n_in: numbers of a vector.
        causal: whether features depend on the vectors before a place alone.
        width: of the state of an LSTM in each direction, at least 8; its input has width / 2 numbers, of
            which width / 8 embed the place.
        num_layers: of LSTM.
        input_dropout: rate at which the embedding of a vector is left out in training, as a whole.
        rngs: for the initial weights.

    Raises:
        ValueError: an argument is not what it may be.
    """

    @declared()
    def __init__(
        self,
        length: Size,
        n_in: Size,
        causal: bool,
        width: Size = 512,
        num_layers: Count = 2,
        input_dropout: UnitInterval = 0.0,
        *,
        rngs: nnx.Rngs,
    ):
        if width < 8:
            raise ValueError(f"width = {width}: an eighth of it embeds the place, so it must be at least 8")
        self.length = length
        self.n_in = n_in
        self.causal = causal
        self.width = width
        self.input_dropout = input_dropout
        n_place = width // 8
        n_embedded = width // 2 - n_place
        self.embed1 = nnx.Linear(n_in, width // 2, rngs=rngs)
        self.embed2 = nnx.Linear(width // 2, n_embedded, rngs=rngs)
        # A place counts from both ends in the original program. All sequences are of one length here, where
        # that is the same as one table.
        self.places = nnx.Embed(length, n_place, rngs=rngs)
        self.out_features = width // 2 if causal else width
        layers = []
        n = n_embedded + n_place
        for _ in range(num_layers):
            layers.append(LSTMLayer(n, width, causal, rngs))
            n = layers[-1].out_features
        self.layers = nnx.List(layers)
        self.linear_out = nnx.Linear(n, self.out_features, rngs=rngs)

    def __call__(
        self, v: Float[Array, "B L n"], *, key: Key[Array, ""] | None = None
    ) -> Float[Array, "B L out_features"]:
        """Returns the features; with a key, vectors are left out at random."""
        x = self._embed(v)  # [B, L, width / 2 - width / 8]
        if key is not None and self.input_dropout > 0.0:
            # What remains is not enlarged, as in the original program.
            remains = jax.random.bernoulli(key, 1.0 - self.input_dropout, (*x.shape[:2], 1))
            x = jnp.where(remains, x, 0.0)
        places = jnp.broadcast_to(self.places.embedding[...][None], (len(x), *self.places.embedding.shape))
        x = jnp.concatenate([x, places.astype(x.dtype)], axis=-1)
        if self.causal:
            x = jnp.pad(x[:, :-1], ((0, 0), (1, 0), (0, 0)))
        for layer in self.layers:
            x = layer(x)
        return exact_gelu(apply_to_rows(self.linear_out, x))

    def start(self, B: int) -> Memory:
        """Returns the states of all layers, which begin as zeros."""
        dtype = self.linear_out.kernel.dtype
        return [(jnp.zeros((B, self.width), dtype), jnp.zeros((B, self.width), dtype)) for _ in self.layers]

    def step(
        self, memory: Memory, place: Array, previous: Float[Array, "B n"]
    ) -> tuple[Float[Array, "B out_features"], Memory]:
        """Returns what `SequenceFeatures.step` defines, by one step of each LSTM."""
        x = self._embed(previous)  # [B, width / 2 - width / 8]
        # The first place has no place before it: its input is 0, and the index there does not matter.
        place_before = self.places.embedding[...][jnp.maximum(place - 1, 0)]
        place_before = jnp.broadcast_to(place_before[None], (len(x), place_before.shape[0]))
        x = jnp.concatenate([x, place_before.astype(x.dtype)], axis=-1)
        x = jnp.where(place == 0, 0.0, x)
        states = []
        for layer, state in zip(self.layers, memory, strict=True):
            hidden, cell = layer.forward.advance(state, layer.forward.map_input(x))
            # Noise in float64 makes the states so too, and a loop keeps the types that it starts with.
            states.append((hidden.astype(state[0].dtype), cell.astype(state[1].dtype)))
            x = hidden
        return exact_gelu(self.linear_out(x)), states

    def _embed(self, v: Array) -> Array:
        """Embeds vectors [.., n]."""
        return exact_gelu(apply_to_rows(self.embed2, exact_gelu(apply_to_rows(self.embed1, v))))


class LSTMLayer(nnx.Module):
    """Applies an LSTM to a sequence from left to right and, where not causal, another from right to left."""

    def __init__(self, n_in: int, width: int, causal: bool, rngs: nnx.Rngs):
        self.forward = LSTM(n_in, width, rngs)
        self.backward = None if causal else LSTM(n_in, width, rngs)
        self.out_features = width if causal else 2 * width

    def __call__(self, x: Float[Array, "B L n"]) -> Float[Array, "B L m"]:
        """Returns the outputs of both directions, joined."""
        y = self.forward(x)
        if self.backward is None:
            return y
        return jnp.concatenate([y, self.backward(x, reverse=True)], axis=-1)


class LSTM(nnx.Module):
    """h, c = a step of an LSTM (Hochreiter and Schmidhuber 1997), whose gates are i, f, g and o.

    `nnx.RNN` would map the input of each place by a product of its own. Here one product maps all of them
    before the loop, which is left with the product with h.
    """

    def __init__(self, n_in: int, width: int, rngs: nnx.Rngs):
        self.input = nnx.Linear(n_in, 4 * width, rngs=rngs)
        self.recurrent = nnx.Linear(width, 4 * width, use_bias=False, rngs=rngs)

    def map_input(self, x: Float[Array, "*S n"]) -> Float[Array, "*S m"]:
        """Returns what the input adds to the gates before their nonlinearities, [*S, 4 width]."""
        return apply_to_rows(self.input, x)

    def advance(self, state: tuple[Array, Array], from_input: Float[Array, "B m"]) -> tuple[Array, Array]:
        """Returns h and c [B, width] after one more place."""
        h, c = state
        i, f, g, o = jnp.split(from_input + self.recurrent(h), 4, axis=-1)
        c = nnx.sigmoid(f) * c + nnx.sigmoid(i) * jnp.tanh(g)
        h = nnx.sigmoid(o) * jnp.tanh(c)
        return h, c

    def __call__(self, x: Float[Array, "B L n"], reverse: bool = False) -> Float[Array, "B L m"]:
        """Returns h of all places, [B, L, width], from left to right or in reverse."""
        from_input = self.map_input(x)  # [B, L, 4 width]

        def advance(state: tuple[Array, Array], from_input: Array) -> tuple[tuple[Array, Array], Array]:
            state = self.advance(state, from_input)
            return state, state[0]

        zeros = jnp.zeros((len(x), self.recurrent.in_features), from_input.dtype)
        _, h = jax.lax.scan(
            advance, (zeros, zeros), from_input.swapaxes(0, 1), reverse=reverse
        )  # [L, B, width]
        return h.swapaxes(0, 1)


class TransformerFeatures(SequenceFeatures):
    """Applies the blocks of `Transformer` to embedded vectors; if causal, a place sees those before it.

    Args:
        length: L.
        n_in: numbers of a vector.
        causal: whether features depend on the vectors before a place alone.
        width: of the residual stream and of the features; divides by num_heads into even parts.
        num_layers: blocks.
        num_heads: of every attention.
        mlp_ratio: width of the hidden layer of a block as a multiple of width.
        dropout: rate, of what a block adds, used when a key is passed.
        attention: kernels of attention on a GPU or TPU; None for the best, see `choose_form`.
        rngs: for the initial weights.

    Raises:
        ValueError: an argument is not what it may be; the width does not divide into heads of an even width.
    """

    @declared()
    def __init__(
        self,
        length: Size,
        n_in: Size,
        causal: bool,
        width: Size = 256,
        num_layers: Count = 2,
        num_heads: Count = 4,
        mlp_ratio: Size = 4,
        dropout: UnitInterval = 0.0,
        *,
        attention: Form | None = None,
        rngs: nnx.Rngs,
    ):
        check_heads(width, num_heads)
        self.length = length
        self.n_in = n_in
        self.causal = causal
        self.width = width
        self.num_heads = num_heads
        self.attention: Form = choose_form(attention, None)
        self.out_features = width
        # Blocks begin with a norm, which tells v from 2 v by a bias that is not 0 alone.
        self.embed = nnx.Linear(n_in, width, bias_init=nnx.initializers.normal(1.0), rngs=rngs)
        # The first place of a causal network has a vector of its own as its input. Of zeros the norms, which
        # divide by the standard deviation, would have gradients a thousand times as large as elsewhere.
        self.first = nnx.Param(jax.random.normal(rngs.params(), (width,), jnp.float32)) if causal else None
        blocks = [Block(width, num_heads, mlp_ratio, dropout, False, None, rngs) for _ in range(num_layers)]
        self.blocks = nnx.List(blocks)
        self.modulation = Modulation(2, width, False, None, rngs)

    def __call__(
        self, v: Float[Array, "B L n"], *, key: Key[Array, ""] | None = None
    ) -> Float[Array, "B L out_features"]:
        """Returns the features; with a key, dropout is on."""
        B, L, _ = v.shape
        x = apply_to_rows(self.embed, v)  # [B, L, width]
        attended = None
        if self.first is not None:
            first = jnp.broadcast_to(self.first[...][None, None], (B, 1, self.width))
            x = jnp.concatenate([first.astype(x.dtype), x[:, :-1]], axis=1)
            attended = jnp.broadcast_to(jnp.tri(L, dtype=bool)[None], (B, L, L))
        angles = rotary_angles(L, self.width // self.num_heads)  # [L, width / heads / 2]
        for block, block_key in zip(self.blocks, split_by_layer(key), strict=False):
            x = block(x, None, angles, attended, block_key, self.attention)
        scale, shift = self.modulation(None)
        return gelu(modulated_norm(x, scale, shift))


class UNetFeatures(Features, Backbone):
    """Maps vectors [B, H, W, n] to features [B, H, W, ch] by a U-Net without a time.

    Sizes that cannot be halved often enough are padded with zeros, as in `UNet`.

    Args:
        size: (H, W).
        n_in: numbers of a vector.
        causal: False, as a U-Net sees all pixels.
        ch: width of the first level, and number of features.
        ch_mult: width of each level as a multiple of ch; each level halves the size.
        num_res_blocks: residual blocks per level on the way down, one more on the way up.
        dropout: rate, used when a key is passed.
        groups: of every GroupNorm; divides all widths.
        num_heads: of the attention in the middle.
        attention: kernels of attention on a GPU or TPU; None for the best, see `choose_form`.
        rngs: for the initial weights.

    Raises:
        ValueError: an argument is not what it may be; a width is not divisible by groups or num_heads.
    """

    @declared()
    def __init__(
        self,
        size: tuple[Size, Size],
        n_in: Size,
        causal: bool,
        ch: Size = 32,
        ch_mult: Annotated[tuple[Size, ...], NOT_EMPTY] = (1, 2),
        num_res_blocks: Natural = 1,
        dropout: UnitInterval = 0.0,
        groups: Size = 8,
        num_heads: Count = 1,
        *,
        attention: Form | None = None,
        rngs: nnx.Rngs,
    ):
        if causal:
            raise ValueError(
                "causal = True: a U-Net sees all pixels; take LSTMFeatures or TransformerFeatures"
            )
        self.out_features = ch
        # Blocks add an embedding of time, which is one number here, and always 0.
        style = Style(
            rngs,
            init=nnx.initializers.lecun_normal(),
            init_last=nnx.initializers.lecun_normal(),
            init_attention=nnx.initializers.zeros_init(),
            down_pads=(0, 1),
            eps=1e-6,
            groups=groups,
            num_heads=num_heads,
            dropout_rate=dropout,
            n_embedding=1,
            labelled=False,
            dtype=None,
            attention=attention,
        )
        self._build(style, n_in, ch, ch, ch_mult, num_res_blocks, attn_levels=())

    def __call__(
        self, v: Float[Array, "B H W n"], *, key: Key[Array, ""] | None = None
    ) -> Float[Array, "B H W out_features"]:
        """Returns the features; with a key, dropout is on."""
        no_time = jnp.zeros((len(v), 1), v.dtype)
        return self._run(v, no_time, None, key)


def exact_gelu(x: Array) -> Array:
    """x Phi(x), as PyTorch computes it by default; that of Flax approximates it."""
    return nnx.gelu(x, approximate=False)
