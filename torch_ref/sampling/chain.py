"""Takes the rows of a plan one after the other."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

EVERY_BLOCK = -1


class Row(NamedTuple):
    """Says what one call of the network is for."""

    number: int  # of rows that are left, this one counted: N, ..., 1
    t: int  # the step that x is at
    s: int  # where it goes: below t, t itself for a level that is held, above t to noise it again
    block: int = EVERY_BLOCK  # which elements may change: those of this block


class State(NamedTuple):
    """Holds what goes from row to row."""

    x: Tensor  # [B, *S]
    memory: dict[str, Tensor]  # what the slots of a sampler remember: [B, ..] each
    calls: Tensor  # [B]  calls of the network that an example has needed so far
    program_calls: int  # and those that were made


class Chain(NamedTuple):
    """Holds what a reverse chain has drawn, and what it cost."""

    x0: Tensor  # [B, *S]
    states: Tensor  # [R, B, *S]  x at each recorded number of rows left
    failed_at: Tensor  # []  the first row with nothing to draw from; 0 if none
    calls: Tensor  # [B]  calls of the network that each example would need alone
    program_calls: Tensor  # []  calls that were made, of all examples at once


def plan_levels(levels: Sequence[int]) -> tuple[Row, ...]:
    """Returns the rows that lead from each level to the next."""
    plan = []
    for i in range(len(levels) - 1):
        plan.append(Row(len(levels) - 1 - i, levels[i], levels[i + 1]))
    return tuple(plan)


def run_plan(
    step: Callable[[State, Row], State],
    plan: Sequence[Row],
    x: Tensor,
    memory: dict[str, Tensor],
    record: Sequence[int] = (),
) -> Chain:
    """state = step(state, row) for each row of a plan."""
    state = State(x, memory, torch.zeros(len(x), dtype=torch.int64), 0)
    states = {len(plan): x}
    failed_at = 0
    for row in plan:
        state = step(state, row)
        states[row.number - 1] = state.x
        if failed_at == 0 and (state.x < 0).any():
            failed_at = row.number

    recorded = x.new_empty(0, *x.shape)
    if len(record) > 0:
        recorded = torch.stack([states[number] for number in record])  # [R, B, *S]
    return Chain(state.x, recorded, torch.tensor(failed_at), state.calls, torch.tensor(state.program_calls))


def call_all(state: State, calls: int = 1) -> State:
    """Counts calls of the network that every example needs."""
    return state._replace(calls=state.calls + calls, program_calls=state.program_calls + calls)
