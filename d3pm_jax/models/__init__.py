"""Holds Flax NNX networks; nothing about diffusion is inside.

Those for diffusion are called f(xt, t, *, label=None, key=None) -> output, a classifier of noised examples
f(one_hots, t, *, key=None) -> logits of the label. An argmax flow has methods that weigh and draw examples.
"""

from d3pm_jax.extras import require

require(__name__, "flax")

from d3pm_jax.models.argmax_flows import ArgmaxAR, ArgmaxCoupling, ArgmaxFlow
from d3pm_jax.models.attention import attend, choose_form
from d3pm_jax.models.classifier import Classifier
from d3pm_jax.models.features import (
    Features,
    LSTMFeatures,
    SequenceFeatures,
    TransformerFeatures,
    UNetFeatures,
)
from d3pm_jax.models.mlp import MLP, Inputs
from d3pm_jax.models.noisy_classifier import NoisyClassifier
from d3pm_jax.models.score_net import ScoreNet
from d3pm_jax.models.transformer import Transformer
from d3pm_jax.models.unet import UNet

__all__ = [
    "MLP",
    "ArgmaxAR",
    "ArgmaxCoupling",
    "ArgmaxFlow",
    "Classifier",
    "Features",
    "Inputs",
    "LSTMFeatures",
    "NoisyClassifier",
    "ScoreNet",
    "SequenceFeatures",
    "Transformer",
    "TransformerFeatures",
    "UNet",
    "UNetFeatures",
    "attend",
    "choose_form",
]
