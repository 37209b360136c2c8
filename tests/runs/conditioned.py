"""A config of data with a condition, which is x itself in another shape, and a network that repeats it.

The class of an example is the first number of its condition, and the network is wrong with another class.
"""

import dataclasses

import jax
import numpy as np
from flax import nnx

from d3pm_jax import config
from d3pm_jax.config import Adam, Config, Cosine, Head, HybridLoss, Train, Uniform
from d3pm_jax.data import ArraySource, Description

CONDITION = (2, 3)
CATEGORIES = 4


def patterns(n, seed):
    """n conditions int32 [n, 2, 3], of which x is the list of its numbers."""
    return np.random.default_rng(seed).integers(0, CATEGORIES, (n, *CONDITION)).astype(np.int32)


@dataclasses.dataclass(frozen=True)
class Patterns(config.Data):
    seed: int = 0
    """of the patterns"""

    def describe(self):
        return Description((6,), CATEGORIES, CATEGORIES, condition=CONDITION, condition_type="int32")

    def open(self, split):
        conditions = patterns(*{"train": (40, self.seed), "test": (70, self.seed + 1)}[split])
        return ArraySource(conditions.reshape(-1, 6), conditions[:, 0, 0], conditions=conditions)

    def random_map(self, example, rng):
        """Adds the same number to x, its condition and its class, in place."""
        shift = rng.integers(0, CATEGORIES)
        for name in example:
            example[name] += shift
            example[name] %= CATEGORIES
        return example


class Repeating(nnx.Module):
    def __init__(self, spec):
        self.K = spec.K
        self.scale = nnx.Param(jax.numpy.float32(30.0))

    def __call__(self, xt, t, *, condition, label, key=None):
        # It knows x_0 without x_t, and adds none of it: a network that does not look at x_t is warned of.
        x0 = condition.reshape(xt.shape) + (label - condition[:, 0, 0])[:, None] + 0 * xt
        return self.scale[...] * jax.nn.one_hot(x0 % self.K, self.K)


@dataclasses.dataclass(frozen=True)
class Repeat(config.Model):
    def build(self, spec, rngs):
        assert spec.condition == CONDITION
        return Repeating(spec)


class Linear(nnx.Module):
    """Logits from a table of the label and a linear map of the condition, the same at every place."""

    def __init__(self, spec, rngs):
        self.K = spec.K
        self.table = nnx.Param(jax.random.normal(rngs(), (spec.classes, spec.K)))
        self.linear = nnx.Linear(int(np.prod(spec.condition)), spec.K, rngs=rngs)

    def __call__(self, xt, t, *, label, condition, key=None):
        rows = self.table[...][label] + self.linear(condition.reshape(len(xt), -1).astype(jax.numpy.float32))
        return jax.numpy.broadcast_to(rows[:, None], (*xt.shape, self.K))


@dataclasses.dataclass(frozen=True)
class Table(config.Model):
    def build(self, spec, rngs):
        return Linear(spec, rngs)


def get_config() -> Config:
    return Config(
        data=Patterns(),
        process=Uniform(K=CATEGORIES, steps=5, beta=Cosine()),
        model=Repeat(),
        head=Head(residual=False),
        loss=HybridLoss(ce_weight=0.01),
        optimizer=Adam(lr=1e-3),
        train=Train(steps=4, batch_size=8, accumulate=2, log_every=1, checkpoint_every=2, sample_every=4),
    )
