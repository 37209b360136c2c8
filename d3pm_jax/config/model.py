"""Describes the networks of a config."""

import dataclasses
from typing import Any, Literal

import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Key

from d3pm_jax import models
from d3pm_jax.config.checks import check_at_least, check_shares


@dataclasses.dataclass(frozen=True)
class Model:
    """Describes the network."""

    ch: int = 128
    """width of the first level"""
    ch_mult: tuple[int, ...] = (1, 2, 2, 2)
    """width of each level as a multiple of ch"""
    num_res_blocks: int = 2
    """residual blocks per level"""
    dropout: float = 0.1
    """rate in training"""
    groups: int = 32
    """of every GroupNorm; divides all widths"""
    compute: Literal["float32", "bfloat16"] = "float32"
    """the type of activations; parameters, the last layer, loss and draws are float32 in either case"""

    def check(self) -> None:
        """Raises ValueError for a field that cannot be used."""
        check_at_least("model", self, num_res_blocks=1)
        check_shares("model", self, "dropout")

    def build(
        self, K: int, outputs: int | None, image: tuple[int, int, int], T: int, key: Key[Array, ""]
    ) -> nnx.Module:
        """Builds the network, f(xt, t, *, key=None) -> [B, H, W, C, outputs].

        Args:
            K: categories.
            outputs: numbers that the head needs for each element, in place of K logits.
            image: (H, W, C).
            T: steps of the process.
            key: for the initial weights.

        Raises:
            ValueError: it cannot be built for such images or with such a head.
        """
        raise NotImplementedError

    def _options(self) -> dict[str, Any]:
        """Returns the fields by the names of the network's parameters."""
        options = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        return options | {"dtype": None if options.pop("compute") == "float32" else jnp.bfloat16}


@dataclasses.dataclass(frozen=True)
class UNet(Model):
    """Builds the U-Net of D3PM; see `d3pm_jax.models.UNet`."""

    attn_resolutions: tuple[int, ...] = (16,)
    """image sizes at which attention follows every block"""
    onehot_input: bool = False
    """give the network onehot(x_t) besides its scaled value"""

    def build(
        self, K: int, outputs: int | None, image: tuple[int, int, int], T: int, key: Key[Array, ""]
    ) -> nnx.Module:
        size, channels = _square(image)
        return models.UNet(K, channels, size, T, **self._options(), outputs=outputs, rngs=nnx.Rngs(key))


@dataclasses.dataclass(frozen=True)
class ScoreNet(Model):
    """Builds MNISTScoreNet, for K logits; see `d3pm_jax.models.ScoreNet`."""

    ch: int = 32
    """width of the first level"""
    ch_mult: tuple[int, ...] = (1, 2, 2)
    """width of each level as a multiple of ch"""
    attn: tuple[int, ...] = (1,)
    """levels, from 0, at which attention follows every block"""
    time_dependent_weights: tuple[float, ...] | None = None
    """what to multiply the output by, at evenly spaced t up to T"""

    def build(
        self, K: int, outputs: int | None, image: tuple[int, int, int], T: int, key: Key[Array, ""]
    ) -> nnx.Module:
        _, channels = _square(image)
        if outputs is not None:
            raise ValueError(f"the head needs {outputs} outputs, ScoreNet gives K = {K} logits: use Head()")
        return models.ScoreNet(K, channels, T, **self._options(), rngs=nnx.Rngs(key))


def _square(image: tuple[int, int, int]) -> tuple[int, int]:
    """Returns (size, channels) of (H, W, C)."""
    H, W, C = image
    if H != W:
        raise ValueError(f"images are {H} x {W}: the networks take square ones")
    return H, C
