"""Draws samples: what a network believes, steps and samplers of them, chains, guidance, selection, grids.

What the program uses besides is named here too, beside what is public, `__all__`.
"""

from d3pm_jax.sampling import (
    correctors,
    guidance,
    laws,
    named,
    places,
    speculative,
    steering,
    steps,
    transitions,
)
from d3pm_jax.sampling.chain import Chain, Row
from d3pm_jax.sampling.denoiser import Answer, Denoiser, Scores, check_agrees as check_agrees
from d3pm_jax.sampling.grids import best_grid, even_grid
from d3pm_jax.sampling.guidance import Conditioned as Conditioned, Place as Place
from d3pm_jax.sampling.named import SAMPLERS as SAMPLERS
from d3pm_jax.sampling.network import (
    CURE_OF_LOGITS as CURE_OF_LOGITS,
    Guided,
    Logits as Logits,
    Network as Network,
)
from d3pm_jax.sampling.noise import SAMPLING as SAMPLING, Noise, Streams, per_example
from d3pm_jax.sampling.plans import find_level as find_level, make_plan, rows_of_edit as rows_of_edit
from d3pm_jax.sampling.run import PRIOR_STEP as PRIOR_STEP, PartWay, Seen, run, sample
from d3pm_jax.sampling.sampler import Sampler
from d3pm_jax.sampling.shaping import Shaping
from d3pm_jax.sampling.steering import Best, Steered, best_of, choose_best as choose_best, steer
from d3pm_jax.sampling.steps import Known, LawStep, Step, Taken, View

__all__ = [
    "Answer",
    "Best",
    "Chain",
    "Denoiser",
    "Guided",
    "Known",
    "LawStep",
    "Noise",
    "PartWay",
    "Row",
    "Sampler",
    "Scores",
    "Seen",
    "Shaping",
    "Steered",
    "Step",
    "Streams",
    "Taken",
    "View",
    "best_grid",
    "best_of",
    "correctors",
    "even_grid",
    "guidance",
    "laws",
    "make_plan",
    "named",
    "per_example",
    "places",
    "run",
    "sample",
    "speculative",
    "steer",
    "steering",
    "steps",
    "transitions",
]
