"""Edits examples: noises them part of the way, and draws the way back."""

from collections.abc import Sequence

import torch
from torch import Tensor

from torch_ref.beliefs import Belief
from torch_ref.processes.base import Process
from torch_ref.sampling.chain import Chain, Row
from torch_ref.sampling.denoise import Denoise
from torch_ref.sampling.noise import DRAW, Streams
from torch_ref.sampling.sampler import PRIOR_STEP, Sampler, make_plan, run_sampler


def run_edit(
    sampler: Sampler,
    denoise: Denoise,
    process: Process,
    x0: Tensor,
    strength: float,
    noise: Streams,
    record: Sequence[int] = (),
    belief: Belief = "d3pm",
    known: Tensor | None = None,
    plan: Sequence[Row] | None = None,
) -> Chain:
    """Draws x_t ~ q(x_t | x_0) at t = round(strength T), and from there x_0 by the rest of the rows."""
    if plan is None:
        plan = make_plan(sampler, process, tuple(x0.shape[1:]))
    level = find_level(strength, process.T)
    rows = rows_of_edit(sampler, plan, strength, process.T)
    if sampler.reveal is None:
        level = rows[0].t
    xt = process.draw_q(x0, torch.tensor(level), noise(PRIOR_STEP, DRAW))
    clean = None if known is None else x0
    return run_sampler(sampler, denoise, process, xt, noise, record, belief, clean, known, rows)


def find_level(strength: float, T: int) -> int:
    """round(strength T), at least 1."""
    return max(1, round(strength * T))


def rows_of_edit(sampler: Sampler, plan: Sequence[Row], strength: float, T: int) -> tuple[Row, ...]:
    """Returns the rows from the first on whose t is nearest to the level; all of a sampler that reveals."""
    if sampler.reveal is not None:
        return tuple(plan)
    level = find_level(strength, T)
    first = 0
    for i, row in enumerate(plan):
        goes_down = row.s <= row.t
        if goes_down and abs(row.t - level) < abs(plan[first].t - level):
            first = i
    return tuple(plan[first:])
