"""Drafts several places at once, and keeps those that the network would draw one after the other.

The order of the places is drawn before the first row. A row drafts the next k of it from one answer of the
network, each place on its own: by p_j. Then it asks again, for all drafts in one batch, with the drafts
before the j-th revealed, at the time of so many masks: that is what a sampler of one place a call is told,
q_j. Draft j is accepted with probability min(1, q_j / p_j). The first that is not gives way to a draw from
what q_j has above p_j, and the row ends there. So each place is drawn by q_j, whatever p_j is:

    q(x) = p(x) min(1, q(x) / p(x)) + (1 - sum_y min(p(y), q(y))) (q(x) - p(x))^+ / sum_y (q(y) - p(y))^+,

where the second product has two equal numbers, one divided by the other. q_1 is p_1, which needs no second
answer, and its draft is accepted: a row of two drafts or more reveals two places at least. The answer to all
k drafts could be the next p, but the program would wait for examples without one all the same.
"""

import dataclasses
import math

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Int

from d3pm_jax.checks import CATEGORIES, LOG_PROBABILITY, declared, hints
from d3pm_jax.numerics import inverse_cdf, log1mexp
from d3pm_jax.sampling import noise
from d3pm_jax.sampling.denoiser import Answer
from d3pm_jax.sampling.fields import check_returned
from d3pm_jax.sampling.places import ByMasks, Candidates, Order, RandomOrder, rank
from d3pm_jax.sampling.steps import Memory, Taken, View, count_places, in_line
from d3pm_jax.schedules.continuous import Schedule

__all__ = ["Speculative", "acceptance", "leftover_logits"]


@declared(log_p=LOG_PROBABILITY, log_q=LOG_PROBABILITY, drafted=CATEGORIES)
def acceptance(
    log_p: Float[Array, "*S K"], log_q: Float[Array, "*S K"], drafted: Int[Array, "*S"]
) -> Float[Array, "*S"]:
    """min(1, q / p) at what was drafted: how often it is accepted.

    Args:
        log_p: the law that it was drafted by, normalised.
        log_q: the law that it should have, normalised.
        drafted: categories that p has.
    """
    log_ratio = jnp.take_along_axis(log_q - log_p, drafted[..., None], axis=-1)[..., 0]
    return jnp.exp(jnp.minimum(log_ratio, 0.0))


@declared(log_p=LOG_PROBABILITY, log_q=LOG_PROBABILITY)
def leftover_logits(log_p: Float[Array, "*S K"], log_q: Float[Array, "*S K"]) -> Float[Array, "*S K"]:
    """log max(q - p, 0): what is drawn in place of a draft that was not accepted.

    Args:
        log_p: the law that it was drafted by, normalised.
        log_q: the law that it should have, normalised.

    Returns:
        Unnormalised logs. Where rounding leaves nothing, as of two laws that are nearly one, log_q.
    """
    # q - p = q (1 - p / q), where neither need fit a float.
    is_above = log_q > log_p
    log_ratio = jnp.where(is_above, log_q - log_p, 1.0)
    leftover = jnp.where(is_above, log_q + log1mexp(jnp.log(log_ratio)), -jnp.inf)
    is_empty = ~jnp.any(is_above, axis=-1, keepdims=True)
    return jnp.where(is_empty, log_q, leftover)


@dataclasses.dataclass(frozen=True)
class Speculative(ByMasks):
    """Reveals drafts as long as they are what a sampler of one place a call would draw; its law is the same.

    A row makes two calls of the network, one after the other: one input that drafts, and one input less than
    there are drafts, which checks them. A network must be one that `jax.vmap` can map over inputs of a whole
    batch.
    """

    asks_many = True

    drafts: hints.Count = 16
    """k, how many places are drafted in a row at most"""
    order: Order = RandomOrder()
    """of the places: one that does not look at the law, taken once, before the first row"""
    schedule: Schedule | None = None
    """of `schedules.continuous`: then the times are those that `FirstHitting` draws, real numbers of steps"""

    @property
    def starts_from_noise(self) -> bool:  # pyright: ignore
        return self.schedule is not None

    @property
    def tells_time(self) -> bool:  # pyright: ignore
        return self.schedule is not None

    def __post_init__(self) -> None:
        """Raises ValueError for an order that may depend on what was drafted."""
        super().__post_init__()
        if self.order.looks_at_law:
            raise ValueError(
                f"the order of drafts is drawn before them, but {self.order} looks at the law: order by "
                f"RandomOrder() or LeftToRight()"
            )

    def num_rows(self, places: int) -> int:
        # The draft or what takes its place at position 1, if there is one, is revealed besides position 0.
        return math.ceil(places / min(self.drafts, 2))

    def start(self, view: View) -> Memory:
        masked = in_line(view.is_masked(view.unknown))
        num_masked = count_places(masked)
        candidates = Candidates(
            law=None,
            drawn=jnp.full(masked.shape, -1, jnp.int32),
            masked=masked,
            places=num_masked,
            uniforms=lambda: in_line(view.noise(noise.ORDER)),
            i=jnp.asarray(0, jnp.int32),
            rows=view.rows,
        )
        score = self.order.score(candidates)
        check_returned(self.order, "score", score, jnp.floating, masked.shape)
        memory = {"score": score}
        if self.schedule is None:
            return memory
        # 1 - alpha at the time with n masks is u_N^(1/N) .. u_n^(1/n), as `next_hitting` has it.
        n = jnp.arange(1, masked.shape[-1] + 1, dtype=jnp.int32)[None]
        u = in_line(view.noise(noise.PHASE)).astype(view.process.log_prior().dtype)
        log_factors = jnp.where(n <= num_masked[:, None], jnp.log(u) / n.astype(u.dtype), 0.0)
        masked_share = jnp.exp(lax.cumsum(log_factors, axis=1, reverse=True))
        return memory | {"masked_share": masked_share}  # [B, L], of n = 1, .., L

    def tell_time(self, view: View, t: Int[Array, " B"]) -> Float[Array, " B"] | Int[Array, " B"]:
        """Returns the time, in steps, at which a sampler of one place a call asks at the x of a view, [B]."""
        if self.schedule is None:
            return view.process.time[t]
        num_masked = count_places(view.is_masked(view.unknown))
        shares = view.memory["masked_share"]
        index = jnp.maximum(num_masked - 1, 0)
        masked_share = jnp.take_along_axis(shares, index[:, None], axis=-1)[:, 0]
        return self.tell_real_time(view, self.schedule, masked_share)

    def ask(self, view: View, x: Array) -> Answer:
        """Asks the network at x, at the time that goes with its number of masks."""
        view = view._replace(x=x)
        t = self.find_step(view)
        return view.ask(x, t, self.tell_time(view, t))

    def reveal(self, view: View, masked: Array) -> Taken:
        positions = rank(view.memory["score"], in_line(masked))  # [B, L], from 0 on, of masked places first
        num_masked = count_places(masked)  # [B]
        k = min(self.drafts, positions.shape[-1])
        places = jnp.argsort(positions, axis=-1)[:, :k]  # [B, k], the next ones in their order

        def of_places(stream: int) -> Array:
            return jnp.take_along_axis(in_line(view.noise(stream)), places, axis=-1)

        answer = self.ask(view, view.x)
        log_p = answer.denoiser_at(places)  # [B, k, K]
        drafted = inverse_cdf.categorical(log_p, of_places(noise.DRAW))
        # What nothing can be drafted for is -1, which no network takes.
        categories = jnp.maximum(drafted, 0)

        def put(values: Array, which: Array) -> Array:
            """Returns x with values [B, k] at those of the places whose positions are marked."""
            at_places = jnp.take_along_axis(values, jnp.minimum(positions, k - 1), axis=-1)
            return jnp.where(which & in_line(masked), at_places, in_line(view.x)).reshape(view.x.shape)

        def check(j: Array) -> Array:
            """Returns the law of place j given the drafts before it, [B, K]."""
            x = put(categories, positions < j)
            answer = self.ask(view, x)
            return answer.denoiser_at(places[:, j][:, None])[:, 0]

        def check_all() -> Array:
            log_q = jax.vmap(check, out_axes=1)(jnp.arange(1, k, dtype=jnp.int32))  # [B, k - 1, K]
            return jnp.concatenate([log_p[:, :1], log_q], axis=1)

        # Where each example has one mask at most, nothing is left to check.
        is_checked = jnp.any(num_masked > 1) & (k > 1)
        log_q = lax.cond(is_checked, check_all, lambda: log_p)

        is_accepted = of_places(noise.ACCEPT) < acceptance(log_p, log_q, categories)
        # A draft of nothing is revealed as -1, so that the chain says that it failed.
        is_accepted |= drafted < 0
        is_in_a_row = jnp.cumprod(
            is_accepted.astype(jnp.int32), axis=-1
        )  # [B, k], 1 before the first rejected
        num_accepted = jnp.sum(is_in_a_row, axis=-1, dtype=jnp.int32)  # [B]
        instead = inverse_cdf.categorical(leftover_logits(log_p, log_q), of_places(noise.REPLACE))
        is_first_rejected = jnp.arange(k, dtype=jnp.int32)[None] == num_accepted[:, None]
        num_revealed = jnp.minimum(num_accepted + 1, k)
        x = put(jnp.where(is_first_rejected, instead, drafted), positions < num_revealed[:, None])
        num_inputs = jnp.minimum(num_masked, k)
        return Taken(x, view.memory, view.see(answer), num_inputs, 1 + is_checked.astype(jnp.int32))
