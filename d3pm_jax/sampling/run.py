"""Runs samplers: `sample` with a key, `run` with the noise given.

    chain = sampling.sample(key, denoiser, shape=(16, 64))
    chain = sampling.sample(key, denoiser, (16, 64), sampling.named.maskgit(), known=Known(x0, mask))
    chain = sampling.sample(key, denoiser, (16, 64), start=PartWay(x0, strength=0.5))

A row of the plan is what a step takes: see `steps`.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any, Generic, NamedTuple, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, Key

from d3pm_jax.checks import (
    CATEGORIES,
    INDEX,
    NOISE,
    Epsilon,
    Natural,
    at_least,
    call_by_signature,
    check_value,
    declared,
    marked_as,
)
from d3pm_jax.numerics import inverse_cdf
from d3pm_jax.projection import all_logits, require_array
from d3pm_jax.sampling import fields, laws, network
from d3pm_jax.sampling.chain import EVERY_BLOCK, Chain, Row, State, run_plan, with_calls
from d3pm_jax.sampling.denoiser import Answer, Denoiser
from d3pm_jax.sampling.noise import DRAW, Streams, per_example
from d3pm_jax.sampling.plans import (
    Plan,
    check_plan,
    check_start,
    find_level,
    make_plan,
    read_plan,
    rows_of_edit,
)
from d3pm_jax.sampling.sampler import Sampler
from d3pm_jax.sampling.steps import Known, LawStep, Memory, Step, Taken, View

PRIOR_STEP = 0  # the row whose noise draws x_T: no row of a plan has it


class PartWay(NamedTuple):
    """Says that chains start from noised examples, and not from noise: edits (2108.01073)."""

    x0: Int[Array | np.ndarray, " B *S"]  # the examples
    strength: Epsilon
    """in (0, 1]: how much of the process they go through, at least one step; 1 leaves next to nothing"""


class Seen(NamedTuple):
    """Holds what a row saw."""

    x: Int[Array, " B *S"]  # before the row
    logits: Float[Array, " B *S K"]  # what the network said, before it was shaped; 0 where it was not asked
    changed: Bool[Array, " B *S"]  # which places are another category after it


@declared(shape=at_least(0, 2**31 - 1), first=INDEX, known=CATEGORIES, start=CATEGORIES)
def sample(
    key: Key[Array, ""],
    denoiser: Denoiser,
    shape: tuple[int, ...],
    sampler: Sampler = Sampler(),
    *,
    first: int | Int[Array, ""] = 0,
    known: Known | None = None,
    start: PartWay | None = None,
    plan: Plan | None = None,
    record: Sequence[int] = (),
) -> Chain:
    """Draws examples first, first + 1, ... of the endless sample that a key stands for.

    Under `jit`, pass the parameters and the process as arguments rather than closing over them.

    Samples hold whatever category the network predicts. A mask that the data never has is one of them, unless
    `heads.forbid` takes it out of the logits, or the sampler, if it reveals places, masks them again or draws
    blocks:

        def network(xt, time):
            return heads.forbid(my_network(xt, time), mask_id=K - 1)

        process = processes.absorbing(schedules.reciprocal(T), K, mask_id=K - 1)
        denoiser = sampling.Denoiser(process, network)
        x0 = sampling.sample(key, denoiser, shape=(16, 64)).x0  # int32 [16, 64], in 0..K - 2

    Args:
        key: a typed key.
        denoiser: the process, and the network with what its logits are.
        shape: (B, *S), how many examples of which shape.
        sampler: what each row of the chain does, or one of `sampling.named`; ancestral by default (D3PM
            section 3).
        first: the number of the first example; example i is the same whatever the batch it is drawn in.
        known: positions that stay as they are. They are exact for an absorbing process with an extra mask and
            a network that sees no time; of others docs/control.md says how far off they are.
        plan: the rows to take, of `make_plan` by default.
        record: the numbers of rows left whose x to return, as in `run`; of all steps these are t.
        start: begin with these examples, noised, in the place of noise; the rows of the plan from there on
            are taken.

    Returns:
        A `Chain`. Look at `failed_at` before using it.

    Raises:
        ValueError: the sampler is not for this process, or a plan not for the sampler; a strength is outside
            (0, 1], or the sampler begins with all places masked.
    """
    if not shape:
        raise ValueError("shape = (): it must be (B, *S), the number of examples and the shape of each")
    check_examples("known", known, shape)
    check_examples("start", start, shape)
    process = denoiser.process
    if plan is not None:
        plan = read_plan(plan)
        check_start(plan, process)
    noise = per_example(key, first + jnp.arange(shape[0], dtype=jnp.int32), shape[1:])
    u = noise(jnp.asarray(PRIOR_STEP, jnp.int32))
    if start is None:
        x = process.draw_prior(u)
    else:
        whole_plan = make_plan(sampler, process, shape[1:]) if plan is None else plan
        plan = rows_of_edit(sampler, whole_plan, start.strength, process.T)
        # Rows that go by what is masked begin at T, each of them.
        level = find_level(start.strength, process.T) if sampler.step.goes_by_masks else plan[0].t
        x = process.draw_q(jnp.asarray(start.x0), jnp.asarray(level, jnp.int32), u)
    return run(denoiser, x, noise, sampler, known=known, plan=plan, record=record)


def check_examples(name: str, examples: Known | PartWay | None, shape: tuple[int, ...]) -> None:
    """Raises ValueError for examples of another shape than those that are drawn."""
    if examples is not None and examples.x0.shape != shape:
        raise ValueError(
            f"{name}.x0 has shape {examples.x0.shape}, but shape = {shape}: pass one of each example"
        )


@declared(x=CATEGORIES, noise=NOISE, known=CATEGORIES)
def run(
    denoiser: Denoiser,
    x: Int[Array, " B *S"],
    noise: Streams,
    sampler: Sampler = Sampler(),
    *,
    known: Known | None = None,
    plan: Plan | None = None,
    record: Sequence[int] = (),
    watch: Callable[[Seen], Any] | None = None,
) -> Chain:
    """Runs a sampler from x_T to x_0, noise given.

    Args:
        denoiser: the process, and the network with what its logits are.
        x: where to start.
        noise: (row, stream) -> uniforms [B, *S]: see `sampling.noise`.
        sampler: its slots.
        known: places that stay as they are; none by default. Of a sampler with `noises_known` they are noised
            with the noise of each row, those of x_T with that of row 0.
        plan: the rows to take, of `make_plan` by default.
        record: the numbers of rows left whose x to return, the number of all rows for where it starts and 0
            for its end; of a sampler that takes all steps these are t.
        watch: what to keep of what each row saw, for pictures and for study: all of it takes N times the
            memory of the logits for N rows.

    Returns:
        A `Chain`. Look at `failed_at` before using it.

    Raises:
        ValueError: the sampler is not for this process, or a plan not for the sampler.
    """
    prepared = prepare(denoiser, x, noise, sampler, known, plan)
    step = prepared.step
    if watch is not None:
        step = Watched(step, watch)
    return run_rows(prepared, step, record)


class PreparedChain(NamedTuple):
    """Holds what a sampler is run on, which stays the same from row to row, and where it starts."""

    denoiser: Denoiser
    sampler: Sampler
    step: Step  # of the sampler, guided, and on rows that go back up noise
    plan: tuple[Row, ...]
    x: Int[Array, " B *S"]  # where it starts, known places among it
    noise: Callable[[Array, int | Array], Array]
    known: Known | None

    def view(self, x: Array, memory: Memory, row: Row) -> View:
        """Returns what a step sees of a row."""
        process = self.denoiser.process
        unknown = None if self.known is None else ~jnp.asarray(self.known.mask)
        may_change = self._in_block(row)
        if may_change is None:
            may_change = unknown
        elif unknown is not None:
            may_change = may_change & unknown

        def ask(x: Array, t: Array, time: Array | None = None) -> list[Answer]:
            network_time = process.time[t] if time is None else time
            answers = self.denoiser.ask_each(x, t, network_time)
            user = self.sampler.user_of_all_logits
            if user:
                for answer in answers:
                    require_array(answer.said, user)
            return [answer.shaped_by(self.sampler.shape) for answer in answers]

        def hold(drawn: Array) -> Array:
            if may_change is None:
                return drawn
            held = x
            if self.sampler.noises_known and self.known is not None:
                # What the row drew at a known place is left, so that its noise has not been used yet.
                held = process.draw_q(jnp.asarray(self.known.x0), view.s, view.noise(DRAW))
            return jnp.where(may_change, drawn, held)

        view = View(
            process=process,
            x=x,
            t=jnp.broadcast_to(row.t, x.shape[:1]),
            s=jnp.broadcast_to(row.s, x.shape[:1]),
            row=row,
            rows=len(self.plan) // len({row.block for row in self.plan}),
            memory=memory,
            noise=lambda stream: self.noise(row.number, stream),
            ask_each=ask,
            see=lambda answer: None,
            hold=hold,
            may_change=may_change,
            unknown=unknown,
        )
        return view

    def _in_block(self, row: Row) -> Array | None:
        """Tells which places are in the block of a row; None: all."""
        block = self.sampler.block
        if block is None:
            return None
        shape = self.x.shape
        places = jnp.arange(math.prod(shape[1:]), dtype=jnp.int32) // block
        return jnp.broadcast_to((places == row.block).reshape(1, *shape[1:]), shape)


def prepare(
    denoiser: Denoiser,
    x: Array,
    noise: Callable[[Array, int | Array], Array],
    sampler: Sampler,
    known: Known | None,
    plan: Plan | None,
) -> PreparedChain:
    """Makes the step of the loop that runs a sampler, and what it starts from.

    Raises:
        ValueError: the sampler is not for this process, or a plan not for the sampler.
    """
    process = denoiser.process
    sampler.check(process)
    denoiser.check_sampler(sampler)
    step = sampler.step
    if denoiser.guided is not None:
        step = GuidedStep(sampler.law_step(type(denoiser.guided)), denoiser.guided)
    rows = make_plan(sampler, process, x.shape[1:]) if plan is None else read_plan(plan)
    check_plan(rows, sampler, process, x.shape[1:])
    draw_noise = marked_as(Float[Array, " B *S"], noise)
    if known is not None:
        held = known.x0
        if sampler.noises_known:
            first_noise = draw_noise(jnp.asarray(PRIOR_STEP, jnp.int32), DRAW)
            held = process.draw_q(jnp.asarray(known.x0), jnp.asarray(rows[0].t, jnp.int32), first_noise)
        x = jnp.where(known.mask, held, x)
    if any(row.s > row.t for row in rows):
        step = Rising(step, rows)
    return PreparedChain(denoiser, sampler, step, rows, x, draw_noise, known)


def run_rows(prepared: PreparedChain, step: Step, record: Sequence[int] = ()) -> Chain:
    """Takes the rows of a plan by a step; what they saw is beside each other in `Chain.seen`."""
    calls_of_plan = check_value(
        f"{type(step).__name__}.count_calls", step.count_calls(prepared.plan), Natural | None
    )

    def take_row(state: State, row: Row) -> tuple[State, Any]:
        taken = with_own_calls(step, calls_of_plan, step.take(prepared.view(state.x, state.memory, row)))
        # A step of the user's own may draw what is no category, which then fails.
        is_category = (taken.x >= 0) & (taken.x < prepared.denoiser.K)
        state = state._replace(x=jnp.where(is_category, taken.x, -1), memory=taken.memory)
        if taken.calls is not None:
            program_calls = taken.program_calls
            if program_calls is None:
                program_calls = jnp.max(taken.calls, initial=0)
            calls = state.calls + taken.calls.astype(jnp.int32)
            state = state._replace(calls=calls, program_calls=state.program_calls + program_calls)
        return state, taken.seen

    first_row = Row(jnp.asarray(PRIOR_STEP, jnp.int32), prepared.plan[0].t, prepared.plan[0].t, EVERY_BLOCK)
    view = prepared.view(prepared.x, {}, first_row)
    memory = fields.to_arrays(
        f"{type(step).__name__}.start", step.start(view._replace(may_change=view.unknown))
    )
    chain = run_plan(take_row, prepared.plan, prepared.x, memory, record)
    if calls_of_plan is not None:
        # Where all examples take all calls, they are counted outside of the loop: in it they would cost a
        # kernel.
        chain = with_calls(chain, calls_of_plan)
    return chain._replace(calls=chain.calls * prepared.denoiser.calls)


def with_own_calls(step: Step, calls: int | None, taken: Taken) -> Taken:
    """Returns what a step took, with the calls of the row if they are not counted for all rows at once.

    Raises:
        TypeError: they are not, and the row has none.
    """
    if calls is not None:
        return taken._replace(calls=None)
    fields.check_returned(step, "draw(view).calls", taken.calls, jnp.integer, taken.x.shape[:1])
    if taken.program_calls is not None:
        fields.check_returned(step, "draw(view).program_calls", taken.program_calls, jnp.integer, ())
    return taken


# ---- Steps around a step ----


AnyStep = TypeVar("AnyStep", bound=Step)


class AroundStep(Step, Generic[AnyStep]):
    """Takes a row by another step, and changes something about it."""

    def __init__(self, step: AnyStep) -> None:
        """Keeps the step."""
        self.step = step

    def start(self, view: View) -> Memory:
        return self.step.start(view)

    def draw(self, view: View) -> Taken:
        return self.step.draw(view)

    def count_calls(self, plan: Sequence[Row]) -> int | None:
        return self.step.count_calls(plan)


class GuidedStep(AroundStep[LawStep]):
    """Draws from the law that guidance makes of those of a step, one for each answer."""

    def __init__(self, step: LawStep, guided: network.Guided) -> None:
        """Keeps the step, and what guides it."""
        super().__init__(step)
        self.guided = guided

    def draw(self, view: View) -> Taken:
        answers = view.ask_each(view.x, view.t)
        log_laws = [self.step.checked_law(view, answer) for answer in answers]
        guided = self.guided
        if len(log_laws) != guided.num_laws:
            raise ValueError(
                f"{type(guided).__name__}.beliefs returned {len(log_laws)} logits, and num_laws is "
                f"{guided.num_laws}: set num_laws = {len(log_laws)}"
            )
        law = guided.guide(log_laws, view.process, view.x, view.t, view.s)
        fields.check_returned(guided, "guide", law, jnp.floating, (*view.x.shape, view.process.K))
        x = inverse_cdf.categorical(law, view.noise(DRAW))
        return Taken(x, self.step.remember(view, answers[0], x), view.see(answers[0]))


class Rising(AroundStep[Step]):
    """Noises x from t up to s in rows that go back up, and takes the others by a step."""

    def __init__(self, step: Step, plan: Sequence[Row]) -> None:
        """Keeps the step, its calls, and by how many steps a row goes up at most."""
        super().__init__(step)
        self.calls_of_plan = step.count_calls(plan)
        self.largest_rise = max(row.s - row.t for row in plan)

    def draw(self, view: View) -> Taken:
        return jax.lax.cond(
            view.row.s > view.row.t,
            lambda: self._rise(view),
            lambda: with_own_calls(self.step, self.calls_of_plan, self.step.checked_draw(view)),
        )

    def _rise(self, view: View) -> Taken:
        """Noises x; no network is called."""
        x = view.x
        u = view.noise(DRAW)
        # Where a plan rises by more than a step anywhere, all of its rises are drawn by the law of `Mixing`:
        # the two give the same law, but may give another category for the same u.
        if self.largest_rise == 1:
            drawn = view.process.draw_step(x, view.s, u)
        else:
            drawn = inverse_cdf.categorical(laws.renoise_logits(view.process, x, view.t, view.s), u)
        calls = None if self.calls_of_plan is not None else jnp.zeros(len(x), jnp.int32)
        # What failed stays so: noise could turn it into a category.
        return Taken(jnp.where(x < 0, x, drawn), view.memory, view.see(None), calls)


class Watched(AroundStep[Step]):
    """Hands out what a user keeps of what a row saw."""

    def __init__(self, step: Step, watch: Callable[[Seen], Any]) -> None:
        """Keeps the step, and what is called with what it saw."""
        super().__init__(step)
        self.watch = watch

    def take(self, view: View) -> Taken:
        taken = self.step.take(view._replace(see=see_logits(view)))
        watched = call_by_signature("watch", "seen", self.watch, Seen(view.x, taken.seen, taken.x != view.x))
        return taken._replace(seen=fields.to_arrays("watch", watched))


def see_logits(view: View, read: Callable[[Any], Array] = all_logits) -> Callable[[Answer | None], Array]:
    """Makes what `View.see` is to hand out the logits of the network, 0 where it was not asked.

    Args:
        view: of a row.
        read: makes them of what the network gave.
    """

    def see(answer: Answer | None) -> Array:
        if answer is not None:
            return read(answer.said)
        said = jax.eval_shape(lambda: see(view.ask(view.x, jnp.ones(len(view.x), jnp.int32))))
        return jnp.zeros(said.shape, said.dtype)

    return see
