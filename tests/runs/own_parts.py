"""A config with data and a network of one's own: three letters, each of which depends on the last."""

import dataclasses

import numpy as np
from flax import nnx

from d3pm_jax import config, processes
from d3pm_jax.config import Absorbing, Adam, Config, Head, HybridLoss, Reciprocal, Train
from d3pm_jax.data import ArraySource, Description

LENGTH = 24
STEP = np.array([[0.8, 0.15, 0.05], [0.1, 0.6, 0.3], [0.25, 0.05, 0.7]])  # p(next letter | letter)


def stationary():
    """The distribution of a letter."""
    values, vectors = np.linalg.eig(STEP.T)
    pi = np.real(vectors[:, np.argmax(np.real(values))])
    return pi / pi.sum()


def entropy():
    """Bits per letter of a sequence."""
    pi = stationary()
    entropy_of_first = -(pi * np.log2(pi)).sum()
    entropy_of_next = -(pi[:, None] * STEP * np.log2(STEP)).sum()
    return (entropy_of_first + (LENGTH - 1) * entropy_of_next) / LENGTH


def sequences(n, seed):
    """n sequences, int8 [n, LENGTH]."""
    rng = np.random.default_rng(seed)
    x = np.zeros((n, LENGTH), np.int8)
    x[:, 0] = np.searchsorted(np.cumsum(stationary()), rng.random(n))
    for i in range(1, LENGTH):
        u = rng.random(n)[:, None]
        x[:, i] = (np.cumsum(STEP, axis=1)[x[:, i - 1]] <= u).sum(1).clip(0, 2)
    return x


@dataclasses.dataclass(frozen=True)
class Letters(config.Data):
    train_size: int = 4000
    test_size: int = 500

    def describe(self):
        return Description((LENGTH,), 3, kind="text", symbols=("a", "b", "c"))

    def open(self, split):
        return ArraySource(sequences(*{"train": (self.train_size, 0), "test": (self.test_size, 1)}[split]))


class Convolutions(nnx.Module):
    def __init__(self, spec, width, rngs):
        self.K = spec.K
        self.T = spec.T
        self.embed = nnx.Embed(spec.K, width, rngs=rngs)
        self.time = nnx.Linear(1, width, rngs=rngs)
        self.layers = nnx.List([nnx.Conv(width, width, (5,), rngs=rngs) for _ in range(3)])
        self.last = nnx.Linear(width, spec.K, rngs=rngs)

    def __call__(self, xt, t, *, label=None, key=None):
        h = self.embed(xt) + self.time((t / self.T)[:, None])[:, None]
        for layer in self.layers:
            h = h + nnx.relu(layer(h))
        return self.last(h)


@dataclasses.dataclass(frozen=True)
class Convolution(config.Model):
    width: int = 64
    """features of a letter"""

    def build(self, spec, rngs):
        return Convolutions(spec, self.width, rngs)


@dataclasses.dataclass(frozen=True)
class OfOwn(config.Process):
    """Absorbing, built from numbers of its own."""

    steps: int = 12

    def build(self):
        return processes.absorbing(1.0 / np.arange(self.steps, 0, -1), 4, 3)


def get_config():
    return Config(
        data=Letters(),
        process=Absorbing(K=4, steps=24, beta=Reciprocal(), mask_id=3),
        head=Head(residual=False),
        model=Convolution(),
        loss=HybridLoss(ce_weight=1.0),
        optimizer=Adam(lr=3e-3, warmup_steps=50, decay_steps=2000),
        train=Train(steps=2000, batch_size=128, ema_decay=0.99, checkpoint_every=100, log_every=50),
    )
