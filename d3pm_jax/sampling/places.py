"""Reveals masked places, some in each row: an order of places, and how many of it.

Places are the elements of an example in one line, [B, L]. An order gives every place a score, the largest
first and of equal ones the smaller index; a count looks at the scores in that order.
"""

import abc
import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import Annotated, Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Bool, Float, Int

from d3pm_jax.checks import (
    FROM_0,
    INDEX,
    NOISE,
    NOT_NAN,
    POSITIVE,
    ROUNDED_ENTROPY,
    ROUNDED_SHARE,
    SHARE,
    Allowed,
    NotNegative,
    Positive,
    Size,
    declared,
    hints,
    marked,
)
from d3pm_jax.checks.depth import depth, depth_within
from d3pm_jax.processes import Process
from d3pm_jax.projection import now_or_later, require_array
from d3pm_jax.sampling import drawing, laws, network, noise
from d3pm_jax.sampling.chain import Row
from d3pm_jax.sampling.denoiser import Answer
from d3pm_jax.sampling.drawing import Measures
from d3pm_jax.sampling.fields import Slot, check_returned
from d3pm_jax.sampling.steps import (
    LawStep,
    Memory,
    Step,
    Taken,
    View,
    count_places,
    in_line,
)
from d3pm_jax.schedules.continuous import Schedule

__all__ = [
    "ByMasks",
    "Candidates",
    "Cosine",
    "Count",
    "DrawnProbability",
    "EntropyBound",
    "Even",
    "Factor",
    "FirstHitting",
    "LargestProbability",
    "LeastEntropy",
    "LeftToRight",
    "Margin",
    "One",
    "Order",
    "PathPlanning",
    "RandomOrder",
    "Reveal",
    "Revealing",
    "Threshold",
    "take_first",
]


@declared(score=NOT_NAN)
def rank(score: Float[Array, "B L"], candidates: Bool[Array, "B L"]) -> Int[Array, "B L"]:
    """Returns how many candidates come before each place: those with a larger score, and equal earlier ones.

    Args:
        score: of each place.
        candidates: which places count; the others come last.
    """
    # Sorting by two keys: whether a place is a candidate, and then its score.
    by_score = jnp.argsort(-score, axis=-1, stable=True)
    is_candidate = jnp.take_along_axis(candidates, by_score, axis=-1)
    order = jnp.take_along_axis(by_score, jnp.argsort(~is_candidate, axis=-1, stable=True), axis=-1)
    return jnp.argsort(order, axis=-1, stable=True).astype(jnp.int32)


@declared(score=NOT_NAN, count=INDEX)
def take_first(
    score: Float[Array, "B L"], candidates: Bool[Array, "B L"], count: Int[Array, " B"]
) -> Bool[Array, "B L"]:
    """Tells which places are among the first `count` candidates by `rank`.

    Args:
        score: of each place.
        candidates: which places count.
        count: how many to take of each example.
    """
    # A place without a score is never taken, so that a chain of such an order fails.
    candidates = candidates & ~jnp.isnan(score)
    return candidates & (rank(score, candidates) < count[:, None])


@declared()
def cosine_counts(n: Annotated[int, hints.integers_from(0, hints.LARGEST_SIZE)], rows: Size) -> np.ndarray:
    """floor(m cos(pi i / (2 rows)) + 1e-9): how many of m masks stay after row i (MaskGIT).

    One table for every program, in float64: without the 1e-9 rounding decides where the product is a whole
    number, as in the last row, which has 0 exactly.

    Args:
        n: the most masks.
        rows: how many there are, at least 1.

    Returns:
        int [n + 1, rows + 1], by m and i.

    Raises:
        ValueError: n is below 0, rows below 1, or one of them above 2**24.
    """
    masks = np.arange(n + 1)[:, None]
    stay = np.floor(masks * np.cos(np.pi * np.arange(rows + 1) / (2 * rows)) + 1e-9)
    stay[:, rows] = 0
    return np.maximum(stay, 0).astype(np.int32)


@declared(probability=ROUNDED_SHARE, threshold=POSITIVE)
def count_above(probability: Float[Array, "B L"], threshold: float) -> Int[Array, " B"]:
    """Counts the probabilities, largest first, that reach a threshold; at least 1 (Fast-dLLM).

    Args:
        probability: in falling order; 0 behind the candidates.
        threshold: above 0; above 1 none reaches it.
    """
    return jnp.maximum(jnp.sum(probability >= threshold, axis=-1, dtype=jnp.int32), 1)


@declared(probability=ROUNDED_SHARE, factor=POSITIVE)
def count_by_factor(probability: Float[Array, "B L"], factor: float) -> Int[Array, " B"]:
    """Returns the largest n with (n + 1) (1 - p_n) < factor, p_n the n-th largest; at least 1 (Fast-dLLM).

    Args:
        probability: in falling order; 0 behind the candidates.
        factor: above 0.
    """
    n = jnp.arange(1, probability.shape[-1] + 1, dtype=jnp.int32)[None]
    below = (n + 1).astype(probability.dtype) * (1 - probability) < factor
    return jnp.max(jnp.where(below, n, 1), axis=-1, initial=1)


@declared(entropy=ROUNDED_ENTROPY, bound=FROM_0)
def count_by_entropy(entropy: Float[Array, "B L"], bound: float | Float[Array, ""]) -> Int[Array, " B"]:
    """Returns the longest prefix whose entropies, without the largest, sum to a bound at most (EB-Sampler).

    Args:
        entropy: in rising order, nats; +inf behind the candidates.
        bound: nats, at least 0; +inf, as an array, takes all.
    """
    # In rising order the largest entropy of a prefix is its last, so that the sum without it is that of all
    # before. It does not fall, so that counting the places that fit gives the prefix.
    sums = jnp.cumsum(entropy, axis=-1)
    before = jnp.concatenate([jnp.zeros_like(sums[:, :1]), sums[:, :-1]], axis=-1)
    return jnp.maximum(jnp.sum(before <= bound, axis=-1, dtype=jnp.int32), 1)


# ---- Slots ----


# An annotation of floats takes finite ones alone.
AtLeastZero = Annotated[
    Any,
    Allowed(
        "a number of at least 0, or infinity", lambda x: x == math.inf or hints.matches_hint(x, NotNegative)
    ),
]
AboveZero = Annotated[
    Any,
    Allowed("a number above 0, or infinity", lambda x: x == math.inf or hints.matches_hint(x, Positive)),
]


class Candidates(NamedTuple):
    """Holds what an order and a count may look at in a row: places in one line, and a category for each."""

    law: Any  # log_p, or the Projection of a network that makes it some places at a time
    drawn: Int[Array, "B L"]  # the category that each place takes if it is revealed
    masked: Bool[Array, "B L"]  # the places that may be revealed
    places: Int[Array, " B"]  # how many there were before the first row
    uniforms: Callable[[], Float[Array, "B L"]]  # draws noise for the order
    i: Int[Array, ""]  # the number of the row, from 1 on
    rows: int  # how many rows there are
    measured: Measures | None = None  # where they were measured before
    revealed: Any = None  # bool [B, L], the places that were revealed in rows before
    log_kept: Any = None  # `Answer.log_kept` [B, L], for a class of `Revealing.remasks`

    @property
    def log_p(self) -> Float[Array, "B L K"]:
        """Returns the denoiser, normalised. Raises ValueError where a `Projection` makes it."""
        return require_array(self.law, "Candidates.log_p")

    @property
    def measures(self) -> Measures:
        """Returns the numbers of the law of each place that need no log_p in memory."""
        if self.measured is not None:
            return self.measured
        return drawing.measure(self.log_p, self.drawn)


class Order(Slot, abc.ABC):
    """Says which masked places come first."""

    measure: str = ""
    """what its score measures, which a count may need: "probability", "entropy", or another thing"""
    looks_at_law: ClassVar[bool] = True
    """whether it reads log_p or the measures of candidates; else a `Projection` is not measured for it"""

    @abc.abstractmethod
    def score(self, candidates: Candidates) -> Float[Array, "B L"]:
        """Returns the score of each place; the largest come first."""


class Count(Slot, abc.ABC):
    """Says how many masked places are revealed."""

    looks_at_law: ClassVar[bool] = True
    """as of an `Order`, besides the scores that it is given"""

    @abc.abstractmethod
    def count(self, candidates: Candidates, score: Float[Array, "B L"]) -> Int[Array, " B"]:
        """Returns the number of places, those with the largest scores.

        A chain with places that are still masked after its last row has failed.
        """

    def num_rows(self, places: int) -> int:
        """Returns how many rows it takes to reveal so many places: one each, if a row has at least one."""
        return places

    def check(self, order: Order) -> None:
        """Raises ValueError where the scores of an order are not what it counts."""


@dataclasses.dataclass(frozen=True)
class RandomOrder(Order):
    """Reveals places in a random order."""

    looks_at_law = False

    def score(self, candidates: Candidates) -> Array:
        return candidates.uniforms()


@dataclasses.dataclass(frozen=True)
class DrawnProbability(Order):
    """Reveals first where the category that was drawn is likely: log p(drawn) + noise (MaskGIT)."""

    temperature: NotNegative = 0.0
    """of Gumbel noise, which falls to 0 over the rows: times 1 - i / N in row i of N"""

    @property
    def measure(self) -> str:  # pyright: ignore
        return "probability" if self.temperature == 0 else ""

    def score(self, candidates: Candidates) -> Array:
        log_p = candidates.measures.log_drawn
        if self.temperature == 0:
            return log_p
        gumbel = -jnp.log(-jnp.log(candidates.uniforms()))
        # JAX divides two int32 in float32, also where all else is float64.
        done = jnp.asarray(candidates.i, log_p.dtype) / candidates.rows
        cooled = self.temperature * (1 - done)
        # In the last row the noise counts nothing, whatever it is.
        return log_p + jnp.where(cooled > 0, cooled * gumbel, 0.0)


@dataclasses.dataclass(frozen=True)
class LargestProbability(Order):
    """Reveals first where the likeliest category is likeliest, whatever was drawn."""

    measure = "probability"

    def score(self, candidates: Candidates) -> Array:
        return candidates.measures.largest


@dataclasses.dataclass(frozen=True)
class LeastEntropy(Order):
    """Reveals first where the entropy of the belief is least."""

    measure = "entropy"

    def score(self, candidates: Candidates) -> Array:
        return -candidates.measures.entropy


@dataclasses.dataclass(frozen=True)
class Margin(Order):
    """Reveals first where the largest probability is furthest above the second: p_1 - p_2 + noise Gumbel.

    So Kim et al. fill in puzzles (2025, 2502.06768), with noise = 0.5 and with none.
    """

    noise: NotNegative = 0.0
    """times which Gumbel noise is added, the same in every row"""

    def score(self, candidates: Candidates) -> Array:
        measures = candidates.measures
        margin = jnp.exp(measures.largest) - jnp.exp(measures.second)
        if self.noise == 0:
            return margin
        return margin + self.noise * -jnp.log(-jnp.log(candidates.uniforms()))


@dataclasses.dataclass(frozen=True)
class LeftToRight(Order):
    """Reveals places in their order in memory."""

    looks_at_law = False

    def score(self, candidates: Candidates) -> Array:
        uniforms = candidates.uniforms()
        return jnp.broadcast_to(-jnp.arange(uniforms.shape[-1], dtype=uniforms.dtype), uniforms.shape)


@dataclasses.dataclass(frozen=True)
class One(Count):
    """Reveals one place a row."""

    looks_at_law = False

    def count(self, candidates: Candidates, score: Array) -> Array:
        return jnp.ones(len(candidates.masked), jnp.int32)


@dataclasses.dataclass(frozen=True)
class Cosine(Count):
    """Leaves floor(n cos(pi i / 2N)) of n masks after row i of N, see `cosine_counts`."""

    looks_at_law = False

    rows: hints.Count = 12
    """N, how many rows there are"""

    def num_rows(self, places: int) -> int:
        return self.rows

    def count(self, candidates: Candidates, score: Array) -> Array:
        table = jnp.asarray(cosine_counts(candidates.masked.shape[-1], self.rows))
        stay = table[candidates.places, candidates.i]
        return jnp.maximum(jnp.sum(candidates.masked, axis=-1, dtype=jnp.int32) - stay, 0)


@dataclasses.dataclass(frozen=True)
class Even(Count):
    """Reveals floor(n / N) of n masks in each of N rows, and in the first n mod N one more (LLaDA)."""

    looks_at_law = False

    rows: hints.Count = 128
    """N, how many rows there are"""

    def num_rows(self, places: int) -> int:
        return self.rows

    def count(self, candidates: Candidates, score: Array) -> Array:
        is_longer = candidates.i <= candidates.places % self.rows
        return candidates.places // self.rows + is_longer.astype(jnp.int32)


class _CountOfProbabilities(Count):
    """Looks at probabilities in falling order, without noise."""

    looks_at_law = False

    def check(self, order: Order) -> None:
        if order.measure != "probability":
            raise ValueError(
                f"{type(self).__name__} counts probabilities, but the order is {order}: order by "
                f"DrawnProbability() or LargestProbability()"
            )

    def probabilities(self, candidates: Candidates, score: Array) -> Array:
        """Returns them in falling order, 0 behind the candidates, [B, L]."""
        return -jnp.sort(-jnp.where(candidates.masked, jnp.exp(score), 0.0), axis=-1)


@dataclasses.dataclass(frozen=True)
class Threshold(_CountOfProbabilities):
    """Reveals where the probability reaches a threshold, and at least one place."""

    threshold: AboveZero = 0.9
    """above 1 it is one place a row"""

    def count(self, candidates: Candidates, score: Array) -> Array:
        return count_above(self.probabilities(candidates, score), self.threshold)


@dataclasses.dataclass(frozen=True)
class Factor(_CountOfProbabilities):
    """Reveals the largest n places with (n + 1) (1 - p_n) < factor, and at least one."""

    factor: AboveZero = 1.0

    def count(self, candidates: Candidates, score: Array) -> Array:
        return count_by_factor(self.probabilities(candidates, score), self.factor)


@dataclasses.dataclass(frozen=True)
class EntropyBound(Count):
    """Reveals the longest prefix whose entropies, without the largest, sum to at most a bound."""

    bound: AtLeastZero = 0.1
    """nats; 0 is one place a row and those of no entropy, infinity is all"""
    looks_at_law = False

    def check(self, order: Order) -> None:
        if order.measure != "entropy":
            raise ValueError(
                f"EntropyBound counts entropies, but the order is {order}: order by LeastEntropy()"
            )

    def count(self, candidates: Candidates, score: Array) -> Array:
        entropy = jnp.sort(jnp.where(candidates.masked, -score, jnp.inf), axis=-1)
        # As an array it may be infinite.
        return count_by_entropy(entropy, jnp.asarray(self.bound, entropy.dtype))


class ByMasks(Step):
    """Reveals masked places in each row, and goes by which they are: its rows are all from T to 0.

    An example without masks in the row calls no network.
    """

    needs_extra_mask = True
    goes_by_masks = True

    @abc.abstractmethod
    def num_rows(self, places: int) -> int:
        """Returns how many rows it takes to reveal so many places."""

    @abc.abstractmethod
    def reveal(self, view: View, masked: Bool[Array, " B *S"]) -> Taken:
        """Takes a row in which an example has masks, with the calls of each example and of the program.

        Args:
            view: of the row.
            masked: the places that it may reveal.
        """

    def check(self, process: Process) -> None:
        laws.require_absorbing(process, "revealing places")

    def law_step(self, guided: type[network.Guided]) -> LawStep:
        raise ValueError(f"guidance changes the law of x_s, and revealed places take x_0: {guided.cure}")

    def plan(self, process: Process, places: int) -> tuple[Row, ...]:
        rows = hints.check_value(f"{type(self).__name__}.num_rows", self.num_rows(places), Size)
        return tuple(Row(rows - i, process.T, 0) for i in range(rows))

    def find_step(self, view: View) -> Int[Array, " B"]:
        """Returns the smallest step whose 1 - alpha is at least the share of masks in x."""
        return _smallest_step(view.process, _share_of_masks(view))

    def tell_real_time(self, view: View, schedule: Schedule, masked_share: Array) -> Float[Array, " B"]:
        """Returns the time, in steps, at which 1 - alpha of a schedule is a share."""
        # A schedule of the user's own is checked as if it were called from outside.
        with depth(depth_within(schedule)):
            time = time_of(schedule, masked_share)
        return time * view.process.time[-1].astype(time.dtype)

    def draw(self, view: View) -> Taken:
        masked = view.is_masked(view.may_change)
        no_calls = jnp.zeros(len(masked), jnp.int32)

        def rest() -> Taken:
            return Taken(view.x, view.memory, view.see(None), no_calls, jnp.asarray(0, jnp.int32))

        return lax.cond(jnp.any(masked), lambda: self.reveal(view, masked), rest)

    def count_calls(self, plan: Sequence[Row]) -> None:
        return None


class Revealing(ByMasks):
    """Reveals some of the masked places of a row with x_0 of the denoiser; the others stay masked.

    A place that was revealed stays as it is, unless a class of `remasks` masks it again.
    """

    looks_at_law: ClassVar[bool] = True
    """as of an `Order`: whether it chooses by log_p or the measures of candidates"""
    remasks: ClassVar[bool] = False
    """whether it masks places again, see `choose_remasked`"""

    @abc.abstractmethod
    def choose(self, candidates: Candidates) -> Bool[Array, "B L"]:
        """Tells which places are revealed; after the last row none may be left."""

    def choose_remasked(self, candidates: Candidates) -> Bool[Array, "B L"]:
        """Tells which of the places that rows before revealed are masked again, of a class of `remasks`."""
        raise NotImplementedError(f"{type(self).__name__} has no choose_remasked: define it")

    def start(self, view: View) -> Memory:
        return {"masked_at_start": view.is_masked(view.unknown)}

    def tell_time(
        self, view: View, t: Int[Array, " B"], is_active: Bool[Array, " B"]
    ) -> tuple[Array, Memory]:
        """Returns the time at which the network is called, in steps, [B], and what is remembered.

        Args:
            view: of the row.
            t: the smallest step that has so many masks.
            is_active: whether an example has masks to reveal in this row.
        """
        return view.process.time[t], view.memory

    def reveal(self, view: View, masked: Array) -> Taken:
        x = view.x
        is_active = jnp.any(in_line(masked), axis=-1)  # [B]
        t = self.find_step(view)
        time, memory = self.tell_time(view, t, is_active)
        answer = view.ask(x, t, time)

        def draw(answer: Answer, u: Array) -> tuple[Array, Measures | None, Array | None]:
            return drawing.draw_x0(answer, u, self.looks_at_law, self.remasks)

        drawn, measured, log_kept = answer.by_rows(draw, view.noise(noise.DRAW))
        shape = (*in_line(x).shape, view.process.K)

        masked_at_start = view.memory["masked_at_start"]
        if view.may_change is not None:
            masked_at_start &= view.may_change
        candidates = Candidates(
            law=now_or_later(answer.said, lambda: answer.log_denoiser.reshape(shape), lambda: answer.said),
            drawn=in_line(drawn),
            masked=in_line(masked),
            places=count_places(masked_at_start),
            uniforms=lambda: in_line(view.noise(noise.ORDER)),
            i=view.rows - (view.row.number - 1) % view.rows,
            rows=view.rows,
            measured=jax.tree.map(in_line, measured),
            revealed=in_line(masked_at_start & ~masked),
            log_kept=jax.tree.map(in_line, log_kept),
        )
        # A place that nothing can be drawn for is revealed at once, as -1, so that the chain says that it
        # failed.
        chosen = self.choose(candidates)
        check_returned(self, "choose", chosen, jnp.bool_, candidates.masked.shape)
        is_revealed = masked & (chosen.reshape(x.shape) | (drawn < 0))
        x = jnp.where(is_revealed, drawn, x)
        if self.remasks:
            remasked = self.choose_remasked(candidates)
            check_returned(self, "choose_remasked", remasked, jnp.bool_, candidates.masked.shape)
            is_remasked = (remasked & candidates.revealed).reshape(x.shape)
            mask = laws.mask_of(view.process)
            assert mask is not None, "`check` refuses processes without one"
            x = jnp.where(is_remasked, mask, x)
        # So is one that is masked after the last row: a rule of the user's own took too few.
        is_late = view._replace(x=x).is_masked(view.may_change) & (candidates.i == candidates.rows)
        x = jnp.where(is_late, -1, x)
        return Taken(x, memory, view.see(answer), is_active.astype(jnp.int32), jnp.asarray(1, jnp.int32))


@dataclasses.dataclass(frozen=True)
class Reveal(Revealing):
    """Reveals the masked places that are first in an order, so many as a count says."""

    order: Order = RandomOrder()
    count: Count = One()

    @property
    def looks_at_law(self) -> bool:  # pyright: ignore
        return self.order.looks_at_law or self.count.looks_at_law

    def __post_init__(self) -> None:
        """Raises ValueError for a count that needs another order."""
        super().__post_init__()
        self.count.check(self.order)

    def num_rows(self, places: int) -> int:
        return self.count.num_rows(places)

    def choose(self, candidates: Candidates) -> Array:
        shape = candidates.masked.shape
        score = self.order.score(candidates)
        check_returned(self.order, "score", score, jnp.floating, shape)
        count = self.count.count(candidates, score)
        check_returned(self.count, "count", count, jnp.integer, shape[:1])
        return take_first(score, candidates.masked, count)


@dataclasses.dataclass(frozen=True)
class FirstHitting(Revealing):
    """Reveals a random place a row, at a time drawn for it: 1 - alpha falls to (1 - alpha) u^(1/n).

    n is how many masks are left (Zheng et al. 2024, 2409.02908). A network that sees no time needs no times:
    for it this is a random order.
    """

    schedule: Schedule | None = None
    """of `schedules.continuous`, for a network that sees them: it is called with real numbers of steps"""
    starts_from_noise = True
    looks_at_law = False

    @property
    def tells_time(self) -> bool:  # pyright: ignore
        return self.schedule is not None

    def with_schedule(self, schedule: Callable[[], Schedule]) -> "FirstHitting":
        if self.schedule is not None:
            return self
        return dataclasses.replace(self, schedule=schedule())

    def num_rows(self, places: int) -> int:
        return places

    def choose(self, candidates: Candidates) -> Array:
        return Reveal(RandomOrder(), One()).choose(candidates)

    def start(self, view: View) -> Memory:
        masked_share = jnp.ones(view.x.shape[:1], view.process.log_prior().dtype)
        return super().start(view) | {"masked_share": masked_share}

    def tell_time(self, view: View, t: Array, is_active: Array) -> tuple[Array, Memory]:
        # An example has one time: the noise of its first place serves, and that of the others is left.
        u = in_line(view.noise(noise.PHASE))[:, 0]
        left = count_places(view.is_masked(view.unknown))
        before = view.memory["masked_share"]
        after = next_hitting(before, left, u.astype(before.dtype))
        # The time of an example that is done with its block stands still, whoever is drawn beside it.
        masked_share = jnp.where(is_active, after, before)
        time = view.process.time[t]
        if self.schedule is not None:
            time = self.tell_real_time(view, self.schedule, masked_share)
        return time, view.memory | {"masked_share": masked_share}


@dataclasses.dataclass(frozen=True)
class PathPlanning(Revealing):
    """Leaves floor(n (N - i) / N) of n masks after row i of N, and may mask places again.

    A masked place has the score log p(drawn), one that was revealed eta log p(what stands there), both of the
    network's prediction (P2 of Peng et al., 2025, 2502.03540, planned by the network itself). What stands
    there is judged as if the place were masked, by what the network says of it before any shaping: a network
    that was trained on masked places alone was not trained for that. The published program draws a category
    at revealed places too and judges that one, and keeps the old one all the same.
    """

    rows: hints.Count = 128
    """N, how many rows there are"""
    eta: NotNegative = 1.0
    """how easily a place is masked again; 0 is never"""
    remasks = True

    def num_rows(self, places: int) -> int:
        return self.rows

    def choose(self, candidates: Candidates) -> Array:
        return candidates.masked & self._choose_clean(candidates)

    def choose_remasked(self, candidates: Candidates) -> Array:
        return candidates.revealed & ~self._choose_clean(candidates)

    def _choose_clean(self, candidates: Candidates) -> Array:
        """Tells which places have a category after the row, of those that had none before the first."""
        log_kept = jnp.zeros_like(candidates.log_kept)
        if self.eta > 0:  # what is impossible times 0 would be no number
            log_kept = self.eta * candidates.log_kept
        score = jnp.where(candidates.masked, candidates.measures.log_drawn, log_kept)
        masked_after = candidates.places * (self.rows - candidates.i) // self.rows
        return take_first(score, candidates.masked | candidates.revealed, candidates.places - masked_after)


def _share_of_masks(view: View) -> Float[Array, " B"]:
    """Returns the share of masks among the unknown places of each example, [B]."""
    masked = count_places(view.is_masked(view.unknown))
    total = jnp.asarray(math.prod(view.x.shape[1:]), jnp.int32)
    if view.unknown is not None:
        total = count_places(view.unknown)
    dtype = view.process.log_prior().dtype
    return masked.astype(dtype) / jnp.maximum(total, 1).astype(dtype)


def _smallest_step(process: Process, share: Float[Array, " B"]) -> Int[Array, " B"]:
    """Returns the smallest t whose 1 - alpha_t is at least a share of masks; T where none is."""
    process = laws.require_absorbing(process, "revealing places")
    mixed = jnp.exp(process.log_beta_bar)  # [T + 1]
    # Many a schedule has levels that are shares, such as t / T: rounding must not decide whether they count.
    rounding = max(8 * float(jnp.finfo(mixed.dtype).eps), 1e-12)
    # It rises with t, so that counting the steps below the share gives the first that is not.
    below = jnp.sum(mixed[None] < share[:, None] * (1 - rounding), axis=-1, dtype=jnp.int32)
    return jnp.clip(below, 1, process.T)


@declared(masked_share=SHARE, left=INDEX, u=NOISE)
def next_hitting(
    masked_share: Float[Array, " B"], left: Int[Array, " B"], u: Float[Array, " B"]
) -> Float[Array, " B"]:
    """Returns 1 - alpha at the next time that one of `left` masks is revealed: (1 - alpha) u^(1 / left)."""
    # JAX would divide int32 in float32, also where all else is float64.
    left = jnp.maximum(left, 1).astype(masked_share.dtype)
    return masked_share * u ** (1 / left)


@declared(schedule=SHARE, masked_share=SHARE)
def time_of(schedule: Schedule, masked_share: Float[Array, " B"]) -> Float[Array, " B"]:
    """Returns the time at which 1 - alpha is this share, by bisection: alpha falls with time."""

    @marked
    def halve(_: Array | int, ends: tuple[Array, Array]) -> tuple[Float[Array, " B"], Float[Array, " B"]]:
        low, high = ends
        middle = (low + high) / 2
        is_before = schedule(middle).beta < masked_share
        return jnp.where(is_before, middle, low), jnp.where(is_before, high, middle)

    rounds = jnp.finfo(masked_share.dtype).nmant + 2
    _, high = lax.fori_loop(0, rounds, halve, (jnp.zeros_like(masked_share), jnp.ones_like(masked_share)))
    return high
