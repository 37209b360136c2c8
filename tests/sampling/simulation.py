"""Runs samplers in NumPy from the same noise: the loop over rows of t, by the rules of `cases`."""

import itertools
from typing import NamedTuple

import numpy as np

from d3pm_jax.sampling.noise import ACCEPT, CORRECTOR, DRAW, ORDER, PHASE, REPLACE
from tests.sampling import rules
from tests.sampling.cases import Case
from tests.sampling.rules import World


class Simulated(NamedTuple):
    """Holds the states of a chain by the number of rows left, and the calls that each example needs."""

    states: dict[int, np.ndarray]  # [B, L] each
    calls: np.ndarray  # [B]
    program_calls: int | None = None  # None: the most of calls


def simulate(
    case: Case,
    world: World,
    predicted: np.ndarray,
    x: np.ndarray,
    u: np.ndarray,
    levels: list[int],
    unknown: np.ndarray | None = None,
    x0: np.ndarray | None = None,
    belief: str = "leave_one_out",
) -> Simulated:
    """Draws a chain by the rules.

    Args:
        case: of the sampler.
        world: the process.
        predicted: what the network says, by t and x_t: [T + 1, K^L, L, K].
        x: x_T, [B, L].
        u: noise [rows + 1, streams, B, L], by the number of rows left and the stream.
        levels: T, ..., 0 of a sampler with a law; of one that reveals, as many and one more than it has rows.
        unknown: the places that may change, [B, L]; the others stay as they are in x.
        x0: what those hold in the end, where they are noised.
        belief: what the predictions are.
    """

    def believe(x: np.ndarray, t: int) -> rules.Believed:
        return rules.read_belief(world, belief, predicted[t, rules.number_of(x, world.K)], x, t)

    def strip(x: np.ndarray, t: int) -> np.ndarray:
        leave_one_out = predicted[t, rules.number_of(x, world.K)]
        if belief == "denoiser" or (belief == "official" and t == 1):
            return rules.strip_evidence(world, leave_one_out, x, t)
        return leave_one_out

    if unknown is None:
        unknown = np.ones(x.shape, bool)
    if case.drafts:
        return _check_drafts(case, world, believe, x, u, len(levels) - 1, unknown)
    if case.choose is not None:

        def keep(x: np.ndarray, t: int) -> np.ndarray:
            """What stands at each place, by what the network says of it."""
            return np.take_along_axis(predicted[t, rules.number_of(x, world.K)], x[:, None], axis=-1)[:, 0]

        return _reveal(case, world, believe, keep, x, u, len(levels) - 1, unknown)
    block = case.sampler.block or x.shape[1]
    pairs = list(itertools.pairwise(levels))
    number = len(pairs) * (x.shape[1] // block)
    states = {number: x}
    memory = {"clock": u[0, PHASE], "confidence": np.zeros(x.shape)}
    calls = np.zeros(len(x), int)
    for start in range(0, x.shape[1], block):
        in_block = np.isin(np.arange(x.shape[1]), np.arange(start, start + block)) & unknown
        for t, s in pairs:
            if s > t:
                x = np.where(in_block, rules.draw_forward(world, world.Q[s], x, u[number, DRAW]), x)
            else:
                x, memory = _move(case, believe, x, t, s, memory, u[number], in_block)
                calls += 1
            if x0 is not None:
                x = np.where(unknown, x, rules.draw_forward(world, world.Qbar[s], x0, u[number, DRAW]))
            if s <= t and case.move is not None and s > 0:
                x = _correct(case, world, strip, x, s, u[number], in_block)
                calls += case.corrector.moves
            number -= 1
            states[number] = x
    return Simulated(states, calls)


def _move(case, believe, x, t, s, memory, u, in_block):
    world, leave_one_out = believe(x, t)
    law = case.law(world, leave_one_out, x, t, s, memory)
    drawn = np.where(in_block, rules.draw(law, u[DRAW]), x)
    denoiser = rules.denoiser_of(world, leave_one_out, x, t)
    p_drawn = np.take_along_axis(denoiser, drawn[..., None], -1)[..., 0]
    confidence = np.where(x == world.mask, p_drawn, memory["confidence"])
    clock = rules.stratified(world, leave_one_out, x, t, memory["clock"])[1]
    return drawn, {"clock": clock, "confidence": confidence}


def _correct(case, world, strip, x, s, u, may_change):
    moves_one_place = type(case.corrector).__name__ == "Gibbs"
    for i in range(case.corrector.moves):
        chosen = may_change
        if moves_one_place:
            order = np.where(may_change, u[CORRECTOR + 2 * i + 1], -1)
            chosen = may_change & (np.arange(x.shape[1]) == np.argmax(order, axis=1)[:, None])
            if world.has_mask:
                x = np.where(chosen, world.mask, x)
        law = case.move(world, strip(x, s), x, s)
        x = np.where(chosen, rules.draw(law, u[CORRECTOR + 2 * i]), x)
    return x


def _reveal(case, world, believe, keep, x, u, rows, unknown):
    x = x.copy()
    states = {rows: x.copy()}
    calls = np.zeros(len(x), int)
    masked_at_start = (x == world.mask) & unknown
    at_start = masked_at_start.sum(1)
    for number in range(rows, 0, -1):
        for b, x_b in enumerate(x):
            masked = (x_b == world.mask) & unknown[b]
            if not masked.any():
                continue
            calls[b] += 1
            t = smallest_step(world, masked.sum() / unknown[b].sum())
            of_rule, leave_one_out = believe(x_b, t)
            p = rules.denoiser_of(of_rule, leave_one_out, x_b, t)
            drawn = rules.draw(p, u[number, DRAW, b])
            candidates = rules.Candidates(
                p,
                drawn,
                masked,
                u[number, ORDER, b],
                at_start[b],
                rows + 1 - number,
                rows,
                keep(x_b, t),
                masked_at_start[b] & ~masked,
            )
            chosen = case.choose(candidates)
            remasked = [] if case.remask is None else case.remask(candidates)
            x[b, chosen] = drawn[chosen]
            x[b, remasked] = world.mask
        states[number - 1] = x.copy()
    return Simulated(states, calls)


def _check_drafts(case, world, believe, x, u, rows, unknown):
    x = x.copy()
    states = {rows: x.copy()}
    calls = np.zeros(len(x), int)
    program_calls = 0

    def law_of(x_b, unknown_b):
        masked = (x_b == world.mask) & unknown_b
        t = smallest_step(world, masked.sum() / unknown_b.sum())
        of_rule, leave_one_out = believe(x_b, t)
        return rules.denoiser_of(of_rule, leave_one_out, x_b, t)

    for number in range(rows, 0, -1):
        most_calls = 0
        for b, x_b in enumerate(x):
            masked = (x_b == world.mask) & unknown[b]
            places = rules.first_of(u[0, ORDER, b], masked)[: case.drafts]
            if not places:
                continue
            calls[b] += len(places)
            most_calls = max(most_calls, 1 if len(places) == 1 else 2)
            p = law_of(x_b, unknown[b])
            drafted = rules.draw(p, u[number, DRAW, b])
            for i, place in enumerate(places):
                q = p if i == 0 else law_of(x[b], unknown[b])
                category = drafted[place]
                if u[number, ACCEPT, b, place] < q[place, category] / p[place, category]:
                    x[b, place] = category
                else:
                    leftover = np.maximum(q[place] - p[place], 0)
                    share = leftover / leftover.sum()
                    x[b, place] = rules.draw(share, u[number, REPLACE, b, place])
                    break
        program_calls += most_calls
        states[number - 1] = x.copy()
    return Simulated(states, calls, program_calls)


def smallest_step(world: World, share: float) -> int:
    """The smallest t whose 1 - alpha_t is at least a share of masks."""
    return next(t for t in range(1, len(world.alpha)) if 1 - world.alpha[t] >= share - 1e-12)
