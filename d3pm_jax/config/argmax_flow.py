"""Describes the networks of argmax flows; a config that has one of them has `process=Argmax()`."""

import dataclasses
from typing import Any, Literal

from flax import nnx

from d3pm_jax import models
from d3pm_jax.config.checks import CheckedPart, Count, Size, UnitInterval, undefined_method
from d3pm_jax.config.model import Model, Spec


@dataclasses.dataclass(frozen=True)
class Features(CheckedPart):
    """Describes the network of a layer of a flow. A class of one's own defines `build`."""

    def build(self, length: int, n_in: int, causal: bool, rngs: nnx.Rngs) -> models.SequenceFeatures:
        """Builds the network, f(v [B, length, n_in], *, key=None) -> features [B, length, out_features].

        Args:
            length: vectors of a sequence.
            n_in: numbers of a vector.
            causal: whether features depend on the vectors before a place alone.
            rngs: for the initial weights.

        Raises:
            ValueError: it cannot be built for this.
        """
        raise undefined_method(self, "build")

    def layer_width(self) -> int:
        """Returns how many numbers a layer of the network holds of one vector; 1 where that is not known."""
        return 1


@dataclasses.dataclass(frozen=True)
class LSTMFeatures(Features):
    """Builds LSTMs in both directions, or from left to right; see `d3pm_jax.models.LSTMFeatures`."""

    width: Size = 512
    """of the state of an LSTM in each direction"""
    num_layers: Count = 2
    """of LSTM"""
    input_dropout: UnitInterval = 0.0
    """rate at which a vector is left out in training, as a whole"""

    def layer_width(self) -> int:
        return 4 * self.width

    def build(self, length: int, n_in: int, causal: bool, rngs: nnx.Rngs) -> models.SequenceFeatures:
        return models.LSTMFeatures(length, n_in, causal, **_fields(self), rngs=rngs)


@dataclasses.dataclass(frozen=True)
class TransformerFeatures(Features):
    """Builds a transformer; see `d3pm_jax.models.TransformerFeatures`."""

    width: Size = 256
    """of the residual stream; divides by num_heads into even parts"""
    num_layers: Count = 2
    """blocks of attention and two linear maps"""
    num_heads: Count = 4
    """of every attention"""
    mlp_ratio: Size = 4
    """width of the hidden layer of a block as a multiple of width"""
    dropout: UnitInterval = 0.0
    """rate in training"""

    def layer_width(self) -> int:
        return self.mlp_ratio * self.width

    def build(self, length: int, n_in: int, causal: bool, rngs: nnx.Rngs) -> models.SequenceFeatures:
        return models.TransformerFeatures(length, n_in, causal, **_fields(self), rngs=rngs)


@dataclasses.dataclass(frozen=True)
class ArgmaxCoupling(Model):
    """Builds a flow of couplings, which draws a sequence at once; see `d3pm_jax.models.ArgmaxCoupling`."""

    num_steps: Count = 8
    """coupling layers"""
    num_mixtures: Count = 8
    """logistic distributions of which a number's transform is made"""
    features: Features = LSTMFeatures()
    """the network of a layer"""
    context: Literal["feed_forward", "lstm"] = "feed_forward"
    """what the encoder of a place sees: its category alone, or all categories"""
    context_width: Size = 512
    """of the encoder"""
    squeeze: Count = 1
    """neighbouring places that make one vector; 2 at least for data of two categories"""

    def check(self) -> None:
        self.features.check()

    def layer_width(self) -> int:
        return self.features.layer_width()

    def build(self, spec: Spec, rngs: nnx.Rngs) -> nnx.Module:
        return models.ArgmaxCoupling(_length(self, spec), spec.K, **_options(self), rngs=rngs)


@dataclasses.dataclass(frozen=True)
class ArgmaxAR(Model):
    """Builds an autoregressive flow, which draws from left to right; see `d3pm_jax.models.ArgmaxAR`."""

    num_mixtures: Count = 27
    """logistic distributions of which a number's transform is made"""
    features: Features = LSTMFeatures()
    """the network, which sees the places before a place"""
    context: Literal["feed_forward", "lstm"] = "lstm"
    """what the encoder of a place sees: its category alone, or all categories"""
    context_width: Size = 512
    """of the encoder"""

    def check(self) -> None:
        self.features.check()

    def layer_width(self) -> int:
        return self.features.layer_width()

    def build(self, spec: Spec, rngs: nnx.Rngs) -> nnx.Module:
        return models.ArgmaxAR(_length(self, spec), spec.K, **_options(self), rngs=rngs)


def _options(model: ArgmaxCoupling | ArgmaxAR) -> dict[str, Any]:
    """Returns the arguments of the flow that are fields of its spec, by the names of the arguments."""
    options = _fields(model)
    features = options.pop("features")
    return options | {"make_features": features.build}


def _fields(part: Any) -> dict[str, Any]:
    """Returns the fields of a spec by name."""
    return {field.name: getattr(part, field.name) for field in dataclasses.fields(part)}


def _length(model: Model, spec: Spec) -> int:
    """Returns the length of the sequences of the data.

    Raises:
        ValueError: the data is no sequences.
    """
    if len(spec.shape) != 1:
        raise ValueError(
            f"examples have shape {spec.shape}: {type(model).__name__} is for sequences [L]; take a "
            f"diffusion, as process=Uniform(..), for images"
        )
    return spec.shape[0]
