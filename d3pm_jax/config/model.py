"""Describes the networks of a config."""

import dataclasses
from typing import Annotated, Any, ClassVar, Literal, NamedTuple

import jax.numpy as jnp
from flax import nnx

from d3pm_jax import models
from d3pm_jax.config.checks import (
    NOT_EMPTY,
    CheckedPart,
    Count,
    Epsilon,
    Free,
    Interval,
    Natural,
    Size,
    UnitInterval,
    field_values,
    undefined_method,
)
from d3pm_jax.config.trained import CLASSIFIER, DIFFUSION, Trained
from d3pm_jax.models.attention import Form, choose_form


class Spec(NamedTuple):
    """Holds what a network has to know of the data, the head and the process."""

    shape: tuple[int, ...]
    """*S of an example"""
    K: int
    """number of categories"""
    outputs: int | None
    """numbers that the head needs for each element, in place of K logits"""
    classes: Count | None
    """labels are in 0..classes - 1; None: the network gets no label"""
    T: int
    """number of steps of the process"""
    remat: bool = False
    """compute the inside of blocks again in the backward pass"""
    condition: tuple[int, ...] | None = None
    """*C, the shape of the condition of an example; None: there is none"""
    sizes: tuple | None = None
    """categories of each place, nested tuples with the shape *S: K is the largest, or one more for a mask of
    all places, and logits of what a place cannot be are -inf; None: all places have K"""


@dataclasses.dataclass(frozen=True)
class Model(CheckedPart):
    """Describes the network. A class of your own defines `build`."""

    trains: ClassVar[Trained | None] = None
    """what the network is of; None: of whatever the config trains, as one of your own"""

    def build(self, spec: Spec, rngs: nnx.Rngs) -> nnx.Module:
        """Builds the network, f(xt, t, *, label=None, condition=None, key=None) -> [B, *S, outputs or K].

        Where the process is `Argmax()` it builds a flow, f(x, u, normal, *, key=None) -> log weights [B] with
        a method draw(normal) -> x [B, *S], as `models.ArgmaxFlow` is. Where the loss is `LabelLoss()` it
        builds a classifier, f(one_hots [B, *S, K], t, *, key=None) -> logits of the label [B, classes].

        It is called with labels and with a condition [B, *C] where the data has them, with a key in training,
        and with the weight [B, *S] of the elements if it has a keyword of that name. A network for data
        without conditions needs no such keyword.

        Args:
            spec: the sizes that it has to fit.
            rngs: for the initial weights.

        Raises:
            ValueError: it cannot be built for this.
        """
        raise undefined_method(self, "build")

    def layer_width(self) -> int:
        """Returns how many numbers a layer of the network holds for one element; 1 if that is not known."""
        return 1

    def attention_form(self) -> Form | None:
        """Returns the form of attention that the network takes on this device; None: no form is chosen."""
        return None


@dataclasses.dataclass(frozen=True)
class Convolutional(Model):
    """Base of networks for images [H, W, C]."""

    trains: ClassVar[Trained | None] = DIFFUSION
    ch: Size = 128
    """width of the first level"""
    ch_mult: Annotated[tuple[Size, ...], NOT_EMPTY] = (1, 2, 2, 2)
    """width of each level as a multiple of ch"""
    num_res_blocks: Natural = 2
    """residual blocks per level, and one more on the way up; with 0 the width is ch all the way down"""
    dropout: UnitInterval = 0.1
    """dropout rate in training"""
    groups: Size = 32
    """groups of every GroupNorm; must divide all widths"""
    compute: Literal["float32", "bfloat16"] = "float32"
    """type of the activations; parameters, last layer, loss and draws are always float32"""
    num_heads: Count = dataclasses.field(default=1, kw_only=True)
    """heads of every attention layer; must divide its width"""
    max_time: Count | None = dataclasses.field(default=None, kw_only=True)
    """the largest t that the network is made for; None: T of the process"""
    attention: Annotated[Form | None, Free] = dataclasses.field(default=None, kw_only=True)
    """kernels of attention on a GPU or TPU; None: the best that it allows"""

    def layer_width(self) -> int:
        return self.ch

    def attention_form(self) -> Form | None:
        return choose_form(self.attention, _find_dtype(self.compute))

    def _options(self, spec: Spec) -> dict[str, Any]:
        """Returns the arguments of the network by name, from the fields and from what the network is for."""
        if len(spec.shape) != 3:
            raise ValueError(
                f"examples have shape {spec.shape}: this network is for images [H, W, C]; take Transformer "
                f"for sequences, or a network of your own"
            )
        return _options(self, spec) | {"K": spec.K, "channels": spec.shape[-1], "remat": spec.remat}


@dataclasses.dataclass(frozen=True)
class UNet(Convolutional):
    """Builds the U-Net of D3PM, with a condition where the data has one; see `d3pm_jax.models.UNet`."""

    attn_resolutions: tuple[Size, ...] = (16,)
    """image sizes at which attention follows every block"""
    onehot_input: bool = False
    """give the network onehot(x_t) as well as the scaled x_t"""
    classes: Count | None = None
    """number of classes of the data, to train on labels; None: labels are ignored"""
    channels_per_group: Count | None = dataclasses.field(default=None, kw_only=True)
    """a layer of C channels has min(C // channels_per_group, groups) groups; None: groups"""
    attention_eps: Epsilon | None = dataclasses.field(default=None, kw_only=True)
    """epsilon of the GroupNorm of attention; None: 1e-6, as of the others"""
    input_range: Interval | None = dataclasses.field(default=None, kw_only=True)
    """the numbers that the network sees as -1 and 1; None: 0 and K - 1"""

    def build(self, spec: Spec, rngs: nnx.Rngs) -> nnx.Module:
        options = self._options(spec)
        H, W, _ = spec.shape
        return models.UNet(**options, size=(H, W), outputs=spec.outputs, condition=spec.condition, rngs=rngs)


@dataclasses.dataclass(frozen=True)
class ScoreNet(Convolutional):
    """Builds MNISTScoreNet, for K logits; see `d3pm_jax.models.ScoreNet`."""

    ch: Size = 32
    """width of the first level"""
    ch_mult: Annotated[tuple[Size, ...], NOT_EMPTY] = (1, 2, 2)
    """width of each level as a multiple of ch"""
    attn: tuple[Natural, ...] = (1,)
    """levels, from 0, at which attention follows every block"""
    time_dependent_weights: tuple[float, ...] | None = None
    """factors of the output at evenly spaced t up to T; None: none"""
    classes: Count | None = None
    """number of classes of the data, to train on labels; None: labels are ignored"""

    def build(self, spec: Spec, rngs: nnx.Rngs) -> nnx.Module:
        options = self._options(spec)
        _check_logits("ScoreNet", spec)
        return models.ScoreNet(**options, rngs=rngs)


@dataclasses.dataclass(frozen=True)
class Transformer(Model):
    """Builds a transformer, for K logits; see `d3pm_jax.models.Transformer`."""

    trains: ClassVar[Trained | None] = DIFFUSION
    width: Size = 256
    """width of the residual stream: num_heads times an even number"""
    num_layers: Size = 6
    """blocks of attention and two linear maps"""
    num_heads: Size = 4
    """heads of every attention layer"""
    mlp_ratio: Size = 4
    """width of the hidden layer of a block as a multiple of width"""
    dropout: UnitInterval = 0.0
    """dropout rate in training"""
    see_time: bool = True
    """give t to the network; predictions of an absorbing process need no t"""
    classes: Count | None = None
    """number of classes of the data, to train on labels; None: labels are ignored"""
    compute: Literal["float32", "bfloat16"] = "float32"
    """type of the activations; parameters, last layer, loss and draws are always float32"""
    remat: bool = False
    """recompute blocks in the backward pass instead of storing their activations"""
    max_time: Count | None = dataclasses.field(default=None, kw_only=True)
    """the largest t that the network is made for; None: T of the process"""
    positions: Literal["rotary", "learned", "grid"] = dataclasses.field(default="rotary", kw_only=True)
    """what is known of places: "rotary": their distances, for sequences [L] alone; "learned": each has a
    vector; "grid": along each axis of *S each place has a vector, and these are added"""
    tied: bool = dataclasses.field(default=False, kw_only=True)
    """take the embedding of categories, transposed, for the kernel of the last layer"""
    attention: Annotated[Form | None, Free] = dataclasses.field(default=None, kw_only=True)
    """kernels of attention on a GPU or TPU; None: the best that it allows"""

    def layer_width(self) -> int:
        return self.mlp_ratio * self.width

    def attention_form(self) -> Form | None:
        return choose_form(self.attention, _find_dtype(self.compute))

    def build(self, spec: Spec, rngs: nnx.Rngs) -> nnx.Module:
        if self.positions == "rotary" and len(spec.shape) != 1:
            raise ValueError(
                f"examples have shape {spec.shape}, but positions = 'rotary' is for sequences [L]: take "
                f"positions='grid' or 'learned', or for images UNet or ScoreNet"
            )
        _check_logits("Transformer", spec)
        options = _options(self, spec)
        options["remat"] = self.remat or spec.remat
        if self.positions != "rotary" or spec.sizes is not None:
            options["shape"] = spec.shape
        return models.Transformer(spec.K, condition=spec.condition, sizes=spec.sizes, **options, rngs=rngs)


@dataclasses.dataclass(frozen=True)
class MLP(Model):
    """Builds a network of places that have nothing in common, for K logits; see `d3pm_jax.models.MLP`."""

    trains: ClassVar[Trained | None] = DIFFUSION
    width: Size = 256
    """width of the residual stream"""
    num_layers: Size = 4
    """blocks of a norm and two linear maps"""
    dropout: UnitInterval = 0.0
    """dropout rate in training"""
    see_time: bool = True
    """give t to the network; predictions of an absorbing process need no t"""
    classes: Count | None = None
    """number of classes of the data, to train on labels; None: labels are ignored"""
    compute: Literal["float32", "bfloat16"] = "float32"
    """type of the activations; parameters, last layer, loss and draws are always float32"""
    remat: bool = False
    """recompute blocks in the backward pass instead of storing their activations"""
    max_time: Count | None = dataclasses.field(default=None, kw_only=True)
    """the largest t that the network is made for; None: T of the process"""

    def layer_width(self) -> int:
        return self.width

    def build(self, spec: Spec, rngs: nnx.Rngs) -> nnx.Module:
        _check_logits("MLP", spec)
        options = _options(self, spec)
        options["remat"] = self.remat or spec.remat
        max_time = options.pop("max_time")
        inputs = models.Inputs(
            spec.shape,
            spec.K,
            max_time if options.pop("see_time") else None,
            options.pop("num_classes"),
            spec.condition,
            spec.sizes,
        )
        return models.MLP(inputs, **options, rngs=rngs)


@dataclasses.dataclass(frozen=True)
class NoisyClassifier(Model):
    """Builds a classifier of noised examples, for `LabelLoss()`; see `d3pm_jax.models.NoisyClassifier`."""

    trains: ClassVar[Trained | None] = CLASSIFIER
    width: Size = 256
    """width of the residual stream"""
    num_layers: Size = 2
    """layers after the first linear map"""
    embedding: Size = 8
    """width of the embedding of an element"""
    dropout: UnitInterval = 0.1
    """dropout rate in training"""
    max_time: Count | None = dataclasses.field(default=None, kw_only=True)
    """the largest t that the network is made for; None: T of the process"""

    def layer_width(self) -> int:
        return self.embedding

    def build(self, spec: Spec, rngs: nnx.Rngs) -> nnx.Module:
        if spec.classes is None:
            raise ValueError(
                "the data has no labels, but NoisyClassifier is trained to predict them: take data with "
                "labels"
            )
        if spec.remat:
            raise ValueError("train.remat = True does nothing in NoisyClassifier: leave it out")
        return models.NoisyClassifier(spec.shape, spec.K, spec.classes, **_fields(self, spec), rngs=rngs)


def _fields(model: Convolutional | Transformer | MLP | NoisyClassifier, spec: Spec) -> dict[str, Any]:
    """Returns the fields of a network by name, with the largest t that it is made for."""
    return field_values(model) | {"max_time": model.max_time or spec.T}


def _options(model: Convolutional | Transformer | MLP, spec: Spec) -> dict[str, Any]:
    """Returns the arguments of the network that are fields of the spec, by the names of the arguments."""
    options = _fields(model, spec)
    # Where a network has no classes, there are none in its spec: it ignores the labels of the data.
    del options["classes"]
    dtype = _find_dtype(options.pop("compute"))
    return options | {"num_classes": spec.classes, "dtype": dtype}


def _find_dtype(compute: str) -> Any:
    """Returns the type of activations; None stands for that of the parameters, which is float32."""
    return None if compute == "float32" else jnp.bfloat16


def _check_logits(name: str, spec: Spec) -> None:
    """Raises ValueError where the head needs something else than K logits."""
    if spec.outputs is not None:
        raise ValueError(
            f"the head needs {spec.outputs} outputs, {name} gives K = {spec.K} logits: use Head()"
        )
