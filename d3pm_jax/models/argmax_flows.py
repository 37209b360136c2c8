"""Defines argmax flows: networks for the probability of sequences and images (arXiv 2102.05379).

A category is written in binary digits, and a digit is the sign of a number: of categories x [B, *S] there are
vectors v [B, *S, D] of D numbers each whose signs say x. An encoder q(v | x) draws them, a flow has
their density p(v), and

    log P(x) >= E_{q(v | x)} [log p(v) - log q(v | x)].

The flow maps v to z, which is Gaussian, by the layers of `d3pm_jax.flows`. Their conditioners are networks.
"""

import math
from collections.abc import Callable
from functools import partial
from typing import Literal

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, Int, Key

from d3pm_jax import flows
from d3pm_jax.checks import FINITE, NOISE, Categories, Count, Size, declared
from d3pm_jax.models.features import (
    Features,
    LSTMFeatures,
    LSTMLayer,
    SequenceFeatures,
    exact_gelu,
)
from d3pm_jax.models.layers import CATEGORIES, apply_to_rows, split_by_layer

# (places, n_in, causal, rngs=rngs) -> a network of features, such as partial(LSTMFeatures, width=512). Places
# are L of a sequence, and (H, W) of an image.
MakeFeatures = Callable[..., Features]

# Uniform in +-1 / sqrt(fan_in), for what makes the parameters of transforms. The kernels of Flax are larger,
# and a flow of three couplings of Transformers begins with 11.7 bits a character by them in place of 7.7.
INIT_OF_PYTORCH = nnx.initializers.variance_scaling(1 / 3, "fan_in", "uniform")


class ArgmaxFlow(nnx.Module):
    """Holds an encoder, a flow and its base density; `ArgmaxCoupling` and `ArgmaxAR` derive from it.

    Attributes:
        shape: *S of an example.
        K: categories.
        D: binary digits of a category, and numbers of a vector.
    """

    def __init__(
        self,
        shape: tuple[int, ...],
        K: int,
        context: Literal["feed_forward", "lstm"],
        context_width: int,
        share_codes: bool,
        num_channels: int,
        rngs: nnx.Rngs,
    ):
        """Makes all but the layers of the flow.

        Args:
            shape: *S of an example.
            K, context, context_width, share_codes, rngs: as for `ArgmaxCoupling`.
            num_channels: numbers of a vector of the flow.
        """
        self.shape = shape
        self.K = K
        self.D = flows.count_digits(K, 2)
        self.share_codes = share_codes
        self.encoder = Encoder(2**self.D, self.D, context, context_width, rngs)
        self.base_location = nnx.Param(jnp.zeros(num_channels, jnp.float32))
        self.base_log_scale = nnx.Param(jnp.zeros(num_channels, jnp.float32))

    @declared(x=CATEGORIES, u=NOISE, normal=FINITE)
    def log_weights(
        self,
        x: Int[Array, " B *S"],
        u: Float[Array, " B *S"],
        normal: Float[Array, "B *S D"],
        *,
        key: Key[Array, ""] | None = None,
    ) -> Float[Array, " B"]:
        """log p(v) - log q(v | x) for one v of each example; the mean of its exponential is P(x).

        Its expectation is the ELBO, and `flows.importance_bound` of several is the IWBO.

        Args:
            x: categories.
            u: uniform noise, which draws a code of each category.
            normal: standard normal noise, which draws v.
            key: with a key, dropout is on.

        Returns:
            Nats of each example.

        Raises:
            ValueError: a category or noise is out of range, where it is known: under `jit` the weight of such
                an example is NaN; the examples have another shape or another number of digits.
        """
        v, log_q = self.encode(x, u, normal)
        z, log_det = self.transform(v, key=key)
        return self.log_base(z) + log_det - log_q

    # A run calls the network, and trains what it returns.
    __call__ = log_weights

    def encode(
        self, x: Int[Array, " B *S"], u: Float[Array, " B *S"], normal: Float[Array, "B *S D"]
    ) -> tuple[Float[Array, "B *S D"], Float[Array, " B"]]:
        """Draws v ~ q(v | x), whose signs encode x.

        Where codes are shared, one of the n codes of a category is drawn, and v from q(v | code).

        Args:
            x, u, normal: as for `log_weights`.

        Returns:
            v, and log q(v | code) - log n summed over the places of each example.
        """
        self._check_noise(normal, len(x))
        code = x
        log_n = jnp.zeros((), normal.dtype)
        if self.share_codes:
            code, log_n = flows.draw_code(x, self.K, 2**self.D, u)
        bits = flows.to_digits(code, 2, self.D)  # [B, *S, D]
        mean, log_scale = self.encoder(code)  # [B, *S, D]
        u_real = mean + jnp.exp(log_scale) * normal
        v, log_slope = flows.signed_softplus(u_real, bits)
        log_q = log_normal(normal) - log_scale - log_slope  # [B, *S, D]
        return v, sum_per_example(log_q) - sum_per_example(jnp.broadcast_to(log_n, x.shape))

    def transform(
        self, v: Float[Array, "B *S D"], *, key: Key[Array, ""] | None = None
    ) -> tuple[Array, Float[Array, " B"]]:
        """Maps v through the flow; returns z and log |det dz/dv| of each example."""
        raise NotImplementedError(f"{type(self).__name__} has no transform: define it")

    def invert(self, z: Array) -> Float[Array, "B *S D"]:
        """Inverts `transform`: returns v."""
        raise NotImplementedError(f"{type(self).__name__} has no invert: define it")

    def log_base(self, z: Array) -> Float[Array, " B"]:
        """Returns the log density of z, which is normal with a location and scale of each channel."""
        location, log_scale = self._base_like(z)
        return sum_per_example(log_normal((z - location) * jnp.exp(-log_scale)) - log_scale)

    def _base_like(self, z: Array) -> tuple[Array, Array]:
        """Returns the location and log-scale of the base density in the number of axes of z."""
        axes = (1,) * (z.ndim - 1) + (-1,)
        return self.base_location[...].reshape(axes), self.base_log_scale[...].reshape(axes)

    @declared(z=FINITE)
    def decode(self, z: Float[Array, "B *places n"]) -> Int[Array, " B *S"]:
        """Returns the categories that z means: those of the signs of `invert(z)`.

        Without `share_codes` they may be K or above, which means nothing. They are -1 where v is no number.
        """
        v = self.invert(z)
        bits = (v > 0).astype(jnp.int32)  # [B, *S, D]
        code = flows.from_digits(bits, 2)
        if self.share_codes:
            code = flows.from_code(code, self.K)
        # What is no number has no sign, and would pass for a digit 0.
        return jnp.where(jnp.isnan(v).any(axis=-1), -1, code)

    @declared(normal=FINITE)
    def draw(self, normal: Float[Array, "B *S D"]) -> Int[Array, " B *S"]:
        """Draws examples from the flow.

        Args:
            normal: standard normal noise.

        Raises:
            ValueError: it is for examples of another shape or of another number of digits.
        """
        self._check_noise(normal, len(normal))
        normal = self.join_channels(normal)
        location, log_scale = self._base_like(normal)
        return self.decode(location + jnp.exp(log_scale) * normal)

    def join_channels(self, v: Float[Array, "B *S D"]) -> Float[Array, "B *places n"]:
        """Joins the numbers that make one vector of the flow; here those of a category."""
        return v

    def _check_noise(self, normal: Array, B: int) -> None:
        """Raises ValueError unless there is a number for each digit of B examples."""
        expected = (B, *self.shape, self.D)
        if normal.shape != expected:
            raise ValueError(
                f"normal has shape {normal.shape}, expected {expected}: the network is for examples of shape "
                f"{list(self.shape)}, of categories of D = {self.D} digits"
            )


class ArgmaxCoupling(ArgmaxFlow):
    """Holds an argmax flow of coupling layers, which draws an example in one pass.

    Each of num_steps layers transforms the second half of the numbers of every vector by what the first
    halves of all vectors say. Between two of them the order of places is reversed, and a matrix mixes the
    numbers of each vector. The numbers of the channels of a pixel make one vector.

    Args:
        shape: of an example: [L] or L of a sequence, [H, W, C] of an image.
        K: categories.
        num_steps: coupling layers.
        num_mixtures: logistic distributions of which a number's transform is made.
        make_features: makes the network of a layer, (places, n_in, causal, rngs=rngs) -> `Features`, where
            places are L / squeeze of a sequence, or (H, W / squeeze) of an image.
        context: what the encoder of a place sees: "feed_forward", its category alone; "lstm", all categories
            of a sequence.
        context_width: of the encoder.
        squeeze: how many neighbouring places make one vector of the flow; divides L, or W. A category of one
            or two has one digit, which cannot be halved.
        share_codes: every code means a category, code mod K, so that all that the flow draws are categories.
            Without it, as in the original program, codes from K on mean nothing, and are drawn.
        rngs: for the initial weights.

    Raises:
        ValueError: an argument is not what it may be; squeeze does not divide L; a vector has one number.
    """

    @declared()
    def __init__(
        self,
        shape: Size | tuple[Size, ...],
        K: Categories,
        num_steps: Count = 8,
        num_mixtures: Count = 8,
        make_features: MakeFeatures = LSTMFeatures,
        context: Literal["feed_forward", "lstm"] = "feed_forward",
        context_width: Size = 512,
        squeeze: Count = 1,
        share_codes: bool = True,
        *,
        rngs: nnx.Rngs,
    ):
        if isinstance(shape, int):
            shape = (shape,)
        if len(shape) not in (1, 3):
            raise ValueError(f"shape = {shape}: it must be [L] of sequences, or [H, W, C] of images")
        if context == "lstm" and len(shape) == 3:
            raise ValueError("context = 'lstm' reads sequences: take 'feed_forward' for images")
        # The last axis of places is that of neighbours, along a row of an image.
        places = shape[:2]
        num_channels = flows.count_digits(K, 2) * squeeze * math.prod(shape[2:])
        if places[-1] % squeeze:
            raise ValueError(
                f"squeeze = {squeeze} does not divide the {places[-1]} places of a row: change one"
            )
        if num_channels < 2:
            raise ValueError(
                f"K = {K} has one digit, and a coupling needs two numbers in a vector: take squeeze = 2"
            )
        self.places = (*places[:-1], places[-1] // squeeze)
        super().__init__(shape, K, context, context_width, share_codes, num_channels, rngs)
        self.num_fixed = num_channels // 2
        steps = []
        matrices = []
        for step in range(num_steps):
            if step > 0:
                matrix = nnx.initializers.orthogonal()(rngs.params(), (num_channels, num_channels))
                matrices.append(nnx.Param(matrix))
            features = _make_features(make_features, self.places, self.num_fixed, False, rngs)
            steps.append(Conditioner(features, num_channels - self.num_fixed, num_mixtures, rngs))
        self.steps = nnx.List(steps)
        self.matrices = nnx.List(matrices)

    def transform(
        self, v: Float[Array, "B *S D"], *, key: Key[Array, ""] | None = None
    ) -> tuple[Array, Float[Array, " B"]]:
        """Maps v through the flow; returns z and log |det dz/dv| of each example."""
        z = self.join_channels(v)
        log_det = jnp.zeros(len(v), v.dtype)
        for i, (step, step_key) in enumerate(zip(self.steps, split_by_layer(key), strict=False)):
            if i > 0:
                z, log_det_of_matrix = flows.linear(reverse_places(z), self.matrices[i - 1][...])
                log_det = log_det + log_det_of_matrix
            conditioner = partial(step, key=step_key)
            z, log_det_of_step = flows.coupling(conditioner, z, self.num_fixed, flows.mixture_affine)
            log_det = log_det + log_det_of_step
        return z, log_det

    def invert(self, z: Array) -> Float[Array, "B *S D"]:
        """Inverts `transform`: returns v."""
        v = z
        for i in reversed(range(len(self.steps))):
            v = flows.invert_coupling(self.steps[i], v, self.num_fixed, flows.invert_mixture_affine)
            if i > 0:
                v = reverse_places(flows.invert_linear(v, self.matrices[i - 1][...]))
        return v.reshape(len(v), *self.shape, self.D)

    def join_channels(self, v: Float[Array, "B *S D"]) -> Float[Array, "B *places n"]:
        """Joins the numbers that make one vector of the flow: those of a pixel, or of neighbouring places."""
        return v.reshape(len(v), *self.places, -1)


class ArgmaxAR(ArgmaxFlow):
    """Holds an argmax flow of one autoregressive layer, which draws one number after the other.

    A number is transformed by what the vectors before its vector say, and the numbers before it there.

    Args:
        length: L, categories of a sequence.
        K: categories.
        num_mixtures: logistic distributions of which a number's transform is made.
        make_features: makes the causal network, (length, n_in, causal, rngs=rngs) -> `SequenceFeatures`.
        context: what the encoder of a place sees: "feed_forward", its category alone; "lstm", all categories.
        context_width: of the encoder.
        share_codes: as for `ArgmaxCoupling`.
        rngs: for the initial weights.

    Raises:
        ValueError: an argument is not what it may be.
    """

    @declared()
    def __init__(
        self,
        length: Size,
        K: Categories,
        num_mixtures: Count = 27,
        make_features: MakeFeatures = LSTMFeatures,
        context: Literal["feed_forward", "lstm"] = "lstm",
        context_width: Size = 512,
        share_codes: bool = True,
        *,
        rngs: nnx.Rngs,
    ):
        num_digits = flows.count_digits(K, 2)
        super().__init__((length,), K, context, context_width, share_codes, num_digits, rngs)
        features = _make_features(make_features, (length,), num_digits, True, rngs)
        if not isinstance(features, SequenceFeatures):
            raise ValueError(
                f"make_features returns {type(features).__name__}, which goes through no sequence: derive it "
                f"from models.SequenceFeatures"
            )
        self.features = features
        self.digits = DigitConditioner(self.features.out_features, num_digits, num_mixtures, rngs)

    def transform(
        self, v: Float[Array, "B L D"], *, key: Key[Array, ""] | None = None
    ) -> tuple[Array, Float[Array, " B"]]:
        """Maps v through the flow; returns z and log |det dz/dv| of each example."""
        return flows.autoregressive(partial(self.params, key=key), v, flows.mixture_affine)

    def params(
        self, v: Float[Array, "B L D"], *, key: Key[Array, ""] | None = None
    ) -> Float[Array, "B L D P"]:
        """Returns the parameters of each number, which depend on the numbers before it alone."""
        return self.digits(_compute_features(self.features, v, key), v)

    def invert(self, z: Array) -> Float[Array, "B L D"]:
        """Inverts `transform`: returns v.

        It equals `flows.invert_autoregressive` of `params`, which calls the network for every number. Here
        the network takes one step for every place, and what comes after it is called for every number.
        """

        def invert_place(state: tuple, of_place: tuple[Array, Array]) -> tuple[tuple, Array]:
            memory, previous = state
            place, z_of_place = of_place
            features, memory = self.features.step(memory, place, previous)  # [B, n]
            conditioner = partial(self.digits, features[:, None])
            v = flows.invert_autoregressive(conditioner, z_of_place[:, None], flows.invert_mixture_affine)
            return (memory, v[:, 0]), v[:, 0]

        start = (self.features.start(len(z)), jnp.zeros_like(z[:, 0]))
        _, v = jax.lax.scan(invert_place, start, (jnp.arange(self.shape[0]), z.swapaxes(0, 1)))  # [L, B, D]
        return v.swapaxes(0, 1)


class Encoder(nnx.Module):
    """Maps codes [B, *S] to the means and log-scales [B, *S, D] of a normal distribution of each number."""

    def __init__(
        self, num_codes: int, D: int, context: Literal["feed_forward", "lstm"], width: int, rngs: nnx.Rngs
    ):
        self.embed = nnx.Embed(num_codes, width, rngs=rngs)
        if context == "lstm":
            self.lstm = LSTMLayer(width, width, causal=False, rngs=rngs)
            self.linear = None
            n = self.lstm.out_features
        else:
            self.lstm = None
            self.linear = nnx.Linear(width, width, rngs=rngs)
            n = width
        self.linear_out = nnx.Linear(n, 2 * D, rngs=rngs)

    def __call__(self, code: Int[Array, " B *S"]) -> tuple[Float[Array, "B *S D"], Float[Array, "B *S D"]]:
        """Returns means and log-scales."""
        context = self.embed.embedding[...][code]  # [B, *S, width]
        if self.lstm is not None:
            context = self.lstm(context)
        elif self.linear is not None:
            context = exact_gelu(apply_to_rows(self.linear, context))
        mean, log_scale = jnp.split(apply_to_rows(self.linear_out, context), 2, axis=-1)
        return mean, log_scale


class Conditioner(nnx.Module):
    """Maps vectors [B, *places, n] to the parameters of numbers of a coupling, [B, *places, num_moved, P]."""

    def __init__(self, features: Features, num_moved: int, num_mixtures: int, rngs: nnx.Rngs):
        self.num_moved = num_moved
        self.features = features
        n_out = num_moved * (2 + 3 * num_mixtures)
        self.linear = nnx.Linear(features.out_features, n_out, kernel_init=INIT_OF_PYTORCH, rngs=rngs)
        self.bounds = ScaleBounds(num_moved, num_mixtures)

    def __call__(self, v: Float[Array, "B *places n"], *, key: Key[Array, ""] | None = None) -> Array:
        """Returns the parameters; with a key, dropout is on."""
        raw = apply_to_rows(self.linear, _compute_features(self.features, v, key))
        return self.bounds(raw.reshape(*raw.shape[:-1], self.num_moved, -1))


class DigitConditioner(nnx.Module):
    """Maps features of the vectors before and the numbers of a vector to parameters [B, L, D, P].

    A masked feed-forward network: the parameters of a number depend on the numbers before it in the vector.
    Each number has a hidden layer of its own.
    """

    def __init__(self, n_features: int, D: int, num_mixtures: int, rngs: nnx.Rngs):
        self.hidden_width = max(1, n_features // 2)
        self.hidden = nnx.Linear(n_features, D * self.hidden_width, rngs=rngs)
        # A vector of one number has none before it.
        self.before = NumbersBefore(n_features, D, self.hidden_width, rngs) if D > 1 else None
        P = 2 + 3 * num_mixtures
        self.kernel = nnx.Param(_draw_kernel(rngs, (D, self.hidden_width, P), self.hidden_width))
        self.bias = nnx.Param(jnp.zeros((D, P), jnp.float32))
        self.bounds = ScaleBounds(D, num_mixtures)

    def __call__(self, features: Float[Array, "B L n"], v: Float[Array, "B *S D"]) -> Float[Array, "B L D P"]:
        """Returns the parameters of each number."""
        hidden = apply_to_rows(self.hidden, features)
        hidden = hidden.reshape(*v.shape, self.hidden_width)  # [B, L, D, hidden]
        if self.before is not None:
            hidden = hidden + self.before(v)
        raw = jnp.einsum("bldh,dhp->bldp", exact_gelu(hidden), self.kernel[...])
        return self.bounds(raw + self.bias[...][None, None])


class NumbersBefore(nnx.Module):
    """Maps vectors to what the numbers before each number say of it, [B, L, D, n_out].

    A number v is embedded by itself, from v, elu(v) and elu(-v). The last one comes before none.
    """

    def __init__(self, n_features: int, D: int, n_out: int, rngs: nnx.Rngs):
        self.D = D
        # The width of the original program.
        width = min(max(1, 9 * n_features // (16 * (D - 1))), 96)
        self.kernel_embed = nnx.Param(_draw_kernel(rngs, (D - 1, 3, width), 3))
        self.bias = nnx.Param(jnp.zeros((D - 1, width), jnp.float32))
        self.kernel_mix = nnx.Param(_draw_kernel(rngs, (D - 1, width, D, n_out), (D - 1) * width))

    def __call__(self, v: Float[Array, "B *S D"]) -> Float[Array, "B L D m"]:
        """Returns a sum over the numbers before each number."""
        v = v[..., :-1]
        seen = jnp.stack([v, nnx.elu(v), nnx.elu(-v)], axis=-1)  # [B, L, D - 1, 3]
        embedded = jnp.einsum("bljf,jfe->blje", seen, self.kernel_embed[...])
        embedded = exact_gelu(embedded + self.bias[...][None, None])  # [B, L, D - 1, width]
        is_before = jnp.tri(self.D, self.D - 1, k=-1, dtype=bool).T  # [D - 1, D]
        kernel = jnp.where(is_before[:, None, :, None], self.kernel_mix[...], 0.0)
        return jnp.einsum("blje,jedh->bldh", embedded, kernel)


class ScaleBounds(nnx.Module):
    """Bounds the log-scales among the parameters of `flows.mixture_affine`, by numbers that are learnt."""

    def __init__(self, n: int, num_mixtures: int):
        self.num_mixtures = num_mixtures
        # One axis, as of biases: an optimizer makes what has two axes smaller where weights decay.
        self.log_bound = nnx.Param(jnp.zeros(n * (1 + num_mixtures), jnp.float32))

    def __call__(self, raw: Float[Array, "B *places n P"]) -> Float[Array, "B *places n P"]:
        """Returns the parameters: shift, log-scale, then logits, means and log-scales of the mixture."""
        m = self.num_mixtures
        log_scales = jnp.concatenate(
            [raw[..., 1:2], raw[..., 2 + 2 * m :]], axis=-1
        )  # [B, *places, n, 1 + m]
        log_bound = self.log_bound[...].reshape((1,) * (raw.ndim - 2) + log_scales.shape[-2:])
        log_bound = jnp.broadcast_to(log_bound, log_scales.shape)
        log_scales = flows.bounded_log_scale(log_scales, log_bound)
        shift = raw[..., :1]
        logits_and_means = raw[..., 2 : 2 + 2 * m]
        return jnp.concatenate([shift, log_scales[..., :1], logits_and_means, log_scales[..., 1:]], axis=-1)


def log_normal(x: Array) -> Array:
    """log density of the standard normal distribution at each x."""
    return -0.5 * x**2 - 0.5 * math.log(2.0 * math.pi)


def reverse_places(v: Array) -> Array:
    """Reverses all axes but those of examples and of numbers."""
    return jnp.flip(v, axis=tuple(range(1, v.ndim - 1)))


def sum_per_example(x: Array) -> Float[Array, " B"]:
    """Sums over all axes but the first."""
    return jnp.sum(x, axis=tuple(range(1, x.ndim)))


def _make_features(
    make_features: MakeFeatures, places: tuple[int, ...], n_in: int, causal: bool, rngs: nnx.Rngs
) -> Features:
    """Makes a network of features, and checks that it says how many there are."""
    # Networks of sequences take their length.
    if len(places) == 1:
        features = make_features(places[0], n_in, causal, rngs=rngs)
    else:
        features = make_features(places, n_in, causal, rngs=rngs)
    if not isinstance(features, nnx.Module) or not hasattr(features, "out_features"):
        raise ValueError(
            f"make_features returns {type(features).__name__}, which is not a network with "
            "out_features: derive it from models.SequenceFeatures, or for images from models.Features"
        )
    return features


def _compute_features(network: Features, v: Array, key: Key[Array, ""] | None) -> Array:
    """Returns the features of vectors, and checks that they are as many as the network says."""
    features = network(v, key=key)
    expected = (*v.shape[:-1], network.out_features)
    if features.shape != expected:
        raise ValueError(
            f"{type(network).__name__} returns features of shape {features.shape}, expected {expected}: "
            f"change its out_features"
        )
    return features


def _draw_kernel(rngs: nnx.Rngs, shape: tuple[int, ...], fan_in: int) -> Array:
    """Draws a kernel that sums over fan_in numbers, as `INIT_OF_PYTORCH` does."""
    bound = fan_in**-0.5
    return jax.random.uniform(rngs.params(), shape, jnp.float32, -bound, bound)
