"""Describes one run: all of its parts, and how long it is."""

import dataclasses
from typing import Annotated

from d3pm_jax.config.checks import (
    Count,
    FilePath,
    Free,
    Natural,
    Positive,
    Probability,
    Seed,
    Size,
    UnitInterval,
    check_fields,
)
from d3pm_jax.config.data import Data
from d3pm_jax.config.head import Head
from d3pm_jax.config.model import Model
from d3pm_jax.config.objective import HybridLoss, Objective
from d3pm_jax.config.optimizer import Adam, Optimizer
from d3pm_jax.config.process import Process
from d3pm_jax.config.timesteps import LowDiscrepancy, Timesteps
from d3pm_jax.config.trained import DIFFUSION, Trained
from d3pm_jax.errors import UserError, locate_statement
from d3pm_jax.sampling import Sampler


@dataclasses.dataclass(frozen=True)
class Train:
    """Says how long to train, on what, and what to write."""

    # A field is free if no step computes anything else for another value of it, but for rounding and, where a
    # batch is taken in parts, the masks of dropout.

    steps: Annotated[Count, Free]
    """optimizer steps in all"""
    batch_size: Count = 128
    """examples per step, over all devices"""
    seed: Seed = 0
    """seed of the weights, the data order and the noise"""
    ema_decay: UnitInterval = 0.9999
    """decay of the moving average of the weights; this average is evaluated"""
    log_every: Annotated[Count, Free] = 50
    """steps between lines of metrics.jsonl"""
    checkpoint_every: Annotated[Count, Free] = 1000
    """steps between checkpoints"""
    keep_checkpoints: Annotated[Count, Free] = 2
    """how many of the last checkpoints to keep"""
    sample_every: Annotated[Natural, Free] = 0
    """steps between pictures of samples; 0: none"""
    eval_every: Annotated[Natural, Free] = 0
    """steps between estimates of the bound, on the `held_out` examples or else the valid split; 0: none"""
    held_out: Natural = 0
    """how many of the last training examples to hold out from training"""
    noise: Annotated[FilePath | None, Free] = None
    """a file of `d3pm presample` with t and noise; None: they are drawn, which gives the same bits"""
    accumulate: Annotated[Size, Free] = dataclasses.field(default=1, kw_only=True)
    """parts of a batch that are computed one after the other: the same step in less memory"""
    remat: Annotated[bool, Free] = dataclasses.field(default=False, kw_only=True)
    """recompute blocks in the backward pass: slower, less memory, except for UNet and ScoreNet on a CPU"""
    max_nonfinite: Annotated[Count, Free] = dataclasses.field(default=5, kw_only=True)
    """stop after so many steps in a row that were skipped, as loss, kl, ce or gradient was not finite"""
    drop_condition: Probability = dataclasses.field(default=0.0, kw_only=True)
    """share of examples that lose label and condition in training, which guidance needs; 0: none"""


@dataclasses.dataclass(frozen=True)
class Mesh:
    """Says how a run is laid out over devices; free to change when it is resumed."""

    fsdp: Annotated[Size, Free] = 1
    """number of devices over which to shard parameters, their average and the state of the optimizer"""
    heartbeat: Annotated[Count, Free] = 30
    """seconds without a sign of life after which a process counts as dead, and the others stop"""
    peak_flops: Annotated[Positive | None, Free] = None
    """peak FLOP/s of a device, from which utilisation follows; None: the known one of its kind"""


@dataclasses.dataclass(frozen=True)
class Config:
    """Describes one run."""

    data: Data
    process: Process
    model: Model
    train: Train
    head: Head = Head()
    loss: Objective = HybridLoss()
    timesteps: Timesteps = LowDiscrepancy()
    optimizer: Optimizer = Adam()
    mesh: Mesh = Mesh()
    sampler: Annotated[Sampler, Free] = Sampler()
    """the sampler of the run, unless a command or `Run.sample` names another one;
    --sampler.FIELD VALUE sets a field of it, and --sampler help lists all samplers"""

    @property
    def trains(self) -> Trained:
        """Returns what the run trains: what its process does, or else its loss."""
        if self.process.trains != DIFFUSION:
            return self.process.trains
        return self.loss.trains

    def check(self) -> None:
        """Refuses fields that are not of their type, and numbers that would fail later and less clearly.

        Raises:
            ValueError: naming the field.
        """
        check_fields("", self)
        for part in (self.optimizer, self.model, self.timesteps, self.data, self.loss):
            # A method that says no in this way would be believed to have said nothing.
            if part.check() is False:
                place = locate_statement(part.check, "return")
                raise UserError(
                    f"{place}: check returns False: raise ValueError there, which says what cannot be used"
                )
        if self.train.batch_size % self.train.accumulate:
            raise ValueError(
                f"train.accumulate = {self.train.accumulate} does not divide train.batch_size = "
                f"{self.train.batch_size} into equal parts: change one"
            )
        if self.head.gives != self.loss.head_gives:
            cures = {"logits": "Head()", "log scores": "ScoreHead()"}
            raise ValueError(
                f"head = {type(self.head).__name__} gives {self.head.gives}, but loss = "
                f"{type(self.loss).__name__} takes {self.loss.head_gives}: take "
                f"head={cures[self.loss.head_gives]}"
            )
        self.loss.check_beside(self.head, self.timesteps)
