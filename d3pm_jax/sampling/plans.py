"""Makes and checks plans: the rows that a sampler takes, each from a step of the process to another."""

import itertools
import math
import operator
from collections.abc import Sequence
from typing import Any

from d3pm_jax.checks import Epsilon, Size, at_least, declared, describe
from d3pm_jax.processes.base import Process
from d3pm_jax.sampling import laws
from d3pm_jax.sampling.chain import EVERY_BLOCK, Row
from d3pm_jax.sampling.sampler import Sampler

# A sequence of rows: `read_plan` checks it, and says what it should be.
Plan = Any


@declared(shape=at_least(0, 2**31 - 1))
def make_plan(sampler: Sampler, process: Process, shape: tuple[int, ...]) -> tuple[Row, ...]:
    """Returns the rows that a sampler takes.

    Args:
        sampler: its slots.
        process: the forward process; `RemaskLoop` needs the one that was made, not a copy that jit traces.
        shape: *S of an example.

    Raises:
        ValueError: a slot is not for this process, or a block does not divide the places.
    """
    sampler.check(process)
    block = _length_of_block(sampler, shape)
    of_block = _repeat_rows(read_plan(sampler.step.plan(process, block)), sampler.passes)
    if sampler.block is None:
        return of_block
    blocks = math.prod(shape) // block
    numbers = iter(range(blocks * len(of_block), 0, -1))
    return tuple(row._replace(number=next(numbers), block=b) for b in range(blocks) for row in of_block)


def _repeat_rows(rows: Sequence[Row], passes: int) -> tuple[Row, ...]:
    """Returns rows that are taken so many times each, with ways back up between; numbered anew."""
    levels = []
    for row in rows:
        levels += [(row.t, row.s)]
        for _ in range(passes - 1):
            # A row that holds its level has nowhere to go back to.
            if row.s < row.t:
                levels += [(row.s, row.t)]
            levels += [(row.t, row.s)]
    return tuple(Row(len(levels) - i, t, s) for i, (t, s) in enumerate(levels))


def _length_of_block(sampler: Sampler, shape: tuple[int, ...]) -> int:
    """Returns how many places a block has, all of an example of shape *S where it is not cut into blocks.

    Raises:
        ValueError: the sampler goes by places and there is none, or a block does not divide them.
    """
    num_places = math.prod(shape)
    if num_places == 0 and (sampler.step.goes_by_masks or sampler.block is not None):
        raise ValueError(f"an example of shape {shape} has no places to reveal: pass sizes from 1 on")
    block = sampler.block or max(1, num_places)
    if num_places % block:
        raise ValueError(
            f"block = {block} does not divide the {num_places} places of an example: pass a divisor"
        )
    return block


def read_plan(plan: Plan) -> tuple[Row, ...]:
    """Returns a plan as rows of ints, of rows or tuples of them.

    Raises:
        TypeError: it is something else.
    """
    try:
        return tuple(Row(*map(operator.index, row)) for row in plan)
    except TypeError as error:
        raise TypeError(
            f"plan is {describe(plan)}, expected rows of whole numbers: pass what make_plan returns, or "
            f"Row(number, t, s) for each call of the network"
        ) from error


def check_start(plan: Sequence[Row], process: Process) -> None:
    """Raises ValueError for a plan that does not begin at T, where x_T is drawn."""
    if plan and plan[0].t != process.T:
        raise ValueError(
            f"the plan begins at t = {plan[0].t}, but T = {process.T}: begin at T, or pass x_t to `run`"
        )


def check_plan(plan: Sequence[Row], sampler: Sampler, process: Process, shape: tuple[int, ...]) -> None:
    """Raises ValueError for a plan that a sampler cannot take of examples of shape *S."""
    if not plan or plan[-1].s != 0:
        end = "has no rows" if not plan else f"ends at s = {plan[-1].s}"
        raise ValueError(f"the plan {end}: its last row must go to 0, as Row(1, t, 0)")
    if [row.number for row in plan] != list(range(len(plan), 0, -1)):
        raise ValueError(f"the rows of the plan must be numbered {len(plan)}, .., 1, by how many are left")
    _check_blocks(plan, sampler, shape)
    if sampler.step.goes_by_masks:
        rows = make_plan(sampler, process, shape)
        if tuple(plan) != rows:
            raise ValueError(
                f"the plan has {len(plan)} rows that are not those of make_plan, which are {len(rows)}, each "
                f"from {process.T} to 0: places are revealed by these alone, so leave out plan"
            )
        return
    for before, row in itertools.pairwise(plan):
        if row.block == before.block and row.t != before.s:
            raise ValueError(
                f"row {row.number} begins at {row.t}, but row {before.number} ended at {before.s}: begin it "
                f"there"
            )
    for row in plan:
        goes_up_from_data = row.t == 0 and row.s > 0
        if not ((1 <= row.t <= process.T or goes_up_from_data) and 0 <= row.s <= process.T):
            raise ValueError(
                f"row {row.number} goes from {row.t} to {row.s}: steps are 1..{process.T}, and 0"
            )
        if row.s > row.t + 1:
            laws.require_mixing(process, f"row {row.number}, which goes back up from {row.t} to {row.s},")
        elif row.s <= row.t and not sampler.step.takes_long_steps and row.s != row.t - 1:
            raise ValueError(
                f"row {row.number} goes from {row.t} to {row.s}, but {type(sampler.step).__name__} "
                f"takes one step at a time: respace the process, or take Keep or Remask"
            )


def _check_blocks(plan: Sequence[Row], sampler: Sampler, shape: tuple[int, ...]) -> None:
    """Raises ValueError unless a plan goes through all blocks in their order, each of them to 0."""
    blocks = [EVERY_BLOCK]
    if sampler.block is not None:
        blocks = list(range(math.prod(shape) // _length_of_block(sampler, shape)))
    planned = [block for block, _ in itertools.groupby(row.block for row in plan)]
    if planned != blocks:
        raise ValueError(
            f"the plan goes through the blocks {planned}, and the sampler through {blocks}: give each row "
            f"its block, as make_plan does"
        )
    for row, after in itertools.pairwise(plan):
        if row.block != after.block and row.s != 0:
            raise ValueError(
                f"block {row.block} ends at s = {row.s}, in row {row.number}: its last row must go to 0"
            )


@declared()
def find_level(strength: Epsilon, T: Size) -> int:
    """round(strength T), at least 1: the step that an edit begins at.

    Args:
        strength: in (0, 1].
        T: number of steps.

    Raises:
        ValueError: strength is outside (0, 1].
    """
    return max(1, round(strength * T))


def rows_of_edit(sampler: Sampler, plan: Sequence[Row], strength: float, T: int) -> tuple[Row, ...]:
    """Returns the rows of a plan that an edit takes: from the first on whose t is nearest to its level.

    Args:
        sampler: that the plan is of. One that reveals goes by what is masked, and takes all of its rows.
        plan: from T to 0.
        strength: in (0, 1].
        T: number of steps.

    Raises:
        ValueError: strength is outside (0, 1], the plan has no rows that go down, or the sampler begins with
            all places masked.
    """
    level = find_level(strength, T)
    if sampler.block is not None:
        raise ValueError(
            f"block = {sampler.block}: a block is drawn while all after it are masked, and an edit masks a "
            f"part of each; leave out block"
        )
    if sampler.step.starts_from_noise:
        raise ValueError(
            f"{type(sampler.step).__name__} begins where all places are masked, and an edit masks a part: "
            f"take `random_order`"
        )
    if sampler.step.goes_by_masks:
        return tuple(plan)
    # A row that goes back up belongs to one above it.
    distances = {i: abs(row.t - level) for i, row in enumerate(plan) if row.s <= row.t}
    if not distances:
        raise ValueError("the plan has no rows that go down: pass what make_plan returns")
    first = min(distances, key=lambda i: distances[i])
    return tuple(plan[first:])
