"""Describes a run by frozen dataclasses of numbers that check themselves and build the parts of the library.

A config is a Python file with `get_config() -> Config`. Every field can be overridden on the command line
(`--process.steps 100`); which family a part belongs to is chosen by the file. Nothing is computed before
`build`.
"""

from d3pm_jax.extras import require

require(__name__, "flax", "optax")

from d3pm_jax.config import from_data as from_data, io as io
from d3pm_jax.config.argmax_flow import (
    ArgmaxAR,
    ArgmaxCoupling,
    Features,
    LSTMFeatures,
    TransformerFeatures,
    UNetFeatures,
)
from d3pm_jax.config.conditions import Mazes, StyledDigits, UpsampledDigits
from d3pm_jax.config.data import Arrays, Data, Digits, Enwik8, Idx, Shakespeare, Text, Text8, TfdsImages
from d3pm_jax.config.head import Head, LogisticHead
from d3pm_jax.config.model import Model, NoisyClassifier, ScoreNet, Spec, Transformer, UNet
from d3pm_jax.config.objective import (
    ContinuousAbsorbing,
    ContinuousUniform,
    HybridLoss,
    LabelLoss,
    Objective,
    StochasticBound,
    Terms,
)
from d3pm_jax.config.optimizer import (
    Adafactor,
    Adam,
    AdamW,
    ConstantRate,
    CosineRate,
    InverseSqrtRate,
    Lion,
    Muon,
    Optimizer,
    Rate,
    RatedOptimizer,
    WSDRate,
)
from d3pm_jax.config.plane import Plane
from d3pm_jax.config.process import (
    Absorbing,
    Argmax,
    Autoregressive,
    Banded,
    Dense,
    FromRate,
    Gaussian,
    Hierarchical,
    Marginal,
    Masked,
    Process,
    RandomWalk,
    Uniform,
)
from d3pm_jax.config.run import Config, Mesh, Train
from d3pm_jax.config.schedule import (
    Cosine,
    CosineSquared,
    Linear,
    LogLinear,
    MutualInformation,
    Polynomial,
    Reciprocal,
    Schedule,
)
from d3pm_jax.config.timesteps import Importance, Independent, LowDiscrepancy, RealTimes, Timesteps

__all__ = [
    "Absorbing",
    "Adafactor",
    "Adam",
    "AdamW",
    "Argmax",
    "ArgmaxAR",
    "ArgmaxCoupling",
    "Arrays",
    "Autoregressive",
    "Banded",
    "Config",
    "ConstantRate",
    "ContinuousAbsorbing",
    "ContinuousUniform",
    "Cosine",
    "CosineRate",
    "CosineSquared",
    "Data",
    "Dense",
    "Digits",
    "Enwik8",
    "Features",
    "FromRate",
    "Gaussian",
    "Head",
    "Hierarchical",
    "HybridLoss",
    "Idx",
    "Importance",
    "Independent",
    "InverseSqrtRate",
    "LSTMFeatures",
    "LabelLoss",
    "Linear",
    "Lion",
    "LogLinear",
    "LogisticHead",
    "LowDiscrepancy",
    "Marginal",
    "Masked",
    "Mazes",
    "Mesh",
    "Model",
    "Muon",
    "MutualInformation",
    "NoisyClassifier",
    "Objective",
    "Optimizer",
    "Plane",
    "Polynomial",
    "Process",
    "RandomWalk",
    "Rate",
    "RatedOptimizer",
    "RealTimes",
    "Reciprocal",
    "Schedule",
    "ScoreNet",
    "Shakespeare",
    "Spec",
    "StochasticBound",
    "StyledDigits",
    "Terms",
    "Text",
    "Text8",
    "TfdsImages",
    "Timesteps",
    "Train",
    "Transformer",
    "TransformerFeatures",
    "UNet",
    "UNetFeatures",
    "Uniform",
    "UpsampledDigits",
    "WSDRate",
]
