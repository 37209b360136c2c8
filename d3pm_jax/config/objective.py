"""The parts of a config that say what to minimise and at which t; part of `d3pm_jax.config`."""

import dataclasses
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array

from d3pm_jax import losses, timesteps, transitions
from d3pm_jax.timesteps import LossHistory


@dataclasses.dataclass(frozen=True)
class Timesteps:
    """Which t to train on."""

    def start(self, T: int) -> LossHistory | None:
        """What it learns in training, before the first step."""
        return None

    def draw(self, key: Array, history: LossHistory | None, B: int, T: int) -> tuple[Array, Array]:
        """t in 1..T and its probability, [B] each."""
        raise NotImplementedError

    def update(self, history: LossHistory | None, t: Array, kl: Array) -> LossHistory | None:
        """What it learns from the kl [B] of a batch, summed over elements."""
        return history


@dataclasses.dataclass(frozen=True)
class LowDiscrepancy(Timesteps):
    """Uniform, spread evenly over each batch."""

    def draw(self, key: Array, history: LossHistory | None, B: int, T: int) -> tuple[Array, Array]:
        return timesteps.low_discrepancy(jax.random.uniform(key), B, T), jnp.full(B, 1 / T)


@dataclasses.dataclass(frozen=True)
class Independent(Timesteps):
    """Uniform, every example for itself."""

    def draw(self, key: Array, history: LossHistory | None, B: int, T: int) -> tuple[Array, Array]:
        return timesteps.uniform(jax.random.uniform(key, (B,)), T), jnp.full(B, 1 / T)


@dataclasses.dataclass(frozen=True)
class Importance(Timesteps):
    """Steps with a large loss more often, weighted down by as much; uniform until enough is known."""

    least_count: int = 10
    """examples of every step that are not enough"""
    decay: float = 0.9
    """of the running mean of each step's squared loss"""

    def start(self, T: int) -> LossHistory | None:
        return timesteps.empty_history(T)

    def draw(self, key: Array, history: LossHistory | None, B: int, T: int) -> tuple[Array, Array]:
        assert history is not None
        u = jax.random.uniform(key, (B,))
        return timesteps.importance(u, timesteps.probabilities(history, self.least_count))

    def update(self, history: LossHistory | None, t: Array, kl: Array) -> LossHistory | None:
        assert history is not None
        return timesteps.update(history, t, kl, self.decay)


class Terms(NamedTuple):
    """What a batch costs."""

    loss: Array  # []  to be minimised
    kl: Array  # [B, *S]  the term of the bound, in nats
    ce: Array  # [B, *S]  cross entropy, in nats


@dataclasses.dataclass(frozen=True)
class Objective:
    """What to minimise."""

    first_step: Literal["bayes", "x0"] = "bayes"
    """the rule at t = 1: Bayes' rule, or the prediction of x_0 itself as in the official code"""

    def terms(
        self, tr: transitions.Transition, logits: Array, x0: Array, xt: Array, t: Array, p_t: Array
    ) -> Terms:
        """The loss of a batch, whose t had the probabilities p_t."""
        raise NotImplementedError

    def check(self, tr: transitions.Transition) -> None:
        """Raises ValueError for a process that it cannot be minimised with."""


@dataclasses.dataclass(frozen=True)
class Loss(Objective):
    """KL_t + ce_weight CE, averaged over t and elements (D3PM)."""

    ce_weight: float = 0.001
    """lambda"""

    def terms(
        self, tr: transitions.Transition, logits: Array, x0: Array, xt: Array, t: Array, p_t: Array
    ) -> Terms:
        found = losses.hybrid(tr, logits, x0, xt, t, self.ce_weight, self.first_step)
        return Terms(weighted_mean(found.loss, p_t, tr.T), found.kl, found.ce)


@dataclasses.dataclass(frozen=True)
class StochasticBound(Objective):
    """The whole bound in nats per example, KL_t / p_t + prior KL, summed (Multinomial Diffusion)."""

    def terms(
        self, tr: transitions.Transition, logits: Array, x0: Array, xt: Array, t: Array, p_t: Array
    ) -> Terms:
        found = losses.hybrid(tr, logits, x0, xt, t, 0.0, self.first_step)
        return Terms(jnp.mean(losses.stochastic_bound(tr, found.kl, x0, p_t)), found.kl, found.ce)

    def check(self, tr: transitions.Transition) -> None:
        if jnp.isinf(losses.prior_kl(tr, jnp.zeros((), jnp.int32))):
            raise ValueError(
                "the prior KL, and so the stochastic bound, is infinite: end process.beta at 1, as Reciprocal"
            )


def weighted_mean(x: Array, p_t: Array, T: int) -> Array:
    """The mean of x [B, *S] over elements and, whatever the probabilities of the drawn t, over t."""
    return jnp.mean(x.reshape(x.shape[0], -1).mean(axis=1) * ((1 / T) / p_t))
