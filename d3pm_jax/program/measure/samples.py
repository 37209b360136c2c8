"""Draws samples of a run in batches by one compiled program, and writes them with their options."""

import contextlib
import dataclasses
import functools
import math
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from d3pm_jax.checks import check_value, describe, shorten_value, values_in_range
from d3pm_jax.config import (
    Count,
    Natural,
    Size,
    check_instance,
    check_number,
    checks_arguments,
    choose_sampler,
)
from d3pm_jax.errors import UserError, as_user_error
from d3pm_jax.files import write_npy
from d3pm_jax.kinds import SHOWN_CHAINS, STATES, Chains, Samples, States
from d3pm_jax.numerics import inverse_cdf
from d3pm_jax.placing import fetch
from d3pm_jax.posteriors import q_posterior, q_sample
from d3pm_jax.processes import Process
from d3pm_jax.program.machine.devices import find_memory, format_bytes
from d3pm_jax.program.measure.record import Format, Record, write_record
from d3pm_jax.program.parts.build import Parts
from d3pm_jax.program.parts.draw import Draw, Inputs, Particles, Select, Settled
from d3pm_jax.program.parts.guidance import Guidance, is_number, read_guidance
from d3pm_jax.program.parts.inputs import read_integers, to_array
from d3pm_jax.program.parts.recipe import Drawing, require
from d3pm_jax.program.storage.names import SAMPLES as SAMPLES_FILE
from d3pm_jax.sampling import (
    PRIOR_STEP,
    SAMPLING,
    Known,
    Sampler,
    Steered,
    chain as sampling_chain,
    choose_best,
    per_example,
)

MANY_BYTES = 1e9  # of which a word is said before they are taken


class Drawn(NamedTuple):
    """Holds samples, states of the chains that led to them, and what they cost."""

    x0: np.ndarray  # int32 [n, *S]
    states: np.ndarray  # int32 [R, n, *S], or of the first samples alone
    calls: np.ndarray  # int32 [n], inputs of the network that each sample would need alone, of all its chains
    program_calls: int  # calls that were made, each of a batch
    candidates: np.ndarray | None = None  # int32 [n, P, *S], the candidates or particles of each sample
    scores: np.ndarray | None = None  # [n, P]
    effective_size: np.ndarray | None = None  # [rows, n] of particles, before each selection, in 1..P


Progress = Callable[[int], Any]  # is called with the number of samples that are done


@checks_arguments
def draw_samples(
    parts: Parts,
    key: jax.Array,
    n: Count,
    draw: Draw = Draw(),
    *,
    batch_size: Count = 128,
    progress: Progress = lambda done: None,
    chains: Natural | None = None,
) -> Drawn:
    """Draws n samples of a run, in batches by one program, which is compiled once for each `Settled`.

    Sample i depends on the key, its number, its label, its condition and its known elements alone, not on n
    or the batch size.

    Args:
        parts: of the run.
        key: a typed key.
        n: how many.
        draw: what is asked for.
        batch_size: how many chains at a time, and at least those of one sample.
        progress: is called with the number of samples that are done, first with 0 when all is compiled.
        chains: return recorded states of so many samples alone, the first ones: of all they take R times the
            memory of the samples.

    Raises:
        UserError: an argument cannot be used, the sampler or the guidance is not for this run, or the network
            gave no distribution.
    """
    _check_key(key)
    drawing = require(parts.recipe.draw, "samples", parts.config)
    settled, arguments = settle(parts, draw, n, batch_size)
    _check_memory(parts, settled)
    _try_shape(parts, settled.shape[1:])
    draw_batch = compile_batch(parts, drawing, settled)
    # Commands with the same seed share no noise, see `sampling.noise`.
    key = jax.random.fold_in(key, SAMPLING)
    num_recorded = n if chains is None else min(chains, n)
    batches = []
    for first in range(0, n, settled.shape[0]):
        inputs = _inputs_of_batch(parts, settled, arguments, key, first)
        # A score of the user's may not be able to compute what it is given.
        with as_user_error() if settled.select is not None else contextlib.nullcontext():
            batch = draw_batch(inputs)
        # The call returns when the program is compiled and started: progress begins there.
        progress(first)
        batches.append(_read_batch(drawing, fetch(batch), settled, first, max(0, num_recorded - first)))
    progress(n)
    return _mark_padding(_join(batches, n), arguments.padding)


def _check_memory(parts: Parts, settled: Settled) -> None:
    """Raises UserError where the logits of a call alone do not fit into memory; says so of many gigabytes.

    What a score selects among is drawn at once, whatever the batch size.
    """
    chains = settled.shape[0] * settled.per_sample
    needed = 4 * chains * math.prod(settled.shape[1:]) * parts.recipe.K  # float32
    available = find_memory(parts.mesh.devices.ravel().tolist())
    words = f"{chains:,} chains are drawn at once, and their logits take {format_bytes(needed)} in each call"
    if available is not None and needed > available:
        raise UserError(
            f"{words}, of {format_bytes(available)} that there are: take a smaller batch, or of candidates "
            f"and particles fewer"
        )
    if settled.select is not None and needed > MANY_BYTES:
        print(f"note: {words}, of which there are {len(settled.rows)}", file=sys.stderr)


def _check_key(key: Any) -> None:
    """Raises UserError for what is not one typed key."""
    is_key = isinstance(key, jax.Array) and jnp.issubdtype(key.dtype, jax.dtypes.prng_key)
    if not is_key or key.shape != ():
        raise UserError(f"key is {describe(key)}, expected one key: pass jax.random.key(0)")


class Arguments(NamedTuple):
    """Holds what samples are told and made from, all of which are arguments of a program."""

    label: int | np.ndarray | None
    condition: np.ndarray | None  # [M, *C]
    known: Known | None  # [*S] or [M, *S]
    start: Any  # x_0 of edits, [*S] or [M, *S], or None
    padding: np.ndarray | None  # [*S] or [M, *S]; padding is known too, so that it is not drawn


def settle(parts: Parts, draw: Draw, n: int = 1, batch_size: int = 128) -> tuple[Settled, Arguments]:
    """Returns what the program of a batch is compiled for, and its arguments for all samples.

    Args:
        parts: of the run.
        draw: what is asked for.
        n: how many samples.
        batch_size: how many chains at a time, and at least those of one sample.

    Raises:
        UserError: a field cannot be used, or the sampler or the guidance is not for this run.
    """
    if not isinstance(draw, Draw):
        raise UserError(f"draw is {describe(draw)}: pass a runs.Draw, as runs.Draw(label=3)")
    with as_user_error():
        shape = check_value("shape", draw.shape, tuple[Size, ...] | None) or parts.description.shape
        record = check_value("record", draw.record, tuple[Natural, ...])
    draw = dataclasses.replace(draw, record=record)
    if draw.where is not None:
        if draw.known is not None:
            raise UserError("known and where both say which elements samples have: pass one of them")
        check_instance("where", draw.where, Mapping, "pass values by columns, as {'sex': 'Male'}")
        draw = dataclasses.replace(draw, known=parts.kind.find_known(draw.where))
    drawing = require(parts.recipe.draw, "samples", parts.config)
    _check_select(draw)
    categories = np.array(parts.recipe.categories)  # of all places, or of each [*S]
    if parts.description.sizes is not None:
        if shape != parts.description.shape:
            raise UserError(
                f"shape = {shape}: places have categories of their own, so samples are of the shape of the "
                f"data, {parts.description.shape}"
            )
        categories = parts.description.place_sizes
    start_x0 = None  # [*S] or [M, *S]
    strength = None
    if draw.start is not None:
        x0, strength = _read_pair("start", draw.start, "(x0, strength), integers and a number in (0, 1]")
        if not (is_number(strength) and 0 < strength <= 1):
            raise UserError(f"strength = {describe(strength)}: it must be a number above 0, and at most 1")
        strength = float(strength)
        everywhere = Known(x0, np.ones((), bool))
        start_x0 = convert_known("start", everywhere, shape, categories).x0
    known = None
    if draw.known is not None:
        pair = _read_pair("known", draw.known, "(x0, mask), integers and booleans of the shape of a sample")
        known = convert_known("known", Known(*pair), shape, categories)
        with as_user_error():
            parts.config.loss.check_known(np.asarray(known.mask))
    padding = None
    if draw.padding is not None:
        _check_padding(parts, draw)
        known = convert_known("padding", Known(np.zeros((), int), draw.padding), shape, categories)
        padding = np.asarray(known.mask)
    sampler = choose_sampler_of(parts, draw.sampler)
    batch_samples = _samples_per_batch(n, draw.select, batch_size, parts.mesh.size)
    asked = Settled(
        (batch_samples, *shape),
        sampler,
        plan=(),
        strength=strength,
        guidance=read_guidance(draw.guidance),
        record=record,
        select=draw.select,
    )
    settled = drawing.settle(draw, asked)
    num_rows = len(settled.rows)
    if any(number > num_rows for number in record):
        raise UserError(
            f"record = {list(record)}: its entries must be in 0..{num_rows}, each a number of rows left, or t"
        )
    condition = parts.convert_condition(draw.condition)
    return settled, Arguments(draw.label, condition, known, start_x0, padding)


def _try_shape(parts: Parts, shape: tuple[int, ...]) -> None:
    """Raises UserError for a network, or its head, that takes no examples of a shape unlike the data's."""
    if parts.recipe.diffusion is None or shape == parts.description.shape:
        return
    condition = None
    if parts.description.condition is not None:
        condition = jnp.zeros((1, *parts.description.condition), parts.description.condition_type)
    network = functools.partial(parts.recipe.diffusion.network, condition=condition)
    x = jax.ShapeDtypeStruct((1, *shape), jnp.int32)
    with as_user_error():
        jax.eval_shape(network, parts.state.params, x, jnp.ones(1, jnp.int32))


def _check_padding(parts: Parts, draw: Draw) -> None:
    """Raises UserError for padding of data that has none, or beside a field that says what a sample is."""
    others = [name for name in ("known", "start", "shape") if getattr(draw, name) is not None]
    if others or not parts.description.padded:
        raise UserError(
            f"padding is for padded data, and goes not with {' or '.join(others) or 'this run'}: leave it out"
        )


def _check_select(draw: Draw) -> None:
    """Raises UserError for what cannot select samples, or not together with what else is asked for."""
    if draw.select is None:
        return
    if not isinstance(draw.select, Select):
        raise UserError(f"select is {describe(draw.select)}: pass runs.BestOf or runs.Particles")
    check_number(f"{draw.select.what}s", draw.select.n, Count)
    if len(draw.record) > 0:
        raise UserError("record: samples that a score selects have no states on the way; leave it out")
    if isinstance(draw.select, Particles) and draw.start is not None:
        raise UserError("start: particles begin from noise; leave it out, or take runs.BestOf(score, n)")


def _read_pair(name: str, value: Any, cure: str) -> tuple[Any, Any]:
    """Returns a pair. Raises UserError for what is none."""
    if not isinstance(value, tuple | list) or len(value) != 2:
        raise UserError(f"{name} is {describe(value)}: pass a pair {cure}")
    return tuple(value)


def _inputs_of_batch(
    parts: Parts, settled: Settled, arguments: Arguments, key: jax.Array, first: int
) -> Inputs:
    """Returns the arguments of the program for the batch whose first sample has this number.

    Raises:
        UserError: a label is none of the run.
    """
    guidance = settled.guidance
    classes = parts.recipe.classes
    guidance_params = None
    if guidance is not None:
        classes = guidance.classes or classes
        guidance_params = guidance.params
    shape = settled.shape[1:]
    index = np.arange(first, first + settled.shape[0])
    of_chains = np.repeat(index, settled.per_sample)
    condition = arguments.condition
    known = arguments.known
    start = arguments.start
    if condition is not None:
        condition = condition[of_chains % len(condition)]
    if known is not None:
        known = Known(*(rows_of_batch(np.asarray(array), index, shape) for array in known))
    if start is not None:
        start = rows_of_batch(start, index, shape)
    weight = None
    if arguments.padding is not None:
        padding = rows_of_batch(arguments.padding, of_chains, shape)
        weight = np.broadcast_to(~padding, (len(of_chains), *shape)).astype(np.float32)
    return Inputs(
        params=parts.params,
        process=parts.recipe.process,
        guidance_params=guidance_params,
        key=key,
        first=np.int32(first),
        label=make_labels(classes, of_chains, arguments.label),
        condition=condition,
        weight=weight,
        known=known,
        start=start,
    )


def compile_batch(parts: Parts, drawing: Drawing, settled: Settled) -> Callable[[Inputs], Any]:
    """Returns the jitted function that draws a batch; it is made once for each `Settled`."""

    # The function must not refer to the parts, in which it is stored: Python frees such a cycle late, so that
    # the arrays of a run would stay in memory after its last use.
    def make() -> Callable[[Inputs], Any]:
        @jax.jit
        @values_in_range()
        def draw_batch(inputs: Inputs) -> Any:
            return drawing.draw_batch(settled, inputs)

        return draw_batch

    return parts.once(("sample", settled), make)


def _samples_per_batch(n: int, select: Select | None, batch_size: int, devices: int) -> int:
    """Returns how many samples are drawn at a time, whose chains divide evenly among the devices."""
    per_sample = 1 if select is None else select.n
    wanted = min(n, max(1, batch_size // per_sample))
    multiple = devices // math.gcd(devices, per_sample)
    return max(1, wanted // multiple) * multiple


def _read_batch(drawing: Drawing, batch: Any, settled: Settled, first: int, num_recorded: int) -> Drawn:
    """Returns what was drawn of a batch.

    Args:
        drawing: of the recipe of the run.
        batch: a `Chain`, or what `sampling.steer` returns of particles, on the host.
        settled: what it was drawn by.
        first: the number of the first sample.
        num_recorded: how many samples have their states returned.

    Raises:
        UserError: it failed, or a score cannot be used.
    """
    select = settled.select
    calls = batch.calls
    program_calls = int(batch.program_calls)
    if isinstance(select, Particles):
        if batch.failed_at != 0:
            _explain_particles(drawing, settled, batch, first)
        no_states = np.zeros((0, 0, *settled.shape[1:]), np.int32)
        effective_size = batch.effective_size
        return Drawn(batch.x0, no_states, calls, program_calls, batch.particles, batch.scores, effective_size)
    if batch.failed_at != 0:
        raise UserError(drawing.explain_failure(int(batch.failed_at), settled))
    if select is None:
        # A view would keep the states of all samples of the batch in memory, so this is a copy.
        return Drawn(batch.x0, batch.states[:, :num_recorded].copy(), calls, program_calls)
    candidates = batch.x0.reshape(settled.shape[0], select.n, *settled.shape[1:])
    with as_user_error():
        best, scores = (np.asarray(x) for x in choose_best(select.score, jnp.asarray(candidates)))
    _refuse_never(scores, first, select.what)
    calls = calls.reshape(-1, select.n).sum(axis=1, dtype=np.int32)
    return Drawn(best, batch.states[:, :0], calls, program_calls, candidates, scores)


def _join(batches: list[Drawn], n: int) -> Drawn:
    """Joins n samples of batches."""

    def join(arrays: tuple[Any, ...], axis: int = 0) -> Any:
        if arrays[0] is None:
            return None
        first_n = (slice(None),) * axis + (slice(n),)
        return np.concatenate(arrays, axis=axis)[first_n]

    x0, states, calls, program_calls, candidates, scores, sizes = zip(*batches, strict=True)
    total = sum(program_calls)
    return Drawn(
        join(x0), join(states, 1), join(calls), total, join(candidates), join(scores), join(sizes, 1)
    )


def _mark_padding(drawn: Drawn, padding: np.ndarray | None) -> Drawn:
    """Returns samples with -1 on their padding, [*S] or [M, *S]."""
    if padding is None:
        return drawn
    rows = rows_of_batch(padding, np.arange(len(drawn.x0)), drawn.x0.shape[1:])
    padding = np.broadcast_to(rows, drawn.x0.shape)
    candidates = drawn.candidates
    if candidates is not None:
        candidates = np.where(padding[:, None], -1, candidates)
    states = np.where(padding[: drawn.states.shape[1]], -1, drawn.states)
    return drawn._replace(x0=np.where(padding, -1, drawn.x0), states=states, candidates=candidates)


def _explain_particles(drawing: Drawing, settled: Settled, batch: Steered, first: int) -> None:
    """Raises UserError for particles that failed, and says what was NaN or could not be."""
    log_weights = np.asarray(batch.log_weights)  # [R, N, P]
    _refuse_never(log_weights[-1], first, Particles.what)
    rows, samples, _ = np.nonzero(np.isnan(log_weights) | (log_weights == np.inf))
    if len(rows) and len(log_weights) - rows[0] == batch.failed_at:
        raise UserError(
            f"score(x) is NaN or infinite for sample {first + samples[0]}, with {batch.failed_at} rows left: "
            f"it must be finite, or -inf"
        )
    raise UserError(drawing.explain_failure(int(batch.failed_at), settled))


def _refuse_never(scores: np.ndarray, first: int, what: str) -> None:
    """Raises UserError where all scores of a sample are -inf, [N, P]."""
    never = np.flatnonzero((scores == -np.inf).all(axis=1))
    if len(never):
        raise UserError(
            f"all {scores.shape[1]} {what}s of sample {first + never[0]} have score(x) = -inf: take more, "
            f"or a score that falls off more gently than to -inf"
        )


def choose_sampler_of(parts: Parts, sampler: Sampler | str | None) -> Sampler | None:
    """Returns the sampler that samples of a run are drawn by: this one, or that of its config.

    None stands for the way of a run whose config names none.

    Args:
        parts: of the run.
        sampler: in place of that of the config, or the name of one.

    Raises:
        UserError: there is none of this name, or it is something else.
    """
    if sampler is None and parts.config.sampler != Sampler():
        return parts.config.sampler
    if isinstance(sampler, str):
        with as_user_error():
            return choose_sampler(sampler).sampler
    if not isinstance(sampler, Sampler | None):
        raise UserError(
            f"sampler is {describe(sampler)}: pass a sampling.Sampler, as sampling.named.maskgit(rows=8), or "
            f"a name of sampling.named.SAMPLERS"
        )
    return sampler


def check_sampler(parts: Parts, sampler: Sampler | None) -> None:
    """Raises UserError for a sampler that is not for a run which draws samples; None: that of its config."""
    drawing = parts.recipe.draw
    if drawing is not None:
        drawing.settle(Draw(), Settled((1, *parts.description.shape), choose_sampler_of(parts, sampler)))


def convert_known(name: str, known: Known, shape: tuple[int, ...], categories: np.ndarray) -> Known:
    """Returns x_0 int32 and which of it is known, bool, [*S] or of each sample [N, *S] both.

    Args:
        name: of the field of a `Draw`, for messages.
        known: x_0 and the mask, which broadcast to these.
        shape: *S.
        categories: how many the data may have, int [] or those of each place [*S].

    Raises:
        UserError: they do not fit a sample, or are no categories.
    """
    x0 = to_array(f"x0 of {name}", known.x0, "pass integers, an example or [N, ..] of them")
    mask = to_array(f"mask of {name}", known.mask, "pass booleans, for an example or [N, ..] of them")
    try:
        wide_x0, wide_mask = (_broadcast_to_samples(array, shape) for array in (x0, mask))
    except ValueError as error:
        sizes = ", ".join(map(str, shape))
        raise UserError(
            f"the elements of {name} have shapes {list(x0.shape)} and {list(mask.shape)}: pass "
            f"{list(shape)}, those of one sample, or [N, {sizes}], of which sample i has row i modulo N"
        ) from error
    if mask.dtype != np.bool_ or not np.issubdtype(x0.dtype, np.integer):
        raise UserError(
            f"the elements of {name} have types {x0.dtype} and {mask.dtype}: pass integers, and booleans"
        )
    is_checked = wide_mask
    if wide_x0.ndim == wide_mask.ndim > len(shape) and len(wide_x0) != len(wide_mask):
        # Each row of the one meets others of the other.
        is_checked = np.any(wide_mask, axis=0)
    each_x0, each_checked, each_size = np.broadcast_arrays(wide_x0, is_checked, categories)
    values = each_x0[each_checked]
    sizes = each_size[each_checked]
    is_outside = (values < 0) | (values >= sizes)
    if is_outside.any() and categories.ndim:
        value = values[is_outside][0]
        largest = sizes[is_outside][0] - 1
        raise UserError(f"the elements of {name} hold {value} at a place of categories 0..{largest}")
    if is_outside.any():
        raise UserError(
            f"the elements of {name} hold {values.min()}..{values.max()}: categories are 0..{categories - 1}"
        )
    return Known(wide_x0.astype(np.int32), wide_mask)


def _broadcast_to_samples(array: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Broadcasts to [*S], or to [N, *S] what has an axis of samples. Raises ValueError where it cannot be."""
    if array.ndim == len(shape) + 1:
        if not len(array):
            raise ValueError("no rows")
        return np.broadcast_to(array, (len(array), *shape))
    return np.broadcast_to(array, shape)


def rows_of_batch(array: np.ndarray, index: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Returns what samples of these numbers have: [B, *S], or [*S] as it is where all have the same."""
    if array.ndim == len(shape):
        return array
    return array[index % len(array)]


def times_to_show(settled: Settled, n: int) -> list[int]:
    """Returns n evenly spaced t whose x_t a picture of a chain shows, or all where there are fewer than n.

    There are none where its rows are no steps, or there are no rows: a flow has no states on the way. An edit
    begins on the way, at as many steps as it takes.

    Args:
        settled: by which the chain is drawn.
        n: how many, at least 2.
    """
    num_steps = len(settled.rows)
    if num_steps == 0 or not settled.rows_are_steps:
        return []
    return sorted({round(num_steps * (i / (n - 1))) for i in range(n)})


@checks_arguments
def draw_forward(key: jax.Array, process: Process, x0: np.ndarray, times: Sequence[Natural]) -> np.ndarray:
    """Draws forward chains x_1 ~ q(x_1 | x_0), x_2 ~ q(x_2 | x_1), ..., x_T, beginning with x_T.

    x_T is drawn given x_0, then every x_{t-1} given x_t and x_0. By Bayes' rule this is the same law, in O(K)
    per element for a process of any kind.

    Args:
        key: a typed key.
        process: the forward process.
        x0: examples int32 [N, *S]; -1 is padding, and stays.
        times: the t in 0..T whose x_t to return.

    Returns:
        x_t [R, N, *S] at these times, int32.

    Raises:
        UserError: an argument is something else.
    """
    _check_key(key)
    check_instance("process", process, Process, "pass a process of d3pm_jax.processes, as run.process")
    x0 = np.atleast_1d(read_integers("x0", x0, process.K - 1, least=-1))

    @jax.jit
    @values_in_range()
    def draw(process: Process, x0: jax.Array) -> jax.Array:
        noise = per_example(key, jnp.arange(len(x0)), x0.shape[1:])

        # `run_chain` may be passed a step of the user's, so it has the values of every step checked. Here
        # they are in range.
        @values_in_range()
        def step(xt: jax.Array, t: jax.Array) -> jax.Array:
            return inverse_cdf.categorical(q_posterior(process, x0, xt, t), noise(t))

        first_noise = noise(jnp.asarray(PRIOR_STEP, jnp.int32))
        xT = q_sample(process, x0, jnp.asarray(process.T, jnp.int32), first_noise)
        return sampling_chain.run_chain(step, process.T, xT, times).states

    # Elements are drawn independently, so that padding may be drawn as category 0 and put back afterwards.
    states = np.asarray(draw(process, jnp.asarray(np.maximum(x0, 0), jnp.int32)))  # [R, N, *S]
    return np.where(x0 < 0, x0, states)


def chains_to_show(
    parts: Parts,
    key: jax.Array,
    samples: Samples,
    reverse_states: np.ndarray,
    times: Sequence[int],
    settled: Settled,
    examples: Samples | None,
) -> Chains:
    """Collects samples and chains for the kind of the data to show.

    Args:
        parts: of the run.
        key: of the forward process.
        samples: of the run.
        reverse_states: int32 [R, n, *S] of the first of them, as `draw_samples` recorded them.
        times: steps of the respaced process, the t of these states.
        settled: by which they were drawn.
        examples: of the test split, from which the forward process begins; None where there are none.
    """
    time_of_step = parts.recipe.times
    strip = times_to_show(settled, STATES)  # side by side
    shown_strip = time_of_step[list(strip)].tolist()
    num_steps = parts.recipe.num_steps  # of the respaced process; the times shown are of the whole one
    forward = None
    if examples is not None and strip:
        # They are drawn when the kind shows them: some show no chains.
        def draw_states() -> States:
            states = draw_forward(key, parts.recipe.process, examples.x[:SHOWN_CHAINS], strip)
            return States(states, shown_strip, num_steps, examples.levels, examples.conditions)

        forward = draw_states
    reverse = States(
        reverse_states, time_of_step[list(times)].tolist(), num_steps, samples.levels, samples.conditions
    )
    return Chains(samples, reverse, shown_strip, forward, examples)


def choose_inputs(parts: Parts, examples: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """Returns the fields "condition", "label" and "padding" of a `Draw` of samples with those of examples.

    Without conditions there is no label: sample i is then of class i modulo the number of classes. With
    conditions a class of its own choice would contradict them.

    Args:
        parts: of the run.
        examples: a batch, or what a run keeps, where x is -1 on padding; or none.
    """
    fields = {}
    if parts.description.condition is not None:
        inputs = parts.extra_inputs(examples)
        fields = {name: inputs[name] for name in ("condition", "label") if name in inputs}
    if parts.description.padded and examples:
        fields["padding"] = examples["weight"] == 0 if "weight" in examples else examples["x"] < 0
    return fields


def pad_as_examples(parts: Parts, draw: Draw, examples: Mapping[str, np.ndarray] | None) -> Draw:
    """Returns what is asked for with the padding of examples, where it does not say what a sample is."""
    says_already = (draw.padding, draw.known, draw.start, draw.shape)
    if examples is None or any(field is not None for field in says_already):
        return draw
    return dataclasses.replace(draw, padding=choose_inputs(parts, examples).get("padding"))


def make_labels(classes: int | None, index: np.ndarray, label: int | np.ndarray | None) -> np.ndarray | None:
    """Returns the labels of the samples of these indices, int32 [B]; None where there are no classes.

    Raises:
        UserError: a label is asked for, and there are no classes or not this one.
    """
    if label is not None and classes is None:
        raise UserError(
            f"label = {shorten_value(label)}: the network of this run takes no labels; leave it out, or "
            "train a network with model.classes"
        )
    if classes is None:
        return None
    if label is None:
        return (index % classes).astype(np.int32)
    labels = np.atleast_1d(label)  # [M]
    if not np.issubdtype(labels.dtype, np.integer) or labels.ndim != 1 or not labels.size:
        raise UserError(f"label = {shorten_value(label)}: it must be a whole number, or [M] of them")
    unknown = labels[(labels < 0) | (labels >= classes)]
    if len(unknown) > 0:
        raise UserError(f"label = {unknown[0]}: it must be in 0..{classes - 1}")
    return labels[index % len(labels)].astype(np.int32)


def write_samples(
    parts: Parts, workdir: Path, samples: np.ndarray, options: Mapping[str, Any], suffix: str = ""
) -> tuple[Path, str]:
    """Writes samples of a run to its folder, and beside them a file that describes how they were drawn.

    Args:
        parts: of the run that they were drawn from.
        workdir: of the run.
        samples: int32 [N, *S].
        options: what they were asked for by, such as "seed", "label" and "prompt"; None of one that was not
            used. And what `describe_drawing` returns.
        suffix: of the names of files, of `record.file_suffix`.

    Returns:
        The path of the array, and words about the samples that it replaces, see `record.write_record`.
    """
    path = workdir / f"{SAMPLES_FILE}{suffix}.npy"
    write_npy(path, samples)
    content = {name: value for name, value in options.items() if value is not None}
    content |= {"step": parts.step, "num": len(samples), "steps": parts.recipe.num_steps}
    _, replaced = write_record(Record(SAMPLES, content), workdir, suffix)
    return path, replaced


def describe_drawing(sampler: Sampler | None, guidance: Guidance | None, drawn: Drawn) -> dict[str, Any]:
    """Returns what the file beside samples says of how they were drawn, and of their calls of the network.

    Args:
        sampler: that was asked for; None where steps are taken as the run does by itself. Then, without
            guidance, there is nothing to say: each step is a call.
        guidance: that was asked for.
        drawn: the samples.
    """
    content: dict[str, Any] = {}
    if sampler is not None:
        content["sampler"] = _slots_to_json(sampler)
    if guidance is not None:
        content["guidance"] = guidance.describe()
    if content:
        # For each sample, and for all, each of a batch.
        content |= {"calls": float(np.mean(drawn.calls)), "program_calls": drawn.program_calls}
    return content


def _slots_to_json(slot: Any) -> Any:
    """Returns a slot of a sampler as nested dicts, each with the name of its class.

    A function is its name, and infinity a word: JSON has no number for it.
    """
    if dataclasses.is_dataclass(slot):
        fields = {field.name: _slots_to_json(getattr(slot, field.name)) for field in dataclasses.fields(slot)}
        return {"class": type(slot).__name__, **fields}
    if isinstance(slot, tuple):
        return [_slots_to_json(item) for item in slot]
    if isinstance(slot, float) and not np.isfinite(slot):
        return str(slot)
    if callable(slot):
        return getattr(slot, "__qualname__", type(slot).__name__)
    return slot


def _check_samples(drawn: Record) -> None:
    """Raises where the step of samples, or how many they are, is missing."""
    if type(drawn["step"]) is not int or type(drawn["num"]) is not int:
        raise ValueError("it names no step, or not how many samples")


SAMPLES = Format(
    name=SAMPLES_FILE,
    compared=(
        "step",
        "steps",
        "grid",
        "seed",
        "label",
        "prompt",
        "infill",
        "where",
        "length",
        "condition",
        "sampler",
        "given",
        "known",
        "strength",
    ),
    replaced=("step", "num", "prompt", "infill", "where", "condition", "given", "known"),
    damaged="{path.parent}/{path.stem}.npy or {path.name} is damaged ({why}): delete both, `d3pm sample` "
    "writes them again",
    check=_check_samples,
)
