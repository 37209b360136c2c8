"""Says what a config minimises."""

import dataclasses
from typing import NamedTuple, TypedDict

import jax.numpy as jnp
from jaxtyping import Array

from d3pm_jax import losses
from d3pm_jax.beliefs import Belief
from d3pm_jax.checks import bare
from d3pm_jax.config.checks import NotNegative, Part, undefined
from d3pm_jax.config.head import Head
from d3pm_jax.config.timesteps import Timesteps
from d3pm_jax.losses.variational import per_step
from d3pm_jax.posteriors import FirstStep, q_sample
from d3pm_jax.processes import Process
from d3pm_jax.processes.tables import expand_trailing


class Terms(NamedTuple):
    """Holds what each element of a batch costs, [B, *S]."""

    loss: Array  # divided by T p_t: its mean over elements is minimised
    kl: Array  # the term of the bound, in nats
    ce: Array  # cross entropy, in nats


@dataclasses.dataclass(frozen=True)
class Objective(Part):
    """Says what to minimise. A class of one's own defines `terms`; it may define the others."""

    def draw(self, process: Process, x0: Array, t: Array, u: Array) -> Array:
        """Draws the x_t that the network is given; u: uniform noise [B, *S]."""
        return bare(q_sample)(process, x0, t, u)

    def terms(self, process: Process, logits: Array, x0: Array, xt: Array, t: Array, p_t: Array) -> Terms:
        """Returns what each element of a batch costs, whose t had the probabilities p_t [B]."""
        raise undefined(self, "terms")

    def check_process(self, process: Process) -> None:
        """Raises ValueError for a process that it cannot be minimised with."""

    def check_beside(self, head: Head, timesteps: Timesteps) -> None:
        """Raises ValueError for a head, or times, that it cannot be minimised with."""
        if timesteps.real:
            raise ValueError(
                f"timesteps = {timesteps} draws real times, {type(self).__name__} needs whole steps: "
                f"take LowDiscrepancy()"
            )


@dataclasses.dataclass(frozen=True)
class X0Objective(Objective):
    """Describes what trains a network of x_0."""

    first_step: FirstStep = "bayes"
    """for "d3pm", the rule at t = 1: Bayes' rule, or the prediction of x_0 as in the official code"""
    belief: Belief = dataclasses.field(default="leave_one_out", kw_only=True)
    """what the logits are in both terms: "leave_one_out" or "denoiser"; "d3pm" as published, one in each"""

    def check(self) -> None:
        if self.first_step == "x0" and self.belief != "d3pm":
            raise ValueError(
                f"first_step = 'x0' is a rule as published, and does nothing for belief = {self.belief!r}: "
                f"set belief = 'd3pm', or leave first_step out"
            )


@dataclasses.dataclass(frozen=True)
class HybridLoss(X0Objective):
    """Minimises KL_t + ce_weight CE, averaged over t and elements (D3PM)."""

    ce_weight: NotNegative = 0.001
    """lambda; 0 for the bound alone"""

    def terms(self, process: Process, logits: Array, x0: Array, xt: Array, t: Array, p_t: Array) -> Terms:
        found = bare(losses.hybrid)(process, logits, x0, xt, t, self.ce_weight, **logits_keywords(self))
        return Terms(bare(per_step)(found.loss, p_t, process.T), found.kl, found.ce)


@dataclasses.dataclass(frozen=True)
class StochasticBound(X0Objective):
    """Minimises the whole bound, nats per example: KL_t / p_t + prior KL, summed (Multinomial Diffusion)."""

    def terms(self, process: Process, logits: Array, x0: Array, xt: Array, t: Array, p_t: Array) -> Terms:
        found = bare(losses.hybrid)(process, logits, x0, xt, t, 0.0, **logits_keywords(self))
        each = found.kl / expand_trailing(p_t, x0.shape) + bare(losses.prior_kl)(process, x0)
        return Terms(each * (x0.size // x0.shape[0]), found.kl, found.ce)

    def check_process(self, process: Process) -> None:
        if process.positional:  # it may ask for the shape of the data, which is not known here
            return
        if jnp.isinf(losses.prior_kl(process, jnp.zeros((), jnp.int32))):
            raise ValueError(
                "the prior KL, and so the stochastic bound, is infinite: end process.beta at 1, as Reciprocal"
            )


class LogitsKeywords(TypedDict):
    """Holds what a reverse step and a bound have to know of the logits, as their keywords."""

    first_step: FirstStep
    belief: Belief


def logits_keywords(objective: Objective) -> LogitsKeywords:
    """Returns what the logits of an objective are: as published for one that has no such fields."""
    first_step: FirstStep = getattr(objective, "first_step", "bayes")
    belief: Belief = getattr(objective, "belief", "d3pm")
    return {"first_step": first_step, "belief": belief}
