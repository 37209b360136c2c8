"""Computes the law that each sampler draws from, by sums over all states of a few places.

A state is x of all places; a law of states is a row of as many probabilities. The laws of a single place and
the choices of places are those of `d3pm_jax.sampling`, so that what is summed is what a chain draws from.
"""

import dataclasses
import itertools
from collections.abc import Callable, Iterator
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from d3pm_jax.enumeration import list_examples
from d3pm_jax.processes.base import Process
from d3pm_jax.processes.mixing import Mixing
from d3pm_jax.sampling import Answer, LawStep, Network, Row, Sampler, View, laws, make_plan, places
from d3pm_jax.sampling.correctors import Corrected, Corrector, Gibbs, RateCorrector
from d3pm_jax.sampling.fields import Slot
from d3pm_jax.sampling.places import (
    ByMasks,
    Candidates,
    DrawnProbability,
    FirstHitting,
    Margin,
    Order,
    PathPlanning,
    RandomOrder,
    Reveal,
    Revealing,
)
from d3pm_jax.sampling.speculative import Speculative, acceptance, leftover_logits
from d3pm_jax.sampling.transitions import Bayes, Leap, LeastConfident, Remask, Stratified

NO_MASK = -1
TOO_MANY = 400_000  # states with what they remember


class Enumerated(NamedTuple):
    """Holds the law of what a sampler draws, and what it costs."""

    law: np.ndarray  # [K^L], of x_0 without the mask, float64
    calls: float  # inputs of the network, expected of one example alone


# (states [N, L], t, s, memory) -> [N, ..]
Call = Callable[..., np.ndarray]
# Of what a step sees of a row, and what the network said.
OfRow = Callable[[View, Answer], jnp.ndarray]


class TooMany(Exception):
    """Says that states and what they remember are too many to enumerate."""


class World:
    """Knows a process, a network, and all states of examples of some places."""

    def __init__(self, process: Process, length: int, network: Network, sampler: Sampler = Sampler()):
        self.process = process
        self.length = length
        self.sampler = sampler
        self._network = jax.jit(network)
        mask = laws.mask_of(process)
        self.mask = NO_MASK if mask is None else int(mask)
        self.is_absorbing = mask is not None and isinstance(process, Mixing)
        self.categories = process.K if mask is None else process.K - 1  # of x_0
        self.states = list_examples((length,), process.K)  # [S, L]
        self.place_values = process.K ** np.arange(length - 1, -1, -1)

    def number(self, x: np.ndarray) -> np.ndarray:
        """Returns the number of each state, [N]."""
        return x @ self.place_values

    def logits(self, x: np.ndarray, t: np.ndarray) -> np.ndarray:
        """Returns leave-one-out logits of x_0 at x_t, [N, L, K]; all -inf where x_t cannot be."""
        return np.asarray(self._network(jnp.asarray(x, jnp.int32), self.process.time[t]))

    def answer(self, logits: Array, x: Array, t: Array) -> Answer:
        """Returns logits of the network at x_t as a step sees them: shaped as the sampler says."""
        return self.sampler.shape(Answer(self.process, logits, "leave_one_out", x, t, logits))

    def compile(self, function: OfRow) -> Call:
        """Compiles a function of what a step sees: (states [N, L], t, s, memory) -> [N, ..]."""

        @jax.jit
        def run(logits: Array, x: Array, t: Array, s: Array, memory: dict[str, Array]) -> Array:
            answer = self.answer(logits, x, t)
            return function(_make_view(self.process, answer, s, memory), answer)

        def call(x: np.ndarray, t: int, s: int, memory: dict[str, np.ndarray] | None = None) -> np.ndarray:
            # It is compiled anew for each number of states: there are few numbers.
            size = 4 ** int(np.ceil(np.log(len(x)) / np.log(4)))
            padding = ((0, size - len(x)), (0, 0))
            x_padded = np.pad(x, padding, mode="edge")
            steps = np.full(size, t, np.int32)
            padded = {name: np.pad(value, padding, mode="edge") for name, value in (memory or {}).items()}
            result = run(
                self.logits(x_padded, steps),
                x_padded.astype(np.int32),
                steps,
                np.full(size, s, np.int32),
                padded,
            )
            return np.asarray(result)[: len(x)]

        return call

    def prior(self) -> np.ndarray:
        """Returns the law [S] that the chain starts from."""
        of_place = np.exp(np.asarray(self.process.log_prior(), np.float64))
        return np.prod(of_place[self.states], axis=-1)

    def of_data(self, law: np.ndarray) -> np.ndarray:
        """Returns the part [K^L] of a law of states that has no mask."""
        by_place = law.reshape((self.process.K,) * self.length)
        return by_place[(slice(0, self.categories),) * self.length].ravel()


def enumerate_sampler(sampler: Sampler, process: Process, length: int, network: Network) -> Enumerated:
    """Returns the law of x_0 that a sampler draws from, of examples of so many places.

    Args:
        sampler: of the steps, orders, counts and correctors of this library, with any shaping.
        process: the forward process; where it has a mask, that is its last category, which x_0 never is.
        length: L, the number of places; all K^L states are visited.
        network: (x_t, process.time[t]) -> leave-one-out logits of x_0, exact or not.

    Raises:
        ValueError: the sampler is not for the process, or has what is not enumerated: passes, blocks of
            another step than one that remembers nothing, or a step or a part of one's own.
        TooMany: it remembers too much.
    """
    _check_enumerable(sampler)
    plan = make_plan(sampler, process, (length,))
    world = World(process, length, network, sampler)
    step = sampler.step
    if isinstance(step, Revealing):
        return _enumerate_revealing(world, step)
    if isinstance(step, Speculative):
        return _enumerate_speculative(world, step)
    if isinstance(step, Stratified):
        law = _enumerate_stratified(world)
        return Enumerated(law, process.T)
    if isinstance(step, Remask) and isinstance(step.schedule, LeastConfident):
        return Enumerated(_enumerate_confidence(world, step, plan), len(plan))
    corrector = None
    if isinstance(step, Corrected):
        corrector = step.corrector
        step = step.between
    assert isinstance(step, LawStep)
    law = world.prior()
    calls = 0
    of_row = world.compile(step.law)
    of_move = None if corrector is None else world.compile(_move_law(corrector, step))
    for row in plan:
        law = _push(world, law, lambda x, row=row: _row_laws(world, sampler, of_row, row, x))
        calls += 1
        if corrector is not None and of_move is not None and row.s > 0:
            for _ in range(corrector.moves):
                law = _correct(world, corrector, of_move, row.s, law)
                calls += 1
    return Enumerated(world.of_data(law), calls)


def _check_enumerable(sampler: Sampler) -> None:
    """Raises ValueError for a sampler whose law is not computed here."""
    slots = list(_list_slots(sampler))
    for slot in slots:
        if not type(slot).__module__.startswith("d3pm_jax."):
            raise ValueError(
                f"{type(slot).__name__} cannot be enumerated: only steps, orders and other parts of this "
                f"library can, so judge it against a law that is known"
            )
    if sampler.passes > 1:
        raise ValueError(f"passes = {sampler.passes} cannot be enumerated: leave them out")
    remembers = any(isinstance(slot, Stratified | LeastConfident) for slot in slots)
    step = sampler.step
    if sampler.block is not None and (remembers or not isinstance(step, LawStep)):
        raise ValueError(
            f"block = {sampler.block}: blocks of {type(step).__name__} cannot be enumerated, leave it out"
        )
    if isinstance(step, Corrected) and remembers:
        raise ValueError(f"a corrector between rows of {step.between} cannot be enumerated: leave it out")
    if isinstance(step, Speculative) and step.schedule is not None:
        raise ValueError("drafts at real numbers of steps cannot be enumerated: leave out schedule")


def _list_slots(slot: Slot) -> Iterator[Slot]:
    """Yields a slot of a sampler and all that it is made of."""
    yield slot
    for value in vars(slot).values():
        if isinstance(value, Slot):
            yield from _list_slots(value)


def _make_view(process: Process, answer: Answer, s: Array, memory: dict[str, Array]) -> View:
    """Returns what a step sees of a row that may change all places; its law uses no noise."""
    return View(
        process=process,
        x=answer.x,
        t=answer.t,
        s=s,
        row=Row(1, answer.t[0], s[0]),
        rows=1,
        memory=memory,
        noise=lambda stream: jnp.zeros(answer.x.shape),
        ask_each=lambda x, t, time=None: [answer],
        see=lambda answer: None,
        hold=lambda drawn: drawn,
        may_change=None,
        unknown=None,
    )


# ---- Steps that remember nothing ----


def _row_laws(world: World, sampler: Sampler, of_row: Call, row: Row, x: np.ndarray) -> np.ndarray:
    """Returns the law of each place after a row, [N, L, K]."""
    p = np.exp(of_row(x, row.t, row.s))
    if sampler.block is None:
        return p
    in_block = np.arange(world.length) // sampler.block == row.block
    return np.where(in_block[:, None], p, np.eye(world.process.K)[x])


def _push(world: World, law: np.ndarray, place_laws: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
    """Returns the law [S] of states after a step whose places move each on its own, given x."""
    possible = law > 0
    return _spread(law[possible], place_laws(world.states[possible]))


def _spread(p: np.ndarray, place_laws: np.ndarray) -> np.ndarray:
    """Returns the law [S] of states that follow on N of probabilities p, each place by its law [N, L, K]."""
    length, K = place_laws.shape[1:]
    law = np.zeros(K**length)
    for block in np.array_split(np.arange(len(p)), 1 + len(p) // 100_000):
        after = p[block][:, None]
        for place in range(length):
            after = (after[:, :, None] * place_laws[block, place, None, :]).reshape(len(block), -1)
        law += after.sum(axis=0)
    return law


def _move_law(corrector: Corrector, step: LawStep) -> OfRow:
    """Returns the function that gives the law of each place in a move."""

    def leap(view: View, answer: Answer) -> jnp.ndarray:
        assert isinstance(corrector, RateCorrector)
        assert isinstance(step, Leap)
        rates = laws.corrector_log_rates(view.process, answer.logits, view.x, view.t, corrector.h)
        return step.leap(rates, view.x)

    def move(view: View, answer: Answer) -> jnp.ndarray:
        return laws.gibbs_logits(view.process, answer.logits, view.x, view.t)

    return leap if isinstance(corrector, RateCorrector) else move


def _correct(world: World, corrector: Corrector, of_move: Call, s: int, law: np.ndarray) -> np.ndarray:
    """Returns the law [S] after one move of a corrector at s."""
    if isinstance(corrector, RateCorrector):
        return _push(world, law, lambda x: np.exp(of_move(x, s, s)))
    assert isinstance(corrector, Gibbs)
    possible = law > 0
    after = np.zeros_like(law)
    for place in range(world.length):
        x = world.states[possible].copy()
        if world.mask != NO_MASK:
            x[:, place] = world.mask
        p = np.exp(of_move(x, s, s))[:, place]
        for category in range(world.process.K):
            x[:, place] = category
            np.add.at(after, world.number(x), law[possible] * p[:, category] / world.length)
    return after


# ---- Confidence: a place remembers the probability that it was unmasked with ----


def _enumerate_confidence(world: World, step: Remask, plan: tuple[Row, ...]) -> np.ndarray:
    mask = world.mask
    of_row = world.compile(step.law)
    of_denoiser = world.compile(lambda view, answer: answer.log_denoiser)
    x = np.full((1, world.length), mask)
    confidence = np.zeros((1, world.length))
    p = np.ones(1)
    for row in plan[:-1]:
        memory = {"confidence": confidence}
        place_laws = np.exp(of_row(x, row.t, row.s, memory))  # [N, L, K]
        denoiser = np.exp(of_denoiser(x, row.t, row.s))
        parent, after, chance = _children(place_laws, p)
        seen = np.take_along_axis(denoiser[parent], after[..., None], axis=-1)[..., 0]
        confidence = np.where(x[parent] == mask, seen, confidence[parent])
        # What a masked place remembers counts nothing.
        confidence = np.where(after == mask, 0.0, confidence)
        x, confidence, p = _merge(after, confidence, chance)
    last = plan[-1]
    place_laws = np.exp(of_row(x, last.t, last.s, {"confidence": confidence}))
    return world.of_data(_spread(p, place_laws))


def _children(place_laws: np.ndarray, p: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns the parents, the states and the probabilities of all that may follow, place by place."""
    length, K = place_laws.shape[1:]
    parent = np.arange(len(p))
    after = np.zeros((len(p), 0), np.int64)
    for place in range(length):
        chance = p[:, None] * place_laws[parent, place]  # [N, K]
        which, category = np.nonzero(chance > 0)
        p = chance[which, category]
        parent = parent[which]
        after = np.concatenate([after[which], category[:, None]], axis=1)
        if len(p) > 30 * TOO_MANY:
            raise TooMany(f"more than {30 * TOO_MANY} states may follow: take fewer steps")
    assert after.max() < K
    return parent, after, p


def _merge(x: np.ndarray, memory: np.ndarray, p: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Adds up the probabilities of equal states that remember the same."""
    key = np.concatenate([x, np.round(memory, 13)], axis=1)
    code = np.zeros(len(x), np.int64)
    for column in key.T:
        _, value = np.unique(column, return_inverse=True)
        _, code = np.unique(code * (value.max() + 1) + value, return_inverse=True)
    _, first = np.unique(code, return_index=True)
    if len(first) > TOO_MANY:
        raise TooMany(f"{len(first)} states with what they remember: take fewer steps")
    return x[first], memory[first], np.bincount(code, weights=p)


# ---- Stratified: given its path a place's clock is uniform on an interval ----


def _enumerate_stratified(world: World) -> np.ndarray:
    """Returns the law of x_0 where a place moves when its clock passes a whole number."""
    process = world.process

    def leaving_probability(view: View, answer: Answer) -> jnp.ndarray:
        return laws.leaving_probability(Bayes().law(view, answer), view.x)

    def leaving_logits(view: View, answer: Answer) -> jnp.ndarray:
        return laws.leaving_logits(Bayes().law(view, answer), view.x)

    of_probability = world.compile(leaving_probability)
    of_logits = world.compile(leaving_logits)
    start = world.prior()
    x = world.states[start > 0]
    p = start[start > 0]
    low = np.zeros(x.shape)
    high = np.ones(x.shape)
    t = process.T
    while True:
        hazard = of_probability(x, t, t - 1)  # [N, L]
        where_to = np.nan_to_num(np.exp(of_logits(x, t, t - 1)))

        # A clock in [low, high) passes 1 from 1 - hazard on.
        turn = np.clip(1 - hazard, low, high)
        leaves = (high - turn) / (high - low)
        stays = np.eye(process.K)[x]  # [N, L, K]
        place_laws = (1 - leaves)[..., None] * stays + leaves[..., None] * where_to
        if t == 1:
            return world.of_data(_spread(p, place_laws))
        parent, after, p = _children(place_laws, p)
        has_left = after != x[parent]
        turn, hazard, low, high = turn[parent], hazard[parent], low[parent], high[parent]
        low, high = (
            np.where(has_left, turn + hazard - 1, low + hazard),
            np.where(has_left, high + hazard - 1, turn + hazard),
        )
        x = after
        if world.is_absorbing:
            unmasked = x != world.mask
            low = np.where(unmasked, 0.0, low)
            high = np.where(unmasked, 1.0, high)
        x, clocks, p = _merge(x, np.concatenate([low, high], axis=1), p)
        low, high = np.split(clocks, 2, axis=1)
        t -= 1


# ---- Revealing ----


def _enumerate_revealing(world: World, reveal: Revealing) -> Enumerated:
    if isinstance(reveal, FirstHitting):
        # Its times are real numbers: this is its law for a network that takes no notice of them.
        reveal = Reveal(RandomOrder())
    assert isinstance(reveal, Reveal | PathPlanning)
    rows = reveal.num_rows(world.length)
    has_masks = (world.states == world.mask).any(axis=1)
    law = world.prior()
    calls = 0.0
    for i in range(1, rows + 1):
        calls += law[has_masks].sum()
        law = _reveal(world, reveal, i, rows, law)
    return Enumerated(world.of_data(law), float(calls))


def _ask_at_masks(world: World, step: ByMasks) -> Answer:
    """Asks the network at all states, each at the step that goes with its number of masks."""
    x = jnp.asarray(world.states, jnp.int32)
    unused = jnp.zeros(len(x), jnp.int32)
    view = _make_view(
        world.process, Answer(world.process, None, "leave_one_out", x, unused, None), unused, {}
    )
    t = step.find_step(view)
    logits = jnp.asarray(world.logits(world.states, np.asarray(t)))
    return world.answer(logits, x, t)


def _reveal(world: World, reveal: Reveal | PathPlanning, i: int, rows: int, law: np.ndarray) -> np.ndarray:
    """Returns the law [S] after row i of revealing."""
    x = world.states
    masked = x == world.mask
    answer = _ask_at_masks(world, reveal)
    log_p = np.asarray(answer.log_denoiser)  # [N, L, K]
    log_kept = np.asarray(answer.log_kept)  # [N, L]

    # All that may be drawn at masked places; at the others, where it counts nothing, x itself.
    drawn_laws = np.where(masked[..., None], np.exp(log_p), np.eye(world.process.K)[x])
    parent, drawn, p = _children(drawn_laws, np.ones(len(x)))
    p = p * law[parent]
    candidates = Candidates(
        law=jnp.asarray(log_p[parent]),
        drawn=jnp.asarray(drawn, jnp.int32),
        masked=jnp.asarray(masked[parent]),
        places=jnp.full(len(drawn), world.length, jnp.int32),
        uniforms=lambda: jnp.zeros(drawn.shape),
        i=jnp.asarray(i),
        rows=rows,
        revealed=jnp.asarray(~masked[parent]),
        log_kept=jnp.asarray(log_kept[parent]),
    )
    after = np.zeros_like(law)
    if isinstance(reveal, PathPlanning):
        is_revealed = np.asarray(reveal.choose(candidates))
        is_remasked = np.asarray(reveal.choose_remasked(candidates))
        x_after = np.where(is_revealed, drawn, np.where(is_remasked, world.mask, x[parent]))
        np.add.at(after, world.number(x_after), p)
        return after
    for score, weight in _list_scores(reveal.order, candidates):
        count = reveal.count.count(candidates, score)
        is_revealed = np.asarray(places.take_first(score, candidates.masked, count))
        np.add.at(after, world.number(np.where(is_revealed, drawn, x[parent])), p * weight)
    return after


def _list_scores(order: Order, candidates: Candidates) -> Iterator[tuple[Array, np.ndarray]]:
    """Yields scores of places [M, L] for each order that noise may give, with its probability [M].

    Sorting by score + c Gumbel draws an order by Plackett and Luce: each place next with a probability in
    proportion to exp(score / c), of those that are left.
    """
    noise = 0.0
    if isinstance(order, RandomOrder):
        noise = np.inf
    elif isinstance(order, DrawnProbability):
        noise = order.temperature * (1 - int(candidates.i) / candidates.rows)
        order = dataclasses.replace(order, temperature=0.0)
    elif isinstance(order, Margin):
        noise = order.noise
        order = dataclasses.replace(order, noise=0.0)
    score = order.score(candidates)
    masked = np.asarray(candidates.masked)
    length = masked.shape[1]
    if noise == 0:
        yield score, np.ones(len(masked))
        return
    with np.errstate(invalid="ignore"):
        log_weight = np.where(masked, np.asarray(score) / noise, -np.inf)
        weight = np.where(masked, np.exp(log_weight - log_weight.max(axis=1, keepdims=True)), 0.0)
    weight = np.where(masked.any(axis=1, keepdims=True), weight, 1.0)
    for permutation in itertools.permutations(range(length)):
        probability = np.ones(len(masked))
        for position, place in enumerate(permutation):
            left = list(permutation[position:])
            total = weight[:, left].sum(axis=1)
            # Places that are not masked come last, from left to right: there is one way.
            if_none = float(place == min(left))
            share = weight[:, place] / np.where(total > 0, total, 1.0)
            probability = probability * np.where(total > 0, share, if_none)
        score = np.broadcast_to(length - np.argsort(permutation)[None], masked.shape)
        yield jnp.asarray(score, float), probability


# ---- Drafts: what is accepted, and what stands for the first that is not ----


def _enumerate_speculative(world: World, step: Speculative) -> Enumerated:
    num_masks = (world.states == world.mask).sum(axis=1)
    log_laws = np.asarray(_ask_at_masks(world, step).log_denoiser)  # [S, L, K]
    orders = [range(world.length)]
    if isinstance(step.order, RandomOrder):
        orders = list(itertools.permutations(range(world.length)))
    total = np.zeros(len(world.states))
    calls = 0.0
    for order in orders:
        law = world.prior()
        for _ in range(world.length):
            calls += law @ np.minimum(num_masks, step.drafts)
            law = _check_drafts(world, step, np.array(order), log_laws, law)
        total += law
    return Enumerated(world.of_data(total / len(orders)), float(calls) / len(orders))


def _check_drafts(
    world: World, step: Speculative, order: np.ndarray, log_laws: np.ndarray, law: np.ndarray
) -> np.ndarray:
    """Returns the law [S] after a row of drafts, for one order of the places."""
    after = np.zeros_like(law)
    start = world.states[law > 0]  # [N, L], what the drafts are made of
    x = start  # with those that were accepted
    chance = law[law > 0]
    for j in range(step.drafts):
        masked = (start == world.mask)[:, order]
        is_drafted = masked.sum(axis=1) > j
        np.add.at(after, world.number(x[~is_drafted]), chance[~is_drafted])
        start, x, chance, masked = (array[is_drafted] for array in (start, x, chance, masked))
        if len(start) == 0:
            break
        place = order[np.argmax(masked.cumsum(axis=1) == j + 1, axis=1)]  # [N]
        log_p = log_laws[world.number(start), place]  # [N, K]
        log_q = log_laws[world.number(x), place]

        p = np.exp(log_p)
        share, leftover = _check_each(log_p, log_q)
        accepted = np.where(p > 0, p * share, 0.0)  # [N, K]
        rejected = p.sum(axis=1) - accepted.sum(axis=1)  # [N]
        instead = np.exp(leftover)
        replaced = rejected[:, None] * instead / instead.sum(axis=1, keepdims=True)

        # A draft of each category, and another one in its place.
        which, category = np.nonzero((accepted > 0) | (replaced > 0))
        drafted = x[which]
        drafted[np.arange(len(which)), place[which]] = category
        np.add.at(after, world.number(drafted), chance[which] * replaced[which, category])
        start, x, chance = start[which], drafted, chance[which] * accepted[which, category]
    np.add.at(after, world.number(x), chance)
    return after


def _check_each(log_p: np.ndarray, log_q: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns how often each category is accepted if it is the draft, and the logits of what else, [N, K]."""
    # Both are compiled anew for each number of rows: there are few numbers.
    N, K = log_p.shape
    padding = ((0, 4 ** int(np.ceil(np.log(N) / np.log(4))) - N), (0, 0))
    p, q = (jnp.asarray(np.pad(log, padding)) for log in (log_p, log_q))
    drafts = jnp.broadcast_to(jnp.arange(K, dtype=jnp.int32)[None], p.shape)
    p_of_each, q_of_each = (jnp.broadcast_to(log[:, None], (*p.shape, K)) for log in (p, q))
    return np.asarray(acceptance(p_of_each, q_of_each, drafts))[:N], np.asarray(leftover_logits(p, q))[:N]
