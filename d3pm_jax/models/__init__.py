"""Holds Flax NNX networks, f(xt, t, *, label=None, key=None) -> output; nothing about diffusion is inside."""

from d3pm_jax.extras import require

require(__name__, "flax")

from d3pm_jax.models.classifier import Classifier
from d3pm_jax.models.score_net import ScoreNet
from d3pm_jax.models.transformer import Transformer
from d3pm_jax.models.unet import UNet

__all__ = ["Classifier", "ScoreNet", "Transformer", "UNet"]
