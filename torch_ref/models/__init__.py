"""Builds the networks of d3pm_jax.models in PyTorch, with the same attribute names."""

from torch_ref.models.mlp import MLP, Inputs
from torch_ref.models.noisy_classifier import NoisyClassifier
from torch_ref.models.score_net import ScoreNet
from torch_ref.models.transformer import Transformer
from torch_ref.models.unet import UNet

__all__ = ["MLP", "Inputs", "NoisyClassifier", "ScoreNet", "Transformer", "UNet"]
