"""Runs the one loop of all samplers over the rows of a plan, noise given, as one compiled program.

A row of a plan is one call of the network: it takes every example from step t to step s. Rows are numbered by
how many are left, this one counted, so that in the plain plan from T down to 0 a row has the number t. What a
row does is the step that is passed: see `sampler`.
"""

from collections.abc import Callable, Sequence
from typing import Annotated, Any, NamedTuple

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Int

from d3pm_jax.checks import INT32, NUM_STEPS, Called, declared

ReverseStep = Annotated[
    Callable[[Int[Array, " B *S"], Int[Array, ""]], Int[Array, " B *S"]],
    Called("xt, t", "return x_{t-1} as integers, -1 where there is none"),
]
EVERY_BLOCK = -1


class Row(NamedTuple):
    """Says what one call of the network is for: integers in a plan, arrays in the loop."""

    number: Any  # of rows that are left, this one counted: N, ..., 1
    t: Any  # the step that x is at, of the process, which may be respaced
    s: Any  # where it goes: below t, t itself for a level that is held, above t to noise it again
    block: Any = EVERY_BLOCK  # which elements may change: those of this block


class State(NamedTuple):
    """Holds what the loop carries from row to row."""

    x: Int[Array, " B *S"]
    memory: dict[str, Any]  # what the slots of a sampler remember: [B, ..] each
    calls: Int[Array, " B"]  # inputs of the network that an example has needed so far
    program_calls: Int[Array, ""]  # and those that the program has made


class Chain(NamedTuple):
    """Holds the end of a reverse chain, the states on the way, whether it failed, and what it cost."""

    x0: Int[Array, " B *S"]  # x_t at t = 0
    states: Int[Array, "R B *S"]  # x at each recorded number of rows left: of the plain plan x_t at each t
    # The first row with nothing to draw from (NaN logits, say), or the last one, if it left masks; 0 if none.
    failed_at: Int[Array, ""]
    calls: Int[Array, " B"]  # inputs of the network that each example would need alone, one in most calls
    program_calls: Int[Array, ""]  # calls that were made, one after the other, of all examples at once
    seen: Any = None  # what rows handed out, N of each beside each other


def plan_levels(levels: Sequence[int]) -> tuple[Row, ...]:
    """Returns the rows that lead from each level, a step of the process, to the next.

    Args:
        levels: T first and 0 last.
    """
    last = len(levels) - 1
    return tuple(Row(last - i, levels[i], levels[i + 1]) for i in range(last))


def run_plan(
    step: Callable[[State, Row], tuple[State, Any]],
    plan: Sequence[Row],
    x: Int[Array, " B *S"],
    memory: dict[str, Any],
    record: Sequence[int] = (),
) -> Chain:
    """state, seen = step(state, row) for each row of a plan.

    Args:
        step: takes one row; under `lax.scan`, where the numbers of a row are arrays.
        plan: the rows, in their order.
        x: where to start.
        memory: what slots remember, at the start.
        record: the numbers of rows left, in 0..N, whose x to return.

    Returns:
        A `Chain`, with what the steps handed out.

    Raises:
        ValueError: a recorded number is outside 0..N.
    """
    if any(not 0 <= number <= len(plan) for number in record):
        raise ValueError(f"record = {list(record)}: numbers of rows left are 0..{len(plan)}")
    recorded = jnp.asarray(record, jnp.int32).reshape((-1,) + (1,) * x.ndim)  # [R, 1, ..]

    # A scan would stack the x of all rows. The carry holds only those that are recorded, and each row writes
    # its own place.
    def body(carry: tuple[State, Array, Array], row: Row) -> tuple[tuple[State, Array, Array], Any]:
        state, states, failed_at = carry
        state, seen = step(state, row)
        failed_at = jnp.where((failed_at == 0) & jnp.any(state.x < 0), row.number, failed_at)
        states = jnp.where(recorded == row.number - 1, state.x[None], states)
        return (state, states, failed_at), seen

    # Every place begins as the first x, which is right for a recorded N; the others are overwritten.
    x = x.astype(jnp.int32)
    states = jnp.broadcast_to(x[None], (len(record), *x.shape))  # [R, B, *S]
    zero = jnp.asarray(0, jnp.int32)
    start = State(x, memory, jnp.zeros(x.shape[:1], jnp.int32), zero)
    rows = Row(*(jnp.asarray(column, jnp.int32) for column in zip(*plan, strict=True)))
    (state, states, failed_at), seen = lax.scan(body, (start, states, zero), rows)
    return Chain(state.x, states, failed_at, state.calls, state.program_calls, seen)


def with_calls(chain: Chain, calls: int) -> Chain:
    """Returns a chain that took so many calls of the network, of all examples alike.

    Where all examples take all calls, these are counted outside of the loop: in it they would cost a kernel.
    """
    number = jnp.asarray(calls, jnp.int32)
    return chain._replace(calls=jnp.full(chain.calls.shape, number), program_calls=number)


@declared(T=NUM_STEPS, xT=INT32)
def run_chain(step: ReverseStep, T: int, xT: Int[Array, " B *S"], record: Sequence[int] = ()) -> Chain:
    """x_{t-1} = step(x_t, t) for t = T..1.

    Args:
        step: draws x_{t-1}.
        T: number of steps.
        xT: where to start.
        record: the t in 0..T whose x_t to return.

    Returns:
        A `Chain`. Look at `failed_at` before using it.

    Raises:
        ValueError: a recorded t is outside 0..T.
    """

    def take_row(state: State, row: Row) -> tuple[State, None]:
        return state._replace(x=step(state.x, row.t)), None

    chain = run_plan(take_row, plan_levels(range(T, -1, -1)), xT, {}, record)
    return with_calls(chain, T)
