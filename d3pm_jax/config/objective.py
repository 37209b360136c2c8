"""Says what a config minimises."""

import dataclasses
from typing import Literal, NamedTuple

import jax.numpy as jnp
from jaxtyping import Array

from d3pm_jax import losses
from d3pm_jax.processes import Process


class Terms(NamedTuple):
    """Holds what a batch costs."""

    loss: Array  # []  to be minimised
    kl: Array  # [B, *S]  the term of the bound, in nats
    ce: Array  # [B, *S]  cross entropy, in nats


@dataclasses.dataclass(frozen=True)
class Objective:
    """Says what to minimise."""

    first_step: Literal["bayes", "x0"] = "bayes"
    """the rule at t = 1: Bayes' rule, or the prediction of x_0 itself as in the official code"""

    def terms(self, process: Process, logits: Array, x0: Array, xt: Array, t: Array, p_t: Array) -> Terms:
        """Returns the loss of a batch, whose t had the probabilities p_t."""
        raise NotImplementedError

    def check_process(self, process: Process) -> None:
        """Raises ValueError for a process that it cannot be minimised with."""


@dataclasses.dataclass(frozen=True)
class HybridLoss(Objective):
    """Minimises KL_t + ce_weight CE, averaged over t and elements (D3PM)."""

    ce_weight: float = 0.001
    """lambda"""

    def terms(self, process: Process, logits: Array, x0: Array, xt: Array, t: Array, p_t: Array) -> Terms:
        found = losses.hybrid(process, logits, x0, xt, t, self.ce_weight, self.first_step)
        return Terms(losses.mean_over_steps(found.loss, p_t, process.T), found.kl, found.ce)


@dataclasses.dataclass(frozen=True)
class StochasticBound(Objective):
    """Minimises the whole bound, nats per example: KL_t / p_t + prior KL, summed (Multinomial Diffusion)."""

    def terms(self, process: Process, logits: Array, x0: Array, xt: Array, t: Array, p_t: Array) -> Terms:
        found = losses.hybrid(process, logits, x0, xt, t, 0.0, self.first_step)
        return Terms(jnp.mean(losses.stochastic_bound(process, found.kl, x0, p_t)), found.kl, found.ce)

    def check_process(self, process: Process) -> None:
        if jnp.isinf(losses.prior_kl(process, jnp.zeros((), jnp.int32))):
            raise ValueError(
                "the prior KL, and so the stochastic bound, is infinite: end process.beta at 1, as Reciprocal"
            )
