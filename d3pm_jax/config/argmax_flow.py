"""Describes the networks of argmax flows; a config that has one of them has `process=Argmax()`."""

import dataclasses
from typing import Annotated, Any, ClassVar, Literal

from flax import nnx

from d3pm_jax import models
from d3pm_jax.config.checks import (
    NOT_EMPTY,
    CheckedPart,
    Count,
    Free,
    Natural,
    Size,
    UnitInterval,
    field_values,
    undefined_method,
)
from d3pm_jax.config.model import Model, Spec
from d3pm_jax.config.trained import FLOW, Trained
from d3pm_jax.models.attention import Form, choose_form


@dataclasses.dataclass(frozen=True)
class Features(CheckedPart):
    """Describes the network of a layer of a flow. A class of your own defines `build`."""

    def build(self, places: Any, n_in: int, causal: bool, rngs: nnx.Rngs) -> models.Features:
        """Builds the network, f(v [B, *places, n_in], *, key=None) -> features [B, *places, out_features].

        Args:
            places: vectors of a sequence, a number; or of an image, (H, W).
            n_in: numbers of a vector.
            causal: whether features depend on the vectors before a place alone.
            rngs: for the initial weights.

        Raises:
            ValueError: it cannot be built for this.
        """
        raise undefined_method(self, "build")

    def layer_width(self) -> int:
        """Returns how many numbers a layer of the network holds for one vector; 1 if that is not known."""
        return 1

    def attention_form(self) -> Form | None:
        """Returns the form of its attention on the default device; None where it has none."""
        return None


@dataclasses.dataclass(frozen=True)
class LSTMFeatures(Features):
    """Builds LSTMs in both directions, or from left to right; see `d3pm_jax.models.LSTMFeatures`."""

    width: Size = 512
    """width of an LSTM's state, in each direction"""
    num_layers: Count = 2
    """number of LSTM layers"""
    input_dropout: UnitInterval = 0.0
    """rate at which whole vectors are dropped in training"""

    def layer_width(self) -> int:
        return 4 * self.width

    def build(self, places: Any, n_in: int, causal: bool, rngs: nnx.Rngs) -> models.Features:
        return models.LSTMFeatures(_length(self, places), n_in, causal, **field_values(self), rngs=rngs)


@dataclasses.dataclass(frozen=True)
class TransformerFeatures(Features):
    """Builds a transformer; see `d3pm_jax.models.TransformerFeatures`."""

    width: Size = 256
    """width of the residual stream: num_heads times an even number"""
    num_layers: Count = 2
    """blocks of attention and two linear maps"""
    num_heads: Count = 4
    """heads of every attention layer"""
    mlp_ratio: Size = 4
    """width of the hidden layer of a block as a multiple of width"""
    dropout: UnitInterval = 0.0
    """dropout rate in training"""
    attention: Annotated[Form | None, Free] = dataclasses.field(default=None, kw_only=True)
    """kernels of attention on a GPU or TPU; None: the best that it allows"""

    def layer_width(self) -> int:
        return self.mlp_ratio * self.width

    def attention_form(self) -> Form | None:
        return choose_form(self.attention, None)

    def build(self, places: Any, n_in: int, causal: bool, rngs: nnx.Rngs) -> models.Features:
        return models.TransformerFeatures(
            _length(self, places), n_in, causal, **field_values(self), rngs=rngs
        )


@dataclasses.dataclass(frozen=True)
class UNetFeatures(Features):
    """Builds a U-Net for images; see `d3pm_jax.models.UNetFeatures`."""

    ch: Size = 32
    """width of the first level"""
    ch_mult: Annotated[tuple[Size, ...], NOT_EMPTY] = (1, 2)
    """width of each level as a multiple of ch"""
    num_res_blocks: Natural = 1
    """residual blocks per level, and one more on the way up"""
    dropout: UnitInterval = 0.0
    """dropout rate in training"""
    groups: Size = 8
    """groups of every GroupNorm; must divide all widths"""
    num_heads: Count = 1
    """heads of the attention in the middle; must divide its width"""
    attention: Annotated[Form | None, Free] = dataclasses.field(default=None, kw_only=True)
    """kernels of attention on a GPU or TPU; None: the best that it allows"""

    def layer_width(self) -> int:
        return self.ch

    def attention_form(self) -> Form | None:
        return choose_form(self.attention, None)

    def build(self, places: Any, n_in: int, causal: bool, rngs: nnx.Rngs) -> models.Features:
        if not isinstance(places, tuple):
            raise ValueError(
                "features = UNetFeatures(..) is for images [H, W, C]: take LSTMFeatures or "
                "TransformerFeatures for sequences"
            )
        return models.UNetFeatures(places, n_in, causal, **field_values(self), rngs=rngs)


class _OfFeatures(Model):
    """Base of flows whose layers have a network of features."""

    trains: ClassVar[Trained | None] = FLOW
    features: Features

    def check(self) -> None:
        self.features.check()

    def layer_width(self) -> int:
        return self.features.layer_width()

    def attention_form(self) -> Form | None:
        return self.features.attention_form()


@dataclasses.dataclass(frozen=True)
class ArgmaxCoupling(_OfFeatures):
    """Builds a flow of couplings, which draws an example at once; see `d3pm_jax.models.ArgmaxCoupling`."""

    num_steps: Count = 8
    """coupling layers"""
    num_mixtures: Count = 8
    """logistic distributions in the mixture that transforms a number"""
    features: Features = LSTMFeatures()
    """the network of a layer"""
    context: Literal["feed_forward", "lstm"] = "feed_forward"
    """what the encoder of a place sees: "feed_forward": its own category; "lstm": all categories"""
    context_width: Size = 512
    """width of the encoder"""
    squeeze: Count = 1
    """neighbouring places that form one vector; at least 2 for sequences or grey images of two categories"""

    def build(self, spec: Spec, rngs: nnx.Rngs) -> nnx.Module:
        return models.ArgmaxCoupling(spec.shape, spec.K, **_options(self), rngs=rngs)


@dataclasses.dataclass(frozen=True)
class ArgmaxAR(_OfFeatures):
    """Builds an autoregressive flow, which draws from left to right; see `d3pm_jax.models.ArgmaxAR`."""

    num_mixtures: Count = 27
    """logistic distributions in the mixture that transforms a number"""
    features: Features = LSTMFeatures()
    """the network, which sees the places before a place"""
    context: Literal["feed_forward", "lstm"] = "lstm"
    """what the encoder of a place sees: "feed_forward": its own category; "lstm": all categories"""
    context_width: Size = 512
    """width of the encoder"""

    def build(self, spec: Spec, rngs: nnx.Rngs) -> nnx.Module:
        if len(spec.shape) != 1:
            raise ValueError(
                f"examples have shape {spec.shape}: ArgmaxAR is for sequences [L]; take ArgmaxCoupling with "
                f"UNetFeatures for images"
            )
        return models.ArgmaxAR(spec.shape[0], spec.K, **_options(self), rngs=rngs)


def _options(model: ArgmaxCoupling | ArgmaxAR) -> dict[str, Any]:
    """Returns the arguments of the flow that are fields of its spec, by the names of the arguments."""
    options = field_values(model)
    features = options.pop("features")
    return options | {"make_features": features.build}


def _length(features: Features, places: Any) -> int:
    """Returns the length of the sequences of a flow.

    Raises:
        ValueError: the flow is of images.
    """
    if isinstance(places, tuple):
        raise ValueError(
            f"features = {type(features).__name__}(..) is for sequences, and the data are images: take "
            f"UNetFeatures"
        )
    return places
