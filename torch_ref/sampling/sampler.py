"""Puts samplers together from slots, and runs them: belief, shaping, transition, places, corrector, clamp."""

import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from torch_ref import numerics
from torch_ref.beliefs import Belief, to_leave_one_out
from torch_ref.processes.base import Process
from torch_ref.sampling import laws, places
from torch_ref.sampling.chain import Chain, Row, State, call_all, run_plan
from torch_ref.sampling.correctors import Corrector
from torch_ref.sampling.denoise import Denoise
from torch_ref.sampling.guidance import Guided
from torch_ref.sampling.noise import DRAW, ORDER, PHASE, Streams
from torch_ref.sampling.places import Candidates, FirstHitting, Places
from torch_ref.sampling.shaping import Shaping
from torch_ref.sampling.transitions import Bayes, Memory, Transition, View

PRIOR_STEP = 0  # the row whose noise draws x_T: no row of a plan has it


@dataclasses.dataclass(frozen=True)
class Sampler:
    """Says how a chain is drawn, slot by slot; by default ancestrally."""

    transition: Transition = Bayes()
    shaping: Shaping = Shaping()
    reveal: Places | None = None
    block: int | None = None
    corrector: Corrector | None = None
    passes: int = 1
    noises_known: bool = False

    @property
    def needs_extra_mask(self) -> bool:
        """Tells whether it takes every mask for a place that is unknown."""
        return self.reveal is not None or self.block is not None or self.transition.needs_extra_mask


class Problem(NamedTuple):
    """Holds what a sampler is run on: all that stays the same from row to row."""

    sampler: Sampler
    denoise: Denoise
    process: Process
    noise: Streams
    belief: Belief
    x0: Tensor  # [B, *S]  what known places hold
    unknown: Tensor  # [B, *S]  the places to draw
    masked_at_start: Tensor  # [B, *S]
    rows: int  # of a block
    largest_rise: int  # of a row of the plan: by how many steps it goes back up
    said: list[tuple[Tensor, Tensor]]  # x, and the logits of the network, of each row so far

    def row_noise(self, row: Row) -> Callable[[int], Tensor]:
        """Returns the noise of a row, by stream."""
        return lambda stream: self.noise(row.number, stream)


class Prepared(NamedTuple):
    """Holds what `run_plan` takes to run a sampler, and what that is run on."""

    problem: Problem
    plan: Sequence[Row]
    x: Tensor  # where it starts, [B, *S]
    memory: Memory
    take_row: Callable[[State, Row], State]


def make_plan(sampler: Sampler, process: Process, shape: tuple[int, ...]) -> tuple[Row, ...]:
    """Returns the rows that a sampler takes."""
    num_places = math.prod(shape)
    block = sampler.block or num_places
    if sampler.reveal is None:
        of_block = repeat_rows(sampler.transition.plan(process), sampler.passes)
    else:
        rows = sampler.reveal.num_rows(block)
        of_block = tuple(Row(rows - i, process.T, 0) for i in range(rows))
    if sampler.block is None:
        return of_block

    blocks = num_places // block
    plan = []
    for b in range(blocks):
        for row in of_block:
            plan.append(Row(blocks * len(of_block) - len(plan), row.t, row.s, b))
    return tuple(plan)


def repeat_rows(rows: Sequence[Row], passes: int) -> tuple[Row, ...]:
    """Returns rows that are taken so many times each, with ways back up between; numbered anew."""
    levels = []
    for row in rows:
        way_back = [(row.s, row.t)] if row.s < row.t else []
        levels += [(row.t, row.s), *(passes - 1) * [*way_back, (row.t, row.s)]]
    return tuple(Row(len(levels) - i, t, s) for i, (t, s) in enumerate(levels))


def run_sampler(
    sampler: Sampler,
    denoise: Denoise,
    process: Process,
    xT: Tensor,
    noise: Streams,
    record: Sequence[int] = (),
    belief: Belief = "d3pm",
    x0: Tensor | None = None,
    known: Tensor | None = None,
    plan: Sequence[Row] | None = None,
) -> Chain:
    """Runs a sampler from x_T to x_0; known places stay as they are in x0."""
    prepared = prepare(sampler, denoise, process, xT, noise, belief, x0, known, plan)
    chain = run_plan(prepared.take_row, prepared.plan, prepared.x, prepared.memory, record)
    return count_calls(chain, denoise)


def prepare(
    sampler: Sampler,
    denoise: Denoise,
    process: Process,
    xT: Tensor,
    noise: Streams,
    belief: Belief,
    x0: Tensor | None,
    known: Tensor | None,
    plan: Sequence[Row] | None,
) -> Prepared:
    """Makes the step of the loop that runs a sampler, and what it starts from."""
    if plan is None:
        plan = make_plan(sampler, process, tuple(xT.shape[1:]))
    plan = [Row(*row) for row in plan]
    unknown = torch.ones_like(xT, dtype=torch.bool)
    if x0 is not None and known is not None:
        unknown = ~known
        held = x0
        if sampler.noises_known:
            held = process.draw_q(x0, torch.tensor(plan[0].t), noise(PRIOR_STEP, DRAW))
        xT = torch.where(known, held, xT)
    else:
        x0 = xT
    masked_at_start = torch.zeros_like(unknown)
    mask = laws.mask_of(process)
    if mask is not None:
        masked_at_start = (xT == mask) & unknown
    rows = len(plan) // len({row.block for row in plan})
    rise = max(row.s - row.t for row in plan)
    problem = Problem(
        sampler, denoise, process, noise, belief, x0, unknown, masked_at_start, rows, rise, said=[]
    )

    def take_row(state: State, row: Row) -> State:
        if sampler.reveal is not None:
            return _reveal(problem, state, row)
        if row.s > row.t:
            return _noise_again(problem, state, row)
        return _move(problem, state, row)

    return Prepared(problem, plan, xT, _start_memory(problem, xT), take_row)


def count_calls(chain: Chain, denoise: Denoise) -> Chain:
    """Returns a chain with the calls of a guided network, which may take two a row."""
    if isinstance(denoise, Guided):
        return chain._replace(calls=chain.calls * denoise.calls)
    return chain


def _start_memory(problem: Problem, x: Tensor) -> Memory:
    if isinstance(problem.sampler.reveal, FirstHitting):
        return {"masked_share": torch.ones(len(x))}
    return problem.sampler.transition.start(x, lambda stream: problem.noise(PRIOR_STEP, stream))


def _move(problem: Problem, state: State, row: Row) -> State:
    """Moves all places of a row's block by the transition, and then by the corrector."""
    process = problem.process
    x = state.x
    t = torch.full(x.shape[:1], row.t)
    s = torch.full(x.shape[:1], row.s)
    may_change = _may_change(problem, row)
    noise = problem.row_noise(row)

    def view_of(logits: Tensor) -> View:
        shaped, belief = shape_logits(problem, logits, x, t)
        return View(process, shaped, belief, x, t, s, noise, state.memory, may_change)

    transition = problem.sampler.transition
    denoise = problem.denoise
    if isinstance(denoise, Guided) and denoise.changes_law:
        beliefs = denoise.beliefs(x, process.time[t])
        views = [view_of(logits) for logits in beliefs]
        law = denoise.guide([transition.law(view) for view in views], process, x, t, s)
        drawn = numerics.categorical(law, noise(DRAW))
        memory = transition.remember(views[0], drawn)
    else:
        beliefs = [denoise(x, process.time[t])]
        drawn, memory = transition.draw(view_of(beliefs[0]))
    problem.said.append((x, beliefs[0]))
    state = call_all(state)._replace(x=_hold_known(problem, drawn, x, row), memory=memory)

    # At s = 0, where the data is, there is nothing to correct.
    if problem.sampler.corrector is None or row.s == 0:
        return state
    return _correct(problem, problem.sampler.corrector, state, row)


def _correct(problem: Problem, corrector: Corrector, state: State, row: Row) -> State:
    """Moves by the corrector at s."""
    process = problem.process

    def call(x: Tensor, t: Tensor) -> Tensor:
        logits, belief = shape_logits(problem, problem.denoise(x, process.time[t]), x, t)
        return laws.leave_one_out_of(process, logits, x, t, belief)

    s = torch.full(state.x.shape[:1], row.s)
    may_change = _may_change(problem, row)
    transition = problem.sampler.transition
    x = corrector.correct(call, process, transition, state.x, s, may_change, problem.row_noise(row))
    return call_all(state, corrector.moves)._replace(x=x)


def _reveal(problem: Problem, state: State, row: Row) -> State:
    """Reveals masked places of a row's block with x_0 of the denoiser; a finished example does nothing."""
    reveal = problem.sampler.reveal
    process = problem.process
    assert reveal is not None
    x = state.x
    may_change = _may_change(problem, row)
    masked = (x == laws.mask_of(process)) & may_change
    is_active = masked.flatten(1).any(dim=1)  # [B]
    if not is_active.any():
        return state

    # All masks count for the time, those of other blocks too.
    masked_of_all = (x == laws.mask_of(process)) & problem.unknown
    left = masked_of_all.flatten(1).sum(dim=1)  # [B]
    unknown = problem.unknown.flatten(1).sum(dim=1)  # [B]
    t = smallest_step(process, left / unknown.clamp(min=1))
    time = process.time[t]
    memory = state.memory
    if isinstance(reveal, FirstHitting):
        # An example has one time: the noise of its first place.
        u = problem.noise(row.number, PHASE).flatten(1)[:, 0]
        masked_share = places.next_hitting(memory["masked_share"], left, u)
        # The time of an example that is done with its block stands still.
        masked_share = torch.where(is_active, masked_share, memory["masked_share"])
        memory = memory | {"masked_share": masked_share}
        if reveal.schedule is not None:
            time = places.time_of(reveal.schedule, masked_share)

    logits = problem.denoise(x, time)
    problem.said.append((x, logits))
    shaped, belief = shape_logits(problem, logits, x, t)
    log_p = laws.denoiser_of(process, shaped, x, t, belief)  # [B, *S, K]
    drawn = numerics.categorical(log_p, problem.noise(row.number, DRAW))
    candidates = Candidates(
        log_p=log_p.flatten(1, -2),
        drawn=drawn.flatten(1),
        masked=masked.flatten(1),
        places=(problem.masked_at_start & may_change).flatten(1).sum(dim=1),
        uniforms=lambda: problem.noise(row.number, ORDER).flatten(1),
        i=problem.rows - (row.number - 1) % problem.rows,
        rows=problem.rows,
    )
    # A place that nothing can be drawn for is revealed at once, as -1, so that the chain says that it failed.
    is_revealed = reveal.choose(candidates).reshape(x.shape) | (masked & (drawn < 0))
    x = torch.where(is_revealed, drawn, x)
    return State(x, memory, state.calls + is_active, state.program_calls + 1)


def smallest_step(process: Process, share: Tensor) -> Tensor:
    """Returns the smallest t in 1..T whose 1 - alpha_t is at least a share of masks, T where none is."""
    mixed = laws.mixed_shares(process)
    steps = torch.full(share.shape, process.T)
    for t in range(process.T, 0, -1):
        steps[mixed[t] >= share - 1e-12] = t  # rounding does not decide between equals
    return steps


def _noise_again(problem: Problem, state: State, row: Row) -> State:
    """Noises x from t up to s; no network is called."""
    x = state.x
    t = torch.full(x.shape[:1], row.t)
    s = torch.full(x.shape[:1], row.s)
    u = problem.noise(row.number, DRAW)
    if problem.largest_rise == 1:
        drawn = problem.process.draw_step(x, s, u)
    else:
        drawn = numerics.categorical(laws.renoise_logits(problem.process, x, t, s), u)
    # What failed stays so.
    drawn = torch.where(x < 0, x, drawn)
    return state._replace(x=_hold_known(problem, drawn, x, row))


def _hold_known(problem: Problem, drawn: Tensor, x: Tensor, row: Row) -> Tensor:
    """Returns what a row drew where it may change x; else x, or x_0 noised to where the row goes."""
    held = x
    if problem.sampler.noises_known:
        s = torch.full(x.shape[:1], row.s)
        held = problem.process.draw_q(problem.x0, s, problem.noise(row.number, DRAW))
    return torch.where(_may_change(problem, row), drawn, held)


def shape_logits(problem: Problem, logits: Tensor, x: Tensor, t: Tensor) -> tuple[Tensor, Belief]:
    """Returns shaped logits, and what they are: leave-one-out logits once they are shaped."""
    sampler = problem.sampler
    process = problem.process
    belief = problem.belief
    if sampler.needs_extra_mask:
        # No x_0 is the mask, whatever the network says of it.
        logits = logits.clone()
        logits[..., laws.mask_of(process)] = -torch.inf
    if sampler.shaping.changes_nothing(process.K):
        return logits, belief
    if belief == "denoiser":
        logits = to_leave_one_out(process, logits, x, t)
        belief = "leave_one_out"
    # What x_t rules out takes no part, however likely the others may think it.
    possible = torch.where(process.log_q_x0(x, t) > -torch.inf, logits, -torch.inf)
    shaped = sampler.shaping.apply(possible)
    # A place that holds a forbidden category stays what it is.
    is_empty = (shaped == -torch.inf).all(dim=-1, keepdim=True)
    return torch.where(is_empty, possible, shaped), belief


def _may_change(problem: Problem, row: Row) -> Tensor:
    """Tells which places a row may change: unknown ones, of its block, [B, *S]."""
    block = problem.sampler.block
    if block is None:
        return problem.unknown
    shape = problem.unknown.shape[1:]
    block_of_place = torch.arange(math.prod(shape)) // block
    return (block_of_place == row.block).reshape(shape) & problem.unknown
