"""Data, process and network of one's own."""

import dataclasses

import numpy as np
from flax import nnx

from d3pm_jax import config, processes
from d3pm_jax.config import Adam, Config, Head, HybridLoss, Train
from d3pm_jax.data import ArraySource, Description


@dataclasses.dataclass(frozen=True)
class Letters(config.Data):
    length: int = 12

    def describe(self):
        return Description((self.length,), 3, kind="text", symbols=("a", "b", "c"))

    def open(self, split):
        size, seed = {"train": (400, 0), "test": (40, 1)}[split]
        steps = np.random.default_rng(seed).integers(0, 2, (size, self.length))
        return ArraySource((np.cumsum(steps, axis=1) % 3).astype(np.int8))


@dataclasses.dataclass(frozen=True)
class Masking(config.Process):
    steps: int = 8

    def build(self):
        return processes.absorbing(1.0 / np.arange(self.steps, 0, -1), 4, 3)


class Convolutions(nnx.Module):
    def __init__(self, spec, width, rngs):
        self.T = spec.T
        self.embed = nnx.Embed(spec.K, width, rngs=rngs)
        self.time = nnx.Linear(1, width, rngs=rngs)
        self.conv = nnx.Conv(width, width, (3,), rngs=rngs)
        self.last = nnx.Linear(width, spec.K, rngs=rngs)

    def __call__(self, xt, t, *, label=None, key=None):
        h = self.embed(xt) + self.time((t / self.T)[:, None])[:, None]
        return self.last(h + nnx.relu(self.conv(h)))


@dataclasses.dataclass(frozen=True)
class Convolution(config.Model):
    width: int = 8
    """features of a letter"""

    def build(self, spec, rngs):
        return Convolutions(spec, self.width, rngs)


def get_config() -> Config:
    return Config(
        data=Letters(),
        process=Masking(),
        head=Head(residual=False),
        model=Convolution(),
        loss=HybridLoss(ce_weight=1.0),
        optimizer=Adam(lr=3e-3),
        train=Train(
            steps=9, batch_size=16, ema_decay=0.9, log_every=3, checkpoint_every=3, keep_checkpoints=3
        ),
    )
