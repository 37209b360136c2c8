"""Puts samplers together from slots, and runs them: belief, shaping, transition, places, corrector, clamp.

    sampler = Sampler(transition=Remask(Cap(0.04)), shaping=Shaping(top_p=0.9))
    chain = sample_by(key, sampler, denoise, process, shape=(16, 64))

The named ones of papers are in `named`; what each slot may hold is in `shaping`, `transitions`, `places` and
`correctors`. A row of the plan is one call of the network; what a row does is `take_row`.
"""

import dataclasses
import itertools
import math
import operator
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float, Int, Key

from d3pm_jax.beliefs import Belief, to_leave_one_out
from d3pm_jax.checks import CATEGORIES, INDEX, NOISE, at_least, declared, marked
from d3pm_jax.checks.arrays import describe
from d3pm_jax.numerics import inverse_cdf
from d3pm_jax.processes.base import Process
from d3pm_jax.processes.tables import is_category
from d3pm_jax.sampling import laws, places
from d3pm_jax.sampling.chain import EVERY_BLOCK, Chain, Row, State, run_plan, with_calls
from d3pm_jax.sampling.correctors import Corrector
from d3pm_jax.sampling.denoise import Denoise, call_network
from d3pm_jax.sampling.fields import check_fields
from d3pm_jax.sampling.guidance import Guided
from d3pm_jax.sampling.noise import DRAW, ORDER, PHASE, Streams, per_example
from d3pm_jax.sampling.places import Candidates, FirstHitting, Places
from d3pm_jax.sampling.shaping import Shaping
from d3pm_jax.sampling.transitions import Bayes, Transition, View

# A sequence of rows: `read_plan` checks it, and says what it should be.
Plan = Any

PRIOR_STEP = 0  # the row whose noise draws x_T: no row of a plan has it


@dataclasses.dataclass(frozen=True)
class Sampler:
    """Says how a chain is drawn, slot by slot; by default ancestrally."""

    transition: Transition = Bayes()
    """by which law x_s is drawn from x_t"""
    shaping: Shaping = Shaping()
    """what is done to the logits before"""
    reveal: Places | None = None
    """which masked places take x_0 in a row, in the place of a transition; None: all places move by it"""
    block: int | None = None
    """the length of blocks of places that are drawn one after the other, in the order of the places"""
    corrector: Corrector | None = None
    """moves at each level between the rows"""
    passes: int = 1
    """how often `make_plan` takes each row; between two of them x goes back up to where the row began"""
    noises_known: bool = False
    """whether known places are noised as x is, until they are clean at the end; else they always are"""

    def __post_init__(self) -> None:
        """Raises ValueError for slots that do not go together."""
        check_fields(self)
        if self.reveal is not None and self.transition != Bayes():
            raise ValueError(
                f"revealed places take x_0, so that transition = {type(self.transition).__name__}(..) "
                "would do nothing: leave out transition, or reveal"
            )
        if self.reveal is not None and self.corrector is not None:
            raise ValueError(
                "a corrector moves x at a noise level, but revealed places are at none: leave out "
                "corrector, or reveal"
            )
        if self.block is not None and self.block < 1:
            raise ValueError(f"block = {self.block}: a block has at least 1 place")
        if self.passes < 1:
            raise ValueError(f"passes = {self.passes}: each row is taken at least once")
        repeats = f"passes = {self.passes}" if self.passes > 1 else ""
        noises = "noises_known = True" if self.noises_known else ""
        for slot in filter(None, (repeats, noises)):
            if self.reveal is not None:
                raise ValueError(f"{slot}: a place that was revealed is never noised again; leave it out")
            if self.block is not None:
                raise ValueError(f"{slot}: a block is drawn given clean ones before it; leave it out")

    @property
    def needs_extra_mask(self) -> bool:
        """Tells whether it takes every mask for a place that is unknown, so that no x_0 may be one."""
        return self.reveal is not None or self.block is not None or self.transition.needs_extra_mask

    def check(self, process: Process) -> None:
        """Raises ValueError for a process that a slot is not for."""
        self.shaping.check(process.K)
        self.transition.check(process)
        if self.reveal is not None:
            laws.require_absorbing(process, "revealing places")
        if self.block is not None:
            laws.require_absorbing(process, "a block")
        if self.corrector is not None:
            self.corrector.check(process, self.transition)

    def check_guided(self, guided: type[Guided]) -> None:
        """Raises ValueError if the sampler draws from no law of x_s that this guidance could change."""
        cure = guided.cure
        if self.reveal is not None:
            raise ValueError(f"guidance changes the law of x_s, and revealed places take x_0: {cure}")
        if self.corrector is not None:
            raise ValueError(f"guidance changes the law of x_s, and a corrector moves by another: {cure}")
        if not self.transition.can_be_guided:
            name = type(self.transition).__name__
            raise ValueError(f"guidance changes the law of x_s, and {name} moves by a clock: {cure}")
        # What is likeliest in one law may be cut off in another, and then nothing would be possible in both.
        if guided.num_laws > 1 and self.shaping.cuts_off:
            raise ValueError(f"guidance of x_s needs what top_k and top_p cut off: {cure}")


class Seen(NamedTuple):
    """Holds what each of N rows saw, for pictures and for study."""

    x: Int[Array, "N B *S"]  # before the row
    logits: Float[Array, "N B *S K"]  # what the network said, before it was shaped
    changed: Bool[Array, "N B *S"]  # which places are another category after it


class Problem(NamedTuple):
    """Holds what a sampler is run on: all that stays the same from row to row."""

    sampler: Sampler
    beliefs: Callable[[Array, Array], list[Array]]  # what the network says: one, but for guidance
    guided: Guided | None  # what changes the laws of x_s
    process: Process
    noise: Callable[[Array, int | Array], Array]
    belief: Belief
    x0: Int[Array, " B *S"] | None  # what known places hold
    unknown: Bool[Array, " B *S"] | None  # the places to draw; None: all
    masked_at_start: Bool[Array, " B *S"] | None  # of a sampler that reveals
    rows: int  # of a block
    largest_rise: int  # of a row of the plan: by how many steps it goes back up
    is_watched: bool  # whether rows hand out what they saw


class Prepared(NamedTuple):
    """Holds what `chain.run_plan` takes to run a sampler, and what that is run on."""

    problem: Problem
    plan: tuple[Row, ...]
    x: Int[Array, " B *S"]  # where it starts, known places among it
    memory: dict[str, Array]  # what the slots remember there
    take_row: Callable[[State, Row], tuple[State, Seen | None]]
    calls_of_row: int  # of the network


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
    if sampler.reveal is None:
        of_block = _repeat_rows(sampler.transition.plan(process), sampler.passes)
    else:
        rows = sampler.reveal.num_rows(block)
        of_block = tuple(Row(rows - i, process.T, 0) for i in range(rows))
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
    if num_places == 0 and (sampler.reveal is not None or sampler.block is not None):
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
            f"the plan begins at t = {plan[0].t}, but T = {process.T}: begin at T, or pass x_t to run_sampler"
        )


def check_plan(plan: Sequence[Row], sampler: Sampler, process: Process, shape: tuple[int, ...]) -> None:
    """Raises ValueError for a plan that a sampler cannot take of examples of shape *S."""
    if not plan or plan[-1].s != 0:
        end = "has no rows" if not plan else f"ends at s = {plan[-1].s}"
        raise ValueError(f"the plan {end}: its last row must go to 0, as Row(1, t, 0)")
    if [row.number for row in plan] != list(range(len(plan), 0, -1)):
        raise ValueError(f"the rows of the plan must be numbered {len(plan)}, .., 1, by how many are left")
    _check_blocks(plan, sampler, shape)
    if sampler.reveal is not None:
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
        elif row.s <= row.t and not sampler.transition.takes_long_steps and row.s != row.t - 1:
            raise ValueError(
                f"row {row.number} goes from {row.t} to {row.s}, but {type(sampler.transition).__name__} "
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


@declared(xT=CATEGORIES, noise=NOISE, x0=CATEGORIES)
def run_sampler(
    sampler: Sampler,
    denoise: Denoise,
    process: Process,
    xT: Int[Array, " B *S"],
    noise: Streams,
    record: Sequence[int] = (),
    belief: Belief = "d3pm",
    x0: Int[Array, " B *S"] | None = None,
    known: Bool[Array, " B *S"] | None = None,
    plan: Plan | None = None,
) -> Chain:
    """Runs a sampler from x_T to x_0, noise given.

    Args:
        sampler: its slots.
        denoise: the network, (x, process.time[t]) -> logits of x_0.
        process: the forward process.
        xT: where to start.
        noise: (row, stream) -> uniforms [B, *S]: see `sampling.noise`.
        record: the numbers of rows left whose x to return; of a sampler that takes all steps these are t.
        belief: what the logits of x_0 are (see `beliefs`).
        x0: what known places hold; any category elsewhere.
        known: which places stay as they are in x0; none by default. Of a sampler with `noises_known` they are
            noised with the noise of each row, those of x_T with that of row 0.
        plan: the rows to take, of `make_plan` by default.

    Returns:
        A `Chain`. Look at `failed_at` before using it.

    Raises:
        ValueError: a slot is not for this process, or a plan not for the sampler.
    """
    return _run(sampler, denoise, process, xT, noise, record, belief, x0, known, plan, is_watched=False)[0]


@declared(xT=CATEGORIES, noise=NOISE, x0=CATEGORIES)
def watch_sampler(
    sampler: Sampler,
    denoise: Denoise,
    process: Process,
    xT: Int[Array, " B *S"],
    noise: Streams,
    record: Sequence[int] = (),
    belief: Belief = "d3pm",
    x0: Int[Array, " B *S"] | None = None,
    known: Bool[Array, " B *S"] | None = None,
    plan: Plan | None = None,
) -> tuple[Chain, Seen]:
    """Runs a sampler as `run_sampler` does, and returns what every row saw too: for pictures and study.

    Args:
        sampler, denoise, process, xT, noise, record, belief, x0, known, plan: as for `run_sampler`.

    Returns:
        The `Chain`, and `Seen` with an axis of all N rows in front: N times the memory of the logits.

    Raises:
        ValueError: as for `run_sampler`.
    """
    return _run(sampler, denoise, process, xT, noise, record, belief, x0, known, plan, is_watched=True)


@declared(shape=at_least(0, 2**31 - 1), start=INDEX, x0=CATEGORIES)
def sample_by(
    key: Key[Array, ""],
    sampler: Sampler,
    denoise: Denoise,
    process: Process,
    shape: tuple[int, ...],
    start: int | Int[Array, ""] = 0,
    record: Sequence[int] = (),
    belief: Belief = "d3pm",
    x0: Int[Array, " B *S"] | None = None,
    known: Bool[Array, " B *S"] | None = None,
    plan: Plan | None = None,
) -> Chain:
    """Draws examples start, start + 1, ... of the endless sample that a key stands for, by a sampler.

    Args:
        key: a typed key.
        sampler: its slots, or one of `sampling.named`.
        denoise: the network, (x, process.time[t]) -> logits of x_0.
        process: the forward process.
        shape: (B, *S), how many examples of which shape.
        start: the number of the first example; example i is the same whatever the batch it is drawn in.
        record, belief, x0, known, plan: as for `run_sampler`.

    Returns:
        A `Chain`. Look at `failed_at` before using it.
    """
    if not shape:
        raise ValueError("shape = (): it must be (B, *S), the number of examples and the shape of each")
    if plan is not None:
        plan = read_plan(plan)
        check_start(plan, process)
    noise = per_example(key, start + jnp.arange(shape[0], dtype=jnp.int32), shape[1:])
    xT = process.draw_prior(noise(jnp.asarray(PRIOR_STEP, jnp.int32)))
    return run_sampler(sampler, denoise, process, xT, noise, record, belief, x0, known, plan)


def _run(
    sampler: Sampler,
    denoise: Callable[[Array, Array], Array],
    process: Process,
    xT: Array,
    noise: Callable[[Array, int | Array], Array],
    record: Sequence[int],
    belief: Belief,
    x0: Array | None,
    known: Array | None,
    plan: Plan | None,
    is_watched: bool,
) -> tuple[Chain, Any]:
    """Runs a sampler; returns None for what the rows saw unless it is watched."""
    prepared = prepare(sampler, denoise, process, xT, noise, belief, x0, known, plan, is_watched)
    chain, seen = run_plan(prepared.take_row, prepared.plan, prepared.x, prepared.memory, record)
    return count_calls(chain, prepared), seen


def prepare(
    sampler: Sampler,
    denoise: Callable[[Array, Array], Array],
    process: Process,
    xT: Array,
    noise: Callable[[Array, int | Array], Array],
    belief: Belief,
    x0: Array | None,
    known: Array | None,
    plan: Plan | None,
    is_watched: bool,
) -> Prepared:
    """Makes the step of the loop that runs a sampler, and what it starts from; arguments as `watch_sampler`.

    Raises:
        ValueError: a slot is not for this process, or a plan not for the sampler.
    """
    if (x0 is None) != (known is None):
        raise ValueError("x0 and known belong together: pass both, or none")
    sampler.check(process)
    guided = None
    calls_of_row = 1
    if isinstance(denoise, Guided):
        calls_of_row = denoise.calls
        if denoise.changes_law:
            sampler.check_guided(type(denoise))
            guided = denoise
    if plan is None:
        plan = make_plan(sampler, process, xT.shape[1:])
    else:
        plan = read_plan(plan)
        check_plan(plan, sampler, process, xT.shape[1:])

    def beliefs(x: Array, time: Array) -> list[Array]:
        if isinstance(denoise, Guided):
            return denoise.beliefs(x, time)
        return [call_network(denoise, x, time)]

    @marked
    def draw_noise(row: Array, stream: int | Array) -> Float[Array, " B *S"]:
        return noise(row, stream)

    unknown = None
    if x0 is not None and known is not None:
        unknown = ~known
        held = x0
        if sampler.noises_known:
            first_noise = draw_noise(jnp.asarray(PRIOR_STEP, jnp.int32), DRAW)
            held = process.draw_q(x0, jnp.asarray(plan[0].t, jnp.int32), first_noise)
        xT = jnp.where(known, held, xT)
    masked_at_start = None
    if sampler.reveal is not None:
        masked_at_start = _is_masked(process, xT, unknown)
    rows = len(plan) // len({row.block for row in plan})
    rise = max(row.s - row.t for row in plan)
    problem = Problem(
        sampler,
        beliefs,
        guided,
        process,
        draw_noise,
        belief,
        x0,
        unknown,
        masked_at_start,
        rows,
        rise,
        is_watched,
    )

    def take_row(state: State, row: Row) -> tuple[State, Seen | None]:
        if sampler.reveal is not None:
            return _reveal(problem, state, row)
        if rise <= 0:
            return _move(problem, state, row)
        return lax.cond(
            row.s > row.t,
            lambda: _noise_again(problem, state, row),
            lambda: _move(problem, state, row),
        )

    return Prepared(problem, plan, xT, _start_memory(problem, xT), take_row, calls_of_row)


def count_calls(chain: Chain, prepared: Prepared) -> Chain:
    """Returns a chain with its calls of the network: those of rows that reveal have been counted by these."""
    sampler = prepared.problem.sampler
    if sampler.reveal is None:
        calls = sum(row.s <= row.t for row in prepared.plan)
        if sampler.corrector is not None:
            calls += sampler.corrector.moves * sum(0 < row.s <= row.t for row in prepared.plan)
        chain = with_calls(chain, calls)
    return chain._replace(calls=chain.calls * prepared.calls_of_row)


def _start_memory(problem: Problem, x: Array) -> dict[str, Array]:
    """Returns what the slots remember before the first row."""
    dtype = problem.process.log_prior().dtype

    def noise(stream: int) -> Array:
        return problem.noise(jnp.asarray(PRIOR_STEP, jnp.int32), stream)

    if isinstance(problem.sampler.reveal, FirstHitting):
        return {"masked_share": jnp.ones(x.shape[:1], dtype)}
    return problem.sampler.transition.start(x, noise, dtype)


def _move(problem: Problem, state: State, row: Row) -> tuple[State, Seen | None]:
    """Moves all places of a row's block by the transition, and then by the corrector."""
    sampler = problem.sampler
    process = problem.process
    x = state.x
    t = jnp.broadcast_to(row.t, x.shape[:1])  # [B]
    s = jnp.broadcast_to(row.s, x.shape[:1])
    beliefs = problem.beliefs(x, process.time[t])  # [B, *S, K] each

    def noise(stream: int) -> Array:
        return problem.noise(row.number, stream)

    may_change = _may_change(problem, x, row)

    def view_of(logits: Array) -> View:
        shaped, belief = shape_logits(problem, logits, x, t)
        return View(process, shaped, belief, x, t, s, noise, state.memory, may_change)

    view = view_of(beliefs[0])
    if problem.guided is None:
        drawn, memory = sampler.transition.draw(view)
    else:
        log_laws = [sampler.transition.law(view_of(logits)) for logits in beliefs]
        law = problem.guided.guide(log_laws, process, x, t, s)
        drawn = inverse_cdf.categorical(law, noise(DRAW))
        memory = sampler.transition.remember(view, drawn)
    state = state._replace(x=_hold_known(problem, may_change, drawn, x, row), memory=memory)
    if sampler.corrector is not None:
        state = _correct(problem, state, row, may_change)
    return state, _see(problem, x, beliefs[0], state.x)


def _see(problem: Problem, x: Array, logits: Array | None, after: Array) -> Seen | None:
    """Returns what a row saw, with logits 0 where it called no network; None unless it is watched."""
    if not problem.is_watched:
        return None
    if logits is None:
        time = problem.process.time[jnp.ones(len(x), jnp.int32)]
        network = jax.eval_shape(problem.beliefs, x, time)[0]
        logits = jnp.zeros(network.shape, network.dtype)
    return Seen(x, logits, after != x)


def _correct(problem: Problem, state: State, row: Row, may_change: Array | None) -> State:
    """Moves by the corrector at s; at s = 0, where the data is, there is nothing to correct."""
    corrector = problem.sampler.corrector
    process = problem.process
    assert corrector is not None
    if may_change is None:
        may_change = jnp.ones(state.x.shape, bool)

    def call(x: Array, t: Array) -> Array:
        logits, belief = shape_logits(problem, problem.beliefs(x, process.time[t])[0], x, t)
        return laws.leave_one_out_of(process, logits, x, t, belief)

    def move() -> State:
        s = jnp.broadcast_to(row.s, state.x.shape[:1])
        x = corrector.correct(
            call,
            process,
            problem.sampler.transition,
            state.x,
            s,
            may_change,
            lambda stream: problem.noise(row.number, stream),
        )
        return state._replace(x=x)

    return lax.cond(row.s > 0, move, lambda: state)


def _reveal(problem: Problem, state: State, row: Row) -> tuple[State, Seen | None]:
    """Reveals masked places of a row's block with x_0 of the denoiser; a finished example does nothing."""
    may_change = _may_change(problem, state.x, row)
    masked = _is_masked(problem.process, state.x, may_change)
    is_active = jnp.any(_in_line(masked), axis=-1)  # [B]

    def reveal() -> tuple[State, Seen | None]:
        x, memory, logits = _reveal_some(problem, state, row, masked, may_change)
        after = State(x, memory, state.calls + is_active.astype(state.calls.dtype), state.program_calls + 1)
        return after, _see(problem, state.x, logits, x)

    return lax.cond(jnp.any(is_active), reveal, lambda: (state, _see(problem, state.x, None, state.x)))


def _reveal_some(
    problem: Problem, state: State, row: Row, masked: Array, may_change: Array | None
) -> tuple[Array, dict[str, Array], Array]:
    """Returns x after a row, what is remembered then, and what the network said."""
    reveal = problem.sampler.reveal
    process = problem.process
    assert reveal is not None
    x = state.x
    in_line = _in_line(masked)  # [B, L]

    def noise(stream: int) -> Array:
        return problem.noise(row.number, stream)

    memory = state.memory
    if isinstance(reveal, FirstHitting):
        # An example has one time: the noise of its first place serves, and that of the others is left.
        u = _in_line(noise(PHASE))[:, 0]
        left = jnp.sum(_in_line(_is_masked(process, x, problem.unknown)), axis=-1, dtype=jnp.int32)
        before = memory["masked_share"]
        after = places.next_hitting(before, left, u.astype(before.dtype))
        # The time of an example that is done with its block stands still, whoever is drawn beside it.
        memory = memory | {"masked_share": jnp.where(jnp.any(in_line, axis=-1), after, before)}
    t = _smallest_step(process, _share_of_masks(problem, x))
    time = process.time[t]
    if isinstance(reveal, FirstHitting) and reveal.schedule is not None:
        time = places.time_of(reveal.schedule, memory["masked_share"])
    logits = problem.beliefs(x, time)[0]
    shaped, belief = shape_logits(problem, logits, x, t)
    log_p = laws.denoiser_of(process, shaped, x, t, belief)  # [B, *S, K]
    drawn = inverse_cdf.categorical(log_p, noise(DRAW))

    masked_at_start = problem.masked_at_start
    assert masked_at_start is not None
    if may_change is not None:
        masked_at_start &= may_change
    candidates = Candidates(
        log_p=log_p.reshape(*in_line.shape, process.K),
        drawn=_in_line(drawn),
        masked=in_line,
        places=jnp.sum(_in_line(masked_at_start), axis=-1, dtype=jnp.int32),
        uniforms=lambda: _in_line(noise(ORDER)),
        i=problem.rows - (row.number - 1) % problem.rows,
        rows=problem.rows,
    )
    # A place that nothing can be drawn for is revealed at once, as -1, so that the chain says that it failed.
    is_revealed = reveal.choose(candidates).reshape(x.shape) | (masked & (drawn < 0))
    return jnp.where(is_revealed, drawn, x), memory, logits


def _is_masked(process: Process, x: Array, counts: Array | None) -> Array:
    """Tells which places are masked, of those that count, [B, *S]; None: all count."""
    masked = x == laws.mask_of(process)
    if counts is None:
        return masked
    return masked & counts


def _in_line(x: Array) -> Array:
    """Returns the places of each example in one line, [B, L]."""
    return x.reshape(len(x), math.prod(x.shape[1:]))


def _share_of_masks(problem: Problem, x: Array) -> Array:
    """Returns the share of masks among the unknown places of each example, [B]."""
    masked = jnp.sum(_in_line(_is_masked(problem.process, x, problem.unknown)), axis=-1, dtype=jnp.int32)
    total = jnp.asarray(math.prod(x.shape[1:]), jnp.int32)
    if problem.unknown is not None:
        total = jnp.sum(_in_line(problem.unknown), axis=-1, dtype=jnp.int32)
    dtype = problem.process.log_prior().dtype
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


def _noise_again(problem: Problem, state: State, row: Row) -> tuple[State, Seen | None]:
    """Noises x from t up to s; no network is called."""
    x = state.x
    t = jnp.broadcast_to(row.t, x.shape[:1])
    s = jnp.broadcast_to(row.s, x.shape[:1])
    u = problem.noise(row.number, DRAW)
    # Where a plan rises by more than a step anywhere, all of its rises are drawn by the law of `Mixing`: the
    # two give the same law, but may give another category for the same u.
    if problem.largest_rise == 1:
        drawn = problem.process.draw_step(x, s, u)
    else:
        drawn = inverse_cdf.categorical(laws.renoise_logits(problem.process, x, t, s), u)
    # What failed stays so: noise could turn it into a category.
    drawn = jnp.where(x < 0, x, drawn)
    after = _hold_known(problem, _may_change(problem, x, row), drawn, x, row)
    return state._replace(x=after), _see(problem, x, None, after)


def shape_logits(problem: Problem, logits: Array, x: Array, t: Array) -> tuple[Array, Belief]:
    """Returns shaped logits, and what they are: leave-one-out logits once they are shaped."""
    sampler = problem.sampler
    process = problem.process
    belief = problem.belief
    mask = laws.mask_of(process)
    if sampler.needs_extra_mask and mask is not None:
        # No x_0 is the mask, whatever the network says of it: what is revealed must not stay hidden.
        is_mask = is_category(jnp.broadcast_to(mask, x.shape), process.K)
        logits = jnp.where(is_mask, -jnp.inf, logits)
    if sampler.shaping.changes_nothing(process.K):
        return logits, belief
    if belief == "denoiser":
        logits = to_leave_one_out(process, logits, x, t)
        belief = "leave_one_out"

    # What x_t rules out takes no part. Else top-k and top-p might keep nothing but that: of a place that is
    # no longer masked the others may think little, and it must stay what it is.
    is_possible = process.log_q_x0(x, t) > -jnp.inf  # [B, *S, K]
    possible = jnp.where(is_possible, logits, -jnp.inf)
    shaped = sampler.shaping.apply(possible)
    # For the same reason a place stays what it is that holds a forbidden category.
    is_empty = jnp.max(shaped, axis=-1, keepdims=True) == -jnp.inf
    return jnp.where(is_empty, possible.astype(shaped.dtype), shaped), belief


def _may_change(problem: Problem, x: Array, row: Row) -> Array | None:
    """Tells which places a row may change: unknown ones, of its block; None: all."""
    if problem.sampler.block is None:
        return problem.unknown
    places_in_line = jnp.arange(math.prod(x.shape[1:]), dtype=jnp.int32) // problem.sampler.block
    in_block = jnp.broadcast_to((places_in_line == row.block).reshape(1, *x.shape[1:]), x.shape)
    if problem.unknown is None:
        return in_block
    return in_block & problem.unknown


def _hold_known(problem: Problem, may_change: Array | None, drawn: Array, x: Array, row: Row) -> Array:
    """Returns what a row drew where it may change x; else x, or x_0 noised to where the row goes."""
    if may_change is None:
        return drawn
    held = x
    if problem.sampler.noises_known and problem.x0 is not None:
        s = jnp.broadcast_to(row.s, x.shape[:1])
        # What the row drew at a known place is left, so that its noise has not been used yet.
        held = problem.process.draw_q(problem.x0, s, problem.noise(row.number, DRAW))
    return jnp.where(may_change, drawn, held)
