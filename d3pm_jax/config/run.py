"""Describes one run: all of its parts, and how long it is."""

import dataclasses

from d3pm_jax.config.checks import check_at_least, check_shares
from d3pm_jax.config.data import Data
from d3pm_jax.config.head import Head
from d3pm_jax.config.model import Model
from d3pm_jax.config.objective import HybridLoss, Objective
from d3pm_jax.config.optimizer import Adam, Optimizer
from d3pm_jax.config.process import Process
from d3pm_jax.config.timesteps import LowDiscrepancy, Timesteps


@dataclasses.dataclass(frozen=True)
class Train:
    """Says how long to train, on what, and what to write."""

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

    def check(self) -> None:
        """Raises ValueError for a field that cannot be used."""
        least = {"batch_size": 1, "log_every": 1, "checkpoint_every": 1, "keep_checkpoints": 1}
        check_at_least("train", self, **least, sample_every=0, steps=1, seed=0)
        check_shares("train", self, "ema_decay")


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

    def check(self) -> None:
        """Refuses numbers that would fail later and less clearly.

        Raises:
            ValueError: naming the field.
        """
        for part in (self.train, self.optimizer, self.model, self.timesteps, self.data, self.loss):
            part.check()
