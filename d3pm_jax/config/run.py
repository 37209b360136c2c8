"""What a run is: frozen dataclasses of numbers, which build the parts of the library.

A config is a Python file with `get_config() -> Config`. Every field can be overridden on the command
line (`--process.steps 100`); which family a part belongs to is chosen by the file. Nothing is computed
before `build`.
"""

import dataclasses
from typing import ClassVar

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from d3pm_jax import heads, schedules, transitions
from d3pm_jax.config_loss import Importance as Importance
from d3pm_jax.config_loss import Independent as Independent
from d3pm_jax.config_loss import Loss, LowDiscrepancy, Objective, Timesteps
from d3pm_jax.config_loss import StochasticBound as StochasticBound
from d3pm_jax.config_model import Model
from d3pm_jax.config_model import ScoreNet as ScoreNet
from d3pm_jax.config_model import UNet as UNet


@dataclasses.dataclass(frozen=True)
class Schedule:
    """How much noise each step adds."""

    def build(self, steps: int) -> np.ndarray:
        """beta_t, float64 [steps]."""
        raise NotImplementedError


@dataclasses.dataclass(frozen=True)
class Linear(Schedule):
    """beta_t in equal steps from start to stop, meant for 1000 steps."""

    start: float = 1e-4
    """beta at t = 1"""
    stop: float = 0.02
    """beta at t = T"""
    rescale: bool = True
    """multiply both by 1000 / steps, so that any number of steps adds as much noise in all"""

    def build(self, steps: int) -> np.ndarray:
        factor = 1000.0 / schedules.check_steps(steps) if self.rescale else 1.0
        return schedules.linear(steps, self.start * factor, self.stop * factor)


@dataclasses.dataclass(frozen=True)
class Cosine(Schedule):
    """alpha_bar_t = cos((t / T + offset) / (1 + offset) pi / 2), not squared."""

    offset: float = 0.008
    """keeps the first beta away from 0"""
    largest: float = 0.999
    """upper limit of beta"""

    def build(self, steps: int) -> np.ndarray:
        return schedules.cosine(steps, self.offset, self.largest)


@dataclasses.dataclass(frozen=True)
class CosineSquared(Schedule):
    """The schedule of Multinomial Diffusion: `Cosine` with a limit on alpha."""

    offset: float = 0.008
    """keeps the first beta away from 0"""
    smallest: float = 0.001
    """lower limit of alpha squared"""

    def build(self, steps: int) -> np.ndarray:
        return schedules.cosine_squared(steps, self.offset, self.smallest)


@dataclasses.dataclass(frozen=True)
class Reciprocal(Schedule):
    """beta_t = 1 / (scale T - t + 1): for absorbing processes."""

    scale: float = 1.0
    """above 1 to stop before everything is masked"""

    def build(self, steps: int) -> np.ndarray:
        return schedules.reciprocal(steps, self.scale)


@dataclasses.dataclass(frozen=True)
class LogLinear(Schedule):
    """alpha_bar_t = 1 - (1 - eps) t / T."""

    eps: float = 1e-3
    """alpha_bar at t = T"""

    def build(self, steps: int) -> np.ndarray:
        return schedules.log_linear(steps, self.eps)


@dataclasses.dataclass(frozen=True)
class Polynomial(Schedule):
    """alpha_bar_t = 1 - (t / T)^power."""

    power: float = 2.0
    """above 1 to remove little at first"""

    def build(self, steps: int) -> np.ndarray:
        return schedules.polynomial(steps, self.power)


@dataclasses.dataclass(frozen=True)
class Process:
    """The forward process."""

    K: int
    """number of categories, a mask counted"""
    steps: int
    """T"""
    beta: Schedule

    def build(self) -> transitions.Transition:
        """The process with its tables."""
        raise NotImplementedError


@dataclasses.dataclass(frozen=True)
class Uniform(Process):
    """Resample uniformly."""

    def build(self) -> transitions.Transition:
        return transitions.uniform(self.beta.build(self.steps), self.K)


@dataclasses.dataclass(frozen=True)
class Absorbing(Process):
    """Move to a mask and stay."""

    mask_id: int
    """which category the mask is; K - 1 for an extra symbol"""

    def build(self) -> transitions.Transition:
        return transitions.absorbing(self.beta.build(self.steps), self.K, self.mask_id)


@dataclasses.dataclass(frozen=True)
class Gaussian(Process):
    """Move to near values of ordinal data."""

    bands: int | None = None
    """the furthest that one step can move; K - 1 without"""

    def build(self) -> transitions.Transition:
        return transitions.gaussian(self.beta.build(self.steps), self.K, self.bands)


@dataclasses.dataclass(frozen=True)
class Banded(Process):
    """Resample uniformly, but keep only moves to near values."""

    bands: int
    """the furthest that one step can move"""

    def build(self) -> transitions.Transition:
        return transitions.banded(self.beta.build(self.steps), self.K, self.bands)


@dataclasses.dataclass(frozen=True)
class Data:
    """A TFDS image data set."""

    name: str
    """"digits", or any TFDS image data set prepared as ArrayRecord"""
    dir: str | None = None
    """where data sets lie; by default the directory of TFDS"""
    train_split: str = "train"
    """what to train on"""
    test_split: str = "test"
    """what to evaluate on"""


@dataclasses.dataclass(frozen=True)
class Head:
    """Logits of x_0, one output of the network for each."""

    residual: bool = True
    """add onehot(x_t)"""
    forbid: int | None = None
    """a category that the data never contains: an extra mask"""
    outputs: ClassVar[int | None] = None
    """what the network gives for each element: None for K logits, or so many numbers; see `models.UNet`"""

    def logits(self, output: Array, xt: Array, K: int) -> Array:
        """Logits of x_0 [*S, K] from the output [*S, outputs] of a network that was given x_t."""
        return self._forbidden(heads.residual(output, xt) if self.residual else output)

    def _forbidden(self, logits: Array) -> Array:
        return logits if self.forbid is None else heads.forbid(logits, self.forbid)


@dataclasses.dataclass(frozen=True)
class LogisticHead(Head):
    """A truncated logistic distribution for ordinal data: its place and log-width from the network."""

    residual: bool = True
    """add x_t, scaled to [-1, 1], to the place before a tanh"""
    outputs: ClassVar[int | None] = 2

    def logits(self, output: Array, xt: Array, K: int) -> Array:
        loc = output[..., 0] + xt * (2.0 / (K - 1)) - 1.0 if self.residual else output[..., 0]
        return self._forbidden(heads.logistic(jnp.tanh(loc), output[..., 1], K))


@dataclasses.dataclass(frozen=True)
class Adam:
    """Adam with warm-up, cosine decay and clipping by the global norm."""

    lr: float = 2e-4
    """learning rate after warm-up"""
    b1: float = 0.9
    """decay of the first moment"""
    b2: float = 0.999
    """decay of the second moment"""
    warmup_steps: int = 0
    """steps from 0 to lr"""
    decay_steps: int | None = None
    """step at which a cosine decay reaches 0; constant lr without"""
    clip: float = 1.0
    """largest global norm of a gradient"""
    weight_decay: float = 0.0
    """of AdamW: each step also takes lr times this part of a kernel away; biases and scales stay"""


@dataclasses.dataclass(frozen=True)
class Train:
    """How long, on what, and what to write."""

    steps: int
    """optimizer steps in all"""
    batch_size: int = 128
    """examples per step, over all devices"""
    seed: int = 0
    """of weights, data order and noise"""
    ema_decay: float = 0.9999
    """of the averaged weights, which are evaluated"""
    log_every: int = 50
    """steps between lines of metrics.jsonl"""
    checkpoint_every: int = 1000
    """steps between checkpoints"""
    keep_checkpoints: int = 2
    """how many of the last checkpoints to keep"""
    sample_every: int = 0
    """steps between sample pictures; 0 for none"""
    noise: str | None = None
    """a file of `d3pm presample` to take t and noise from; without, they are drawn, to the same bits"""


@dataclasses.dataclass(frozen=True)
class Config:
    """One run."""

    data: Data
    process: Process
    model: Model
    train: Train
    head: Head = Head()
    loss: Objective = Loss()
    timesteps: Timesteps = LowDiscrepancy()
    optimizer: Adam = Adam()
