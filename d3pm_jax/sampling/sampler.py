"""Says how a chain is drawn: by which step, after which shaping of the logits, in which blocks and passes."""

import dataclasses

import jax.numpy as jnp

from d3pm_jax.beliefs import WITHOUT_EVIDENCE, strip_evidence
from d3pm_jax.checks.hints import Count
from d3pm_jax.processes import Process, is_category
from d3pm_jax.sampling import denoiser, laws, network, transitions
from d3pm_jax.sampling.fields import Slot
from d3pm_jax.sampling.shaping import Shaping
from d3pm_jax.sampling.steps import LawStep, Step


@dataclasses.dataclass(frozen=True)
class Sampler(Slot):
    """Says how a chain is drawn, slot by slot; by default ancestrally."""

    step: Step = transitions.Bayes()
    """what a row does: moves all places by a law of x_s, or reveals some of those that are masked"""
    shaping: Shaping = Shaping()
    """what is done to the logits before"""
    block: Count | None = None
    """the length of blocks of places that are drawn one after the other, in the order of the places"""
    passes: Count = 1
    """how often `make_plan` takes each row; between two of them x goes back up to where the row began"""
    noises_known: bool = False
    """whether known places are noised as x is, until they are clean at the end; else they always are"""

    def __post_init__(self) -> None:
        """Raises ValueError for slots that do not go together."""
        super().__post_init__()
        repeats = f"passes = {self.passes}" if self.passes > 1 else ""
        noises = "noises_known = True" if self.noises_known else ""
        for slot in filter(None, (repeats, noises)):
            if self.step.goes_by_masks:
                raise ValueError(f"{slot}: a place that was revealed is never noised again; leave it out")
            if self.block is not None:
                raise ValueError(f"{slot}: a block is drawn given clean ones before it; leave it out")

    @property
    def needs_extra_mask(self) -> bool:
        """Tells whether it takes every mask for a place that is unknown, so that no x_0 may be one."""
        return self.block is not None or self.step.needs_extra_mask

    def check(self, process: Process) -> None:
        """Raises ValueError for a process that it is not for."""
        self.shaping.check(process.K)
        self.step.check(process)
        if self.block is not None:
            laws.require_absorbing(process, "a block")

    def check_scores(self) -> None:
        """Raises ValueError where log scores are not enough for it."""
        if not self.step.takes_scores:
            raise ValueError(
                f"{type(self.step).__name__} needs logits of x_0, and the network gives log scores: take "
                f"`tweedie`, `euler` or `tau_leaping`"
            )
        if self.shaping != Shaping():
            raise ValueError(
                f"{self.shaping} shapes logits of x_0, and the network gives log scores: leave it out"
            )

    def law_step(self, guided: type[network.Guided]) -> LawStep:
        """Returns the step, if it draws from a law of x_s that guidance of this class may change.

        Raises:
            ValueError: it does not.
        """
        # What is likeliest in one law may be cut off in another, and then nothing would be possible in both.
        step = self.step.law_step(guided)
        if guided.num_laws > 1 and self.shaping.cuts_off:
            raise ValueError(f"guidance of x_s needs what top_k and top_p cut off: {guided.cure}")
        return step

    def shape(self, answer: denoiser.Answer) -> denoiser.Answer:
        """Returns what a network said, shaped: then its logits are leave-one-out logits."""
        process = answer.process
        logits = answer.logits
        mask = laws.mask_of(process)
        if self.needs_extra_mask and mask is not None:
            # No x_0 is the mask, whatever the network says of it: what is revealed must not stay hidden.
            is_mask = is_category(jnp.broadcast_to(mask, answer.x.shape), process.K)
            logits = jnp.where(is_mask, -jnp.inf, logits)
        if self.shaping.changes_nothing(process.K):
            return answer._replace(logits=logits)
        logits = strip_evidence(process, logits, answer.x, answer.t, answer.belief)

        # What x_t rules out takes no part. Else top-k and top-p might keep nothing but that: of a place that
        # is no longer masked the others may think little, and it must stay what it is.
        is_possible = process.log_q_x0(answer.x, answer.t) > -jnp.inf  # [B, *S, K]
        possible = jnp.where(is_possible, logits, -jnp.inf)
        shaped = self.shaping.apply(possible)
        # For the same reason a place stays what it is that holds a forbidden category.
        is_empty = jnp.max(shaped, axis=-1, keepdims=True) == -jnp.inf
        logits = jnp.where(is_empty, possible.astype(shaped.dtype), shaped)
        belief = WITHOUT_EVIDENCE.get(answer.belief, answer.belief)
        return answer._replace(logits=logits, belief=belief, is_shaped=True)
