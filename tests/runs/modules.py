"""Networks as people bring them: each is a module of Flax with something that the shipped networks lack."""

import dataclasses

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from d3pm_jax import config
from d3pm_jax.data import ArraySource, Description

K = 5
LENGTH = 6
WIDTH = 8


class Base(nnx.Module):
    """Embeds x_t and t, applies the layer of a subclass, and gives logits."""

    def __init__(self, spec, rngs):
        self.T = spec.T
        self.embed = nnx.Embed(spec.K, WIDTH, rngs=rngs)
        self.time = nnx.Linear(1, WIDTH, rngs=rngs)
        self.last = nnx.Linear(WIDTH, spec.K, rngs=rngs)
        self.make_layer(rngs)

    def make_layer(self, rngs):
        self.linear = nnx.Linear(WIDTH, WIDTH, rngs=rngs)

    def apply_layer(self, h, key):
        return self.linear(h)

    def __call__(self, xt, t, *, label=None, key=None):
        h = self.embed(xt) + self.time((t / self.T)[:, None])[:, None]
        return self.last(h + nnx.relu(self.apply_layer(h, key)))


class BatchNorm(Base):
    def make_layer(self, rngs):
        self.linear = nnx.Linear(WIDTH, WIDTH, use_bias=False, rngs=rngs)
        self.norm = nnx.BatchNorm(WIDTH, momentum=0.9, rngs=rngs)

    def apply_layer(self, h, key):
        return self.norm(self.linear(h))


class GroupNorm(Base):
    def make_layer(self, rngs):
        self.norm = nnx.GroupNorm(WIDTH, num_groups=2, rngs=rngs)

    def apply_layer(self, h, key):
        return self.norm(h)


class SpectralNorm(Base):
    def make_layer(self, rngs):
        self.norm = nnx.SpectralNorm(nnx.Linear(WIDTH, WIDTH, rngs=rngs), rngs=rngs)

    def apply_layer(self, h, key):
        return self.norm(h, update_stats=key is not None)


class WeightNorm(Base):
    def make_layer(self, rngs):
        self.norm = nnx.WeightNorm(nnx.Linear(WIDTH, WIDTH, rngs=rngs), rngs=rngs)

    def apply_layer(self, h, key):
        return self.norm(h)


class DropoutWithStreams(Base):
    def make_layer(self, rngs):
        super().make_layer(rngs)
        self.dropout = nnx.Dropout(0.3, rngs=rngs)

    def apply_layer(self, h, key):
        return self.dropout(self.linear(h))


class DropoutWithKey(Base):
    def make_layer(self, rngs):
        super().make_layer(rngs)
        self.dropout = nnx.Dropout(0.3)

    def apply_layer(self, h, key):
        return self.dropout(self.linear(h), rngs=key, deterministic=key is None)


class ConstantVariable(Base):
    def make_layer(self, rngs):
        super().make_layer(rngs)
        self.scale = nnx.Variable(jnp.linspace(0.1, 0.7, WIDTH))

    def apply_layer(self, h, key):
        return self.linear(h) * self.scale[None, None]


class ConstantArrays(Base):
    def make_layer(self, rngs):
        super().make_layer(rngs)
        self.shift = np.linspace(0.1, 0.7, WIDTH, dtype=np.float32)
        self.frequencies = jnp.linspace(0.1, 0.7, WIDTH)

    def apply_layer(self, h, key):
        return self.linear(h) * self.frequencies[None, None] + self.shift[None, None]


class StreamsKept(Base):
    def make_layer(self, rngs):
        super().make_layer(rngs)
        self.rngs = rngs

    def apply_layer(self, h, key):
        if key is None:
            return self.linear(h)
        return self.linear(h) + 0.1 * jax.random.normal(self.rngs(), h.shape)


class IntegerBuffer(Base):
    def make_layer(self, rngs):
        super().make_layer(rngs)
        self.order = nnx.Variable(jnp.arange(WIDTH)[::-1])
        self.calls = nnx.Variable(jnp.zeros((), jnp.int32))

    def apply_layer(self, h, key):
        self.calls[...] += 1
        return self.linear(h)[..., self.order[...]]


class TiedWeights(Base):
    def make_layer(self, rngs):
        super().make_layer(rngs)
        self.again = self.linear

    def apply_layer(self, h, key):
        return self.again(nnx.relu(self.linear(h)))


class Frozen(nnx.Variable):
    pass


class FrozenPart(Base):
    def make_layer(self, rngs):
        super().make_layer(rngs)
        self.projection = Frozen(jax.random.normal(rngs.params(), (WIDTH, WIDTH)))

    def apply_layer(self, h, key):
        return self.linear(h @ self.projection[...])


class Plain(nn.Module):
    @nn.compact
    def __call__(self, h):
        return nn.Dense(WIDTH)(h)


class Normed(nn.Module):
    @nn.compact
    def __call__(self, h, train):
        return nn.BatchNorm(use_running_average=not train, momentum=0.9)(nn.Dense(WIDTH, use_bias=False)(h))


class Bridge(Base):
    def make_layer(self, rngs):
        self.linen = nnx.bridge.ToNNX(Plain(), rngs=rngs).lazy_init(jnp.zeros((1, LENGTH, WIDTH)))

    def apply_layer(self, h, key):
        return self.linen(h)


class BridgeWithStatistics(Base):
    def make_layer(self, rngs):
        module = nnx.bridge.ToNNX(Normed(), rngs=rngs)
        self.linen = module.lazy_init(jnp.zeros((1, LENGTH, WIDTH)), train=False)

    def apply_layer(self, h, key):
        if key is None:
            return self.linen(h, train=False)
        return self.linen(h, train=True, mutable=["batch_stats"])


class RecurrentCarry(Base):
    def make_layer(self, rngs):
        self.rnn = nnx.RNN(nnx.GRUCell(WIDTH, WIDTH, rngs=rngs))

    def apply_layer(self, h, key):
        return self.rnn(h)


class SownValues(Base):
    def apply_layer(self, h, key):
        h = self.linear(h)
        self.sow(nnx.Intermediate, "activations", h)
        return h


class CarryOfBatch(Base):
    def make_layer(self, rngs):
        super().make_layer(rngs)
        self.carry = nnx.Variable(jnp.zeros((1, LENGTH, WIDTH)))

    def apply_layer(self, h, key):
        self.carry.set_value(0.5 * self.carry[...] + self.linear(h))
        return self.carry[...]


class WithoutKey(Base):
    def __call__(self, xt, t):
        return super().__call__(xt, t)


class Everything(Base):
    """Most of what the others have, in one network: compiled once for many tests."""

    def make_layer(self, rngs):
        self.linear = nnx.Linear(WIDTH, WIDTH, use_bias=False, rngs=rngs)
        self.norm = nnx.BatchNorm(WIDTH, momentum=0.9, rngs=rngs)
        self.group_norm = nnx.GroupNorm(WIDTH, num_groups=2, rngs=rngs)
        self.spectral = nnx.SpectralNorm(nnx.Linear(WIDTH, WIDTH, rngs=rngs), rngs=rngs)
        self.weight_norm = nnx.WeightNorm(nnx.Linear(WIDTH, WIDTH, rngs=rngs), rngs=rngs)
        self.plain = nnx.bridge.ToNNX(Plain(), rngs=rngs).lazy_init(jnp.zeros((1, LENGTH, WIDTH)))
        self.linen = nnx.bridge.ToNNX(Normed(), rngs=rngs).lazy_init(
            jnp.zeros((1, LENGTH, WIDTH)), train=False
        )
        self.rnn = nnx.RNN(nnx.SimpleCell(WIDTH, WIDTH, rngs=rngs))
        self.dropout = nnx.Dropout(0.3, rngs=rngs)
        self.plain_dropout = nnx.Dropout(0.3)
        self.rngs = rngs
        self.scale = nnx.Variable(jnp.linspace(0.1, 0.7, WIDTH))
        self.shift = np.linspace(0.1, 0.7, WIDTH, dtype=np.float32)
        self.frequencies = (jnp.linspace(0.1, 0.7, WIDTH),)
        self.order = nnx.Variable(jnp.arange(WIDTH)[::-1])
        self.calls = nnx.Variable(jnp.zeros((), jnp.int32))
        self.projection = Frozen(jax.random.normal(rngs.params(), (WIDTH, WIDTH)))
        self.temperature = nnx.Param(1.0)
        self.again = self.linear

    def apply_layer(self, h, key):
        self.calls[...] += 1
        h = self.dropout(self.norm(self.linear(h)))
        h = h * self.scale[None, None] + self.shift[None, None] * self.frequencies[0][None, None]
        h = h + self.spectral(h[..., self.order[...]], update_stats=key is not None)
        h = h + self.weight_norm(self.group_norm(h)) * self.temperature[...]
        h = h + self.rnn(self.plain(h))
        h = self.again(self.plain_dropout(h, rngs=key, deterministic=key is None) @ self.projection[...])
        if key is None:
            return self.linen(h, train=False)
        h = h + 0.1 * jax.random.normal(self.rngs(), h.shape)
        return self.linen(h, train=True, mutable=["batch_stats"])


class NoCall(nnx.Module):
    pass


WORKING = {
    module.__name__: module
    for module in (
        BatchNorm,
        GroupNorm,
        SpectralNorm,
        WeightNorm,
        DropoutWithStreams,
        DropoutWithKey,
        ConstantVariable,
        ConstantArrays,
        StreamsKept,
        IntegerBuffer,
        TiedWeights,
        FrozenPart,
        Bridge,
        BridgeWithStatistics,
        RecurrentCarry,
        SownValues,
        WithoutKey,
        Everything,
    )
}
# Buffers that no call writes to; networks that draw, and those in which examples of a batch count together.
CONSTANT = {"scale", "shift", "frequencies", "frequencies.0", "order", "projection"}
RANDOM = {"DropoutWithStreams", "DropoutWithKey", "StreamsKept", "Everything"}
OF_BATCH = {"BatchNorm", "BridgeWithStatistics", "SpectralNorm", "Everything", "IntegerBuffer"}


@dataclasses.dataclass(frozen=True)
class Sequences(config.Data):
    """Rows of one letter and the next ones, in turn."""

    def describe(self):
        return Description((LENGTH,), K, kind="array")

    def open(self, split):
        first = np.random.default_rng(split == "test").integers(0, K, (64, 1))
        return ArraySource((first + np.arange(LENGTH)) % K)


@dataclasses.dataclass(frozen=True)
class Named(config.Model):
    """The network of a name."""

    name: str = "BatchNorm"

    def build(self, spec, rngs):
        return WORKING[self.name](spec, rngs)


def get_config(model=None, steps=60, accumulate=1):
    return config.Config(
        data=Sequences(),
        process=config.Uniform(K=K, steps=10, beta=config.Cosine()),
        model=model or Named(),
        loss=config.HybridLoss(ce_weight=0.1),
        optimizer=config.Adam(lr=1e-2, weight_decay=0.01),
        train=config.Train(steps, batch_size=8, ema_decay=0.9, accumulate=accumulate, log_every=20),
    )
