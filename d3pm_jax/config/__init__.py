"""Describes a run by frozen dataclasses of numbers that check themselves and build the parts of the library.

A config is a Python file with `get_config() -> Config`. Every field can be overridden on the command line
(`--process.steps 100`); which family a part belongs to is chosen by the file. Nothing is computed before
`build`.

What other rooms use besides, to describe and open data, build parts and read numbers, is named here too.
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
from d3pm_jax.config.checks import (
    NOT_EMPTY as NOT_EMPTY,
    Allowed as Allowed,
    AnyPath as AnyPath,
    Count as Count,
    Epsilon as Epsilon,
    Natural as Natural,
    NonEmptyStr as NonEmptyStr,
    Seed as Seed,
    Size as Size,
    check_fields as check_fields,
    check_instance as check_instance,
    check_number as check_number,
    checks_arguments as checks_arguments,
    describe_hint as describe_hint,
    free_fields as free_fields,
    hints_of as hints_of,
    matches_hint as matches_hint,
)
from d3pm_jax.config.conditions import Mazes, StyledDigits, UpsampledDigits
from d3pm_jax.config.data import (
    Arrays,
    Data,
    Digits,
    Enwik8,
    Idx,
    Shakespeare,
    Text,
    Text8,
    TfdsImages,
    describe_data as describe_data,
    describe_with_digest as describe_with_digest,
    move_data as move_data,
    open_examples as open_examples,
    open_training_examples as open_training_examples,
    say_where_it_lies as say_where_it_lies,
)
from d3pm_jax.config.from_data import filled_field as filled_field
from d3pm_jax.config.head import Head, LogisticHead, ScoreHead, make_logits as make_logits
from d3pm_jax.config.masks import AnyOrder, Blocks
from d3pm_jax.config.model import MLP, Model, NoisyClassifier, ScoreNet, Spec, Transformer, UNet
from d3pm_jax.config.objective import (
    GIDD,
    ContinuousAbsorbing,
    ContinuousUniform,
    GeneralizedKL,
    HybridLoss,
    HybridOfParameters as HybridOfParameters,
    LabelLoss,
    Objective,
    ScoreEntropy,
    StochasticBound,
    Terms,
    logits_keywords as logits_keywords,
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
    build_optimizer as build_optimizer,
)
from d3pm_jax.config.plane import Plane
from d3pm_jax.config.process import (
    Absorbing,
    Argmax,
    Autoregressive,
    Banded,
    ByPlace,
    Dense,
    FromRate,
    Gaussian,
    Hierarchical,
    Interpolating,
    Marginal,
    Masked,
    Process,
    RandomWalk,
    Uniform,
    build_process as build_process,
    find_extra_mask as find_extra_mask,
)
from d3pm_jax.config.run import Config, Mesh, Train
from d3pm_jax.config.samplers import (
    Choice as Choice,
    choose_sampler as choose_sampler,
    describe_sampler as describe_sampler,
)
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
from d3pm_jax.config.tables import Table
from d3pm_jax.config.timesteps import Importance, Independent, LowDiscrepancy, RealTimes, Timesteps
from d3pm_jax.config.trained import (
    CLASSIFIER as CLASSIFIER,
    DIFFUSION as DIFFUSION,
    FLOW as FLOW,
    Trained as Trained,
)

__all__ = [
    "GIDD",
    "MLP",
    "Absorbing",
    "Adafactor",
    "Adam",
    "AdamW",
    "AnyOrder",
    "Argmax",
    "ArgmaxAR",
    "ArgmaxCoupling",
    "Arrays",
    "Autoregressive",
    "Banded",
    "Blocks",
    "ByPlace",
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
    "GeneralizedKL",
    "Head",
    "Hierarchical",
    "HybridLoss",
    "Idx",
    "Importance",
    "Independent",
    "Interpolating",
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
    "ScoreEntropy",
    "ScoreHead",
    "ScoreNet",
    "Shakespeare",
    "Spec",
    "StochasticBound",
    "StyledDigits",
    "Table",
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
