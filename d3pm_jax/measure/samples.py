"""Draws samples of a run in batches by one compiled program, and writes them with their options."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from d3pm_jax import sampling
from d3pm_jax.checks import values_in_range
from d3pm_jax.checks.arrays import describe
from d3pm_jax.checks.hints import check_value
from d3pm_jax.config.checks import Count, Natural, Size, check_number, describe_hint, matches_hint
from d3pm_jax.errors import UserError, as_user_error, one_line
from d3pm_jax.files import write_npy
from d3pm_jax.kinds import Chains, Given
from d3pm_jax.measure.record import Format, write_record
from d3pm_jax.numerics import inverse_cdf
from d3pm_jax.parts.build import Parts
from d3pm_jax.parts.guidance import Guidance, is_number, read_guidance
from d3pm_jax.parts.method import PlannedSampler
from d3pm_jax.placing import fetch
from d3pm_jax.posteriors import q_posterior, q_sample
from d3pm_jax.processes import Process
from d3pm_jax.sampling import Sampler, chain as sampling_chain
from d3pm_jax.sampling.named import choose_sampler
from d3pm_jax.sampling.noise import SAMPLING
from d3pm_jax.sampling.sampler import PRIOR_STEP
from d3pm_jax.storage.names import SAMPLES as SAMPLES_FILE
from d3pm_jax.types import Params

SHOWN_FORWARD_CHAINS = 4


class Drawn(NamedTuple):
    """Holds samples, states of the chains that led to them, and what they cost."""

    x0: np.ndarray  # int32 [n, *S]
    states: np.ndarray  # int32 [R, n, *S], or of the first samples alone
    calls: np.ndarray  # int32 [n], calls of the network that each sample would need alone
    program_calls: int  # calls that were made, each of a batch


DrawBatches = Callable[..., Drawn]  # see `make_sampler`
Progress = Callable[[int], Any]  # is called with the number of samples that are done


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options:
    """Says how samples of a run are drawn; `Run.sample` says what each option means."""

    label: int | np.ndarray | None = None
    batch_size: int = 128
    progress: Progress = lambda done: None
    known_elements: Given | None = None
    shape: tuple[int, ...] | None = None
    condition: Any = None
    sampler: Sampler | str | None = None
    guidance: Guidance | float | None = None


def make_sampler(
    parts: Parts,
    batch_size: int,
    recorded_times: Sequence[int] = (),
    shape: tuple[int, ...] | None = None,
    planned: PlannedSampler | None = None,
    guidance: Guidance | None = None,
) -> DrawBatches:
    """Makes a function that draws samples in batches, by a program that is compiled once.

    Args:
        parts: of the run.
        batch_size: how many at a time; rounded down to a multiple of the devices of the mesh.
        recorded_times: the t whose x_t to return as well.
        shape: *S of a sample, where it is not that of the data.
        planned: a sampler and its rows, by which to draw; the recorded times are then numbers of rows left.
        guidance: of the samples, as `Method.settle_guidance` returns it.

    Returns:
        The function (params, n, key, label=None, progress=..., chains=None, known_elements=None,
        condition=None) -> `Drawn`. Sample i depends on params, key, label,
        known elements and its condition alone, not on n or the batch size. Where the network takes labels,
        sample i is of class `label`, or of row i modulo their number where that is [M], or without it of
        class i modulo the number of classes. Where it takes conditions, sample i has row i of `condition`,
        modulo their number. `progress` is called with the
        number of samples that are done, first with 0 when all is compiled. With `chains` x_t is returned for
        so many samples alone, the first ones: for all of them it takes R times their memory. Every sample has
        the `known_elements`, or sample i row i of them modulo their number. It raises a UserError where the
        network gave NaN.
    """
    devices = parts.mesh.size
    size = max(1, batch_size // devices) * devices
    if shape is None:
        shape = parts.description.shape
    batch_shape = (size, *shape)

    # `start` is the number of the first sample of a batch, from which its noise follows.
    @jax.jit
    @values_in_range()
    def draw_batch(
        params: Params,
        process: Any,
        key: jax.Array,
        start: jax.Array,
        label: Any,
        condition: Any,
        known_elements: Given | None,
        guidance_params: Params | None,
    ) -> sampling.Chain:
        bound_guidance = guidance
        if guidance is not None and guidance_params is not None:
            bound_guidance = guidance.with_params(guidance_params)
        return parts.method.draw(
            params,
            process,
            key,
            start,
            batch_shape,
            recorded_times,
            label,
            condition,
            known_elements,
            planned,
            bound_guidance,
        )

    classes = parts.classes
    guidance_params = None
    if guidance is not None:
        guidance_params = guidance.params
        classes = guidance.classes or classes

    def draw_batches(
        params: Params,
        n: int,
        key: jax.Array,
        label: int | np.ndarray | None = None,
        progress: Progress = lambda done: None,
        chains: int | None = None,
        known_elements: Given | None = None,
        condition: Any = None,
    ) -> Drawn:
        condition = parts.convert_condition(condition)
        # Commands with the same seed share no noise, see `sampling.noise`.
        key = jax.random.fold_in(key, SAMPLING)
        num_chains = n
        if chains is not None:
            num_chains = min(chains, n)
        x0 = []
        states = []
        calls = []
        program_calls = 0
        for start in range(0, n, size):
            index = np.arange(start, start + size)
            labels = make_labels(classes, index, label)
            conditions = None
            if condition is not None:
                conditions = condition[index % len(condition)]
            elements = None
            if known_elements is not None:
                elements = Given(*(rows_of_batch(array, index, shape) for array in known_elements))
            batch = draw_batch(
                params,
                parts.method.process,
                key,
                np.int32(start),
                labels,
                conditions,
                elements,
                guidance_params,
            )

            # The call returns when the program is compiled and started: progress begins there.
            progress(start)
            batch = fetch(batch)
            if batch.failed_at != 0:
                raise UserError(parts.method.explain_failure(int(batch.failed_at)))
            x0.append(batch.x0)

            # A view would keep the states of all samples of the batch in memory, so this is a copy.
            states.append(batch.states[:, : max(0, num_chains - start)].copy())
            calls.append(batch.calls)
            program_calls += int(batch.program_calls)
        progress(n)
        return Drawn(
            np.concatenate(x0)[:n], np.concatenate(states, axis=1), np.concatenate(calls)[:n], program_calls
        )

    return draw_batches


def draw_samples(
    parts: Parts,
    key: jax.Array,
    n: int,
    options: Options = Options(),
    recorded_times: Sequence[int] = (),
    chains: int | None = None,
    strength: float | None = None,
) -> Drawn:
    """Draws n samples of a run by a program that is compiled once for each sampler; see `make_sampler`.

    Args:
        parts: of the run.
        key: a typed key.
        n: how many.
        options: how.
        recorded_times: the t whose x_t to return as well, or numbers of rows left of a sampler.
        chains: return x_t of so many samples alone, the first ones.
        strength: of edits of the x_0 of the known elements, all of which count then.

    Raises:
        UserError: an argument cannot be used, or the sampler or the guidance is not for this run.
    """
    check_key(key)
    check_number("n", n, Count)
    check_number("batch_size", options.batch_size, Count)
    if chains is not None:
        check_number("chains", chains, Natural)
    known_elements = read_known_elements(parts, options, is_edited=strength is not None)
    if not callable(options.progress):
        raise UserError(
            f"progress is {describe(options.progress)}, expected a function of the number of samples that "
            "are done"
        )
    with as_user_error():
        recorded_times = check_value("record", recorded_times, tuple[Natural, ...])
    parts.method.check_sampling(recorded_times, options.shape, known_elements)
    planned = plan_sampler(parts, choose_sampler_of(parts, options.sampler), options.shape, strength)
    num_rows = parts.method.num_steps if planned is None else len(planned.rows)
    if any(number > num_rows for number in recorded_times):
        raise UserError(
            f"record = {list(recorded_times)}: its entries must be in 0..{num_rows}, each a number of "
            "rows left, or t"
        )
    guidance = settle_guidance(parts, options.guidance, planned, options.shape)
    size = min(options.batch_size, n)

    # The sampler is made from a copy of the parts. It is stored in the parts, and would otherwise refer back
    # to them: Python frees such a cycle late, so that the arrays of a run would stay in memory after its last
    # use.
    def make() -> DrawBatches:
        return make_sampler(
            dataclasses.replace(parts), size, recorded_times, options.shape, planned, guidance
        )

    draw = parts.once(("sample", size, recorded_times, options.shape, planned, guidance), make)
    return draw(
        parts.params, n, key, options.label, options.progress, chains, known_elements, options.condition
    )


def read_known_elements(parts: Parts, options: Options, is_edited: bool) -> Given | None:
    """Returns the elements that samples have, see `convert_known_elements`; None where they have none.

    Raises:
        UserError: the shape of samples is none, or the elements do not fit it.
    """
    shape = options.shape
    if shape is not None and not matches_hint(shape, tuple[Size, ...]):
        raise UserError(f"shape = {shape!r}: it must be {describe_hint(tuple[Size, ...])}")
    if options.known_elements is None:
        return None
    size = shape or parts.description.shape
    return convert_known_elements(options.known_elements, size, parts.categories, is_edited)


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
            return choose_sampler(sampler)
    if not isinstance(sampler, Sampler | None):
        raise UserError(
            f"sampler is {describe(sampler)}: pass a sampling.Sampler, as sampling.named.maskgit(rows=8), or "
            f"a name of sampling.named.SAMPLERS"
        )
    return sampler


def plan_sampler(
    parts: Parts,
    sampler: Sampler | None,
    shape: tuple[int, ...] | None = None,
    strength: float | None = None,
) -> PlannedSampler | None:
    """Plans the rows of a sampler of `choose_sampler_of` for samples of a shape *S, by default of the data.

    Args:
        parts: of the run.
        sampler: None for the way of a run whose config names none.
        shape: of a sample.
        strength: of edits; None for samples.

    Raises:
        UserError: it is not for this run, or for edits.
    """
    if sampler is None and strength is None:
        return None
    return parts.method.plan_sampler(sampler or Sampler(), shape or parts.description.shape, strength)


def read_strength(strength: Any) -> float:
    """Returns the strength of an edit as a number. Raises UserError where it is none in (0, 1]."""
    if not (is_number(strength) and 0 < strength <= 1):
        raise UserError(f"strength = {describe(strength)}: it must be a number above 0, and at most 1")
    return float(strength)


def settle_guidance(
    parts: Parts,
    guidance: Guidance | float | None,
    planned: PlannedSampler | None,
    shape: tuple[int, ...] | None = None,
) -> Guidance | None:
    """Returns how samples of a run are guided, with what that leaves open filled in; None where they are not.

    Args:
        parts: of the run.
        guidance: what a caller asks for, or gamma alone.
        planned: the sampler, of `plan_sampler`.
        shape: *S of a sample, where it is not that of the data.

    Raises:
        UserError: it is not for this run, or not for the sampler.
    """
    wanted = read_guidance(guidance)
    if wanted is None:
        return None
    wanted.check_run(parts.description, parts.config, shape)
    return parts.method.settle_guidance(wanted, planned)


def check_key(key: Any) -> None:
    """Raises UserError unless this is a typed key of JAX."""
    is_key = isinstance(key, jax.Array) and jnp.issubdtype(key.dtype, jax.dtypes.prng_key)
    if not is_key or key.shape != ():
        raise UserError(f"key is {describe(key)}, expected one key: pass jax.random.key(0)")


def convert_known_elements(
    known_elements: Given, shape: tuple[int, ...], categories: int, is_edited: bool
) -> Given:
    """Returns x_0 int32 and which of it is known, bool, [*S] or of each sample [N, *S] both.

    Args:
        known_elements: x_0 and known, which broadcast to these.
        shape: *S.
        categories: that the data may have.
        is_edited: whether the elements count that are not known, too.

    Raises:
        UserError: they do not fit a sample, or are no categories.
    """
    x0 = np.asarray(known_elements.x0)
    known = np.asarray(known_elements.known)
    try:
        wide_x0, wide_known = (_broadcast_to_samples(array, shape) for array in (x0, known))
    except ValueError as error:
        sizes = ", ".join(map(str, shape))
        raise UserError(
            f"the known elements have shapes {list(x0.shape)} and {list(known.shape)}: pass {list(shape)}, "
            f"those of one sample, or [N, {sizes}], of which sample i has row i modulo N"
        ) from error
    if known.dtype != np.bool_ or not np.issubdtype(x0.dtype, np.integer):
        raise UserError(
            f"the known elements have types {x0.dtype} and {known.dtype}: pass integers, and booleans"
        )
    values = wide_x0.ravel()
    if not is_edited:
        is_known = wide_known
        if wide_x0.ndim == wide_known.ndim > len(shape) and len(wide_x0) != len(wide_known):
            # Each row of the one meets others of the other.
            is_known = np.any(wide_known, axis=0)
        each_x0, each_known = np.broadcast_arrays(wide_x0, is_known)
        values = each_x0[each_known]
    if np.any((values < 0) | (values >= categories)):
        raise UserError(
            f"the known elements hold {values.min()}..{values.max()}: categories are 0..{categories - 1}"
        )
    return Given(wide_x0.astype(np.int32), wide_known)


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


def evenly_spaced(last: int, n: int) -> list[int]:
    """Returns n evenly spaced whole numbers from 0 to last, or all of them where there are fewer than n.

    There are none for last = 0: a flow has no steps, and no states on the way.

    Args:
        last: the largest number.
        n: how many, at least 2.
    """
    if last == 0:
        return []
    return sorted({round(last * (i / (n - 1))) for i in range(n)})


def times_to_show(parts: Parts, planned: PlannedSampler | None, n: int) -> list[int]:
    """Returns n evenly spaced t whose x_t a picture of a chain shows; none where its rows are no steps.

    Args:
        parts: of the run.
        planned: the sampler that draws the chain, of `plan_sampler`.
        n: how many, at least 2.
    """
    if planned is None:
        return evenly_spaced(parts.method.num_steps, n)
    if not planned.rows_are_steps:
        return []
    # An edit begins on the way, at as many steps as it takes.
    return evenly_spaced(len(planned.rows), n)


def draw_forward(key: jax.Array, process: Process, x0: np.ndarray, times: Sequence[int]) -> np.ndarray:
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
    """

    @jax.jit
    @values_in_range()
    def draw(process: Process, x0: jax.Array) -> jax.Array:
        noise = sampling.per_example(key, jnp.arange(len(x0)), x0.shape[1:])

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
    samples: np.ndarray,
    reverse_states: np.ndarray,
    times: Sequence[int],
    strip: Sequence[int],
    examples: np.ndarray | None,
    conditions: np.ndarray | None = None,
    example_conditions: np.ndarray | None = None,
) -> Chains:
    """Collects samples and chains for the kind of the data to show.

    Args:
        parts: of the run.
        key: of the forward process.
        samples: int32 [N, *S].
        reverse_states: int32 [R, n, *S] of the first of them, as `draw_samples` recorded them.
        times: the t of these states.
        strip: the times to show side by side, among those.
        examples: of the test split, from which the forward process begins; None where there are none.
        conditions: of the samples, [.., *C]; sample i has row i modulo their number.
        example_conditions: of the examples, [M, *C].
    """
    forward = None
    if examples is not None and strip:
        forward = partial(draw_forward, key, parts.process, examples[:SHOWN_FORWARD_CHAINS], strip)

    # A respaced process numbers its steps anew, but the times of the full process are shown.
    time = parts.method.state_times()
    return Chains(
        samples=samples,
        times=time[list(times)].tolist(),
        reverse=reverse_states,
        strip=time[list(strip)].tolist(),
        forward=forward,
        examples=examples,
        levels=parts.categories,
        steps=parts.method.num_steps,
        conditions=conditions,
        example_conditions=example_conditions,
    )


def choose_inputs(parts: Parts, examples: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """Returns the inputs "condition" and "label" of samples that are to have those of examples.

    Nothing where the data has no conditions: sample i is then of class i modulo the number of classes. With
    conditions a class of its own choice would contradict them.
    """
    if parts.description.condition is None:
        return {}
    inputs = parts.extra_inputs(examples)
    return {name: inputs[name] for name in ("condition", "label") if name in inputs}


def make_labels(classes: int | None, index: np.ndarray, label: int | np.ndarray | None) -> np.ndarray | None:
    """Returns the labels of the samples of these indices, int32 [B]; None where there are no classes.

    Raises:
        UserError: a label is asked for, and there are no classes or not this one.
    """
    if label is not None and classes is None:
        raise UserError(
            f"label = {label}: the network of this run takes no labels; leave it out, or train a "
            "network with model.classes"
        )
    if classes is None:
        return None
    if label is None:
        return (index % classes).astype(np.int32)
    labels = np.atleast_1d(label)  # [M]
    if not np.issubdtype(labels.dtype, np.integer) or labels.ndim != 1 or not labels.size:
        raise UserError(f"label = {one_line(repr(label), 80)}: it must be a whole number, or [M] of them")
    unknown = labels[(labels < 0) | (labels >= classes)]
    if len(unknown) > 0:
        raise UserError(f"label = {unknown[0]}: it must be in 0..{classes - 1}")
    return labels[index % len(labels)].astype(np.int32)


def write_samples(
    parts: Parts,
    workdir: Path,
    samples: np.ndarray,
    grid: str = "even",
    seed: int = 0,
    label: int | None = None,
    more_options: Mapping[str, Any] | None = None,
    suffix: str = "",
) -> tuple[Path, str]:
    """Writes samples of a run to its folder, and beside them a file that describes how they were drawn.

    Args:
        parts: of the run that they were drawn from.
        workdir: of the run.
        samples: int32 [N, *S].
        grid: how the steps were chosen, "even" or "dp".
        seed: of their noise.
        label: their class, if they are of one.
        more_options: other options that they were drawn with, such as a prompt or a sampler, by name.
        suffix: of the names of files, of `record.file_suffix`.

    Returns:
        The path of the array, and words about the samples that it replaces, see `record.write_record`.
    """
    path = workdir / f"{SAMPLES_FILE}{suffix}.npy"
    write_npy(path, samples)
    content = {"step": parts.step, "num": len(samples), "steps": parts.method.num_steps, "grid": grid}
    content |= {"seed": seed, "label": label, **(more_options or {})}
    return path, write_record(path.with_suffix(".json"), SAMPLES, content)


def describe_drawing(
    sampler: Sampler | None, drawn: Drawn, guidance: Guidance | None = None
) -> dict[str, Any]:
    """Returns what the file beside samples says of how they were drawn, and of what that cost.

    Nothing where it was ancestrally, without guidance: then each step is a call of the network.
    """
    content: dict[str, Any] = {}
    if sampler is not None:
        content["sampler"] = _slots_to_json(sampler)
    if guidance is not None:
        content["guidance"] = guidance.describe()
    if content:
        content["calls"] = float(np.mean(drawn.calls))  # of the network, for each sample
        content["program_calls"] = drawn.program_calls  # for all, each of a batch
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


def _from_keys(content: dict[str, Any]) -> tuple[Any, ...]:
    """Returns the protocol of samples from the keys of their file, with empty dicts for values and arrays."""
    # All keys belong to the protocol.
    return content, {}, {}


SAMPLES = Format(
    (
        "step",
        "steps",
        "grid",
        "seed",
        "label",
        "prompt",
        "infill",
        "length",
        "condition",
        "sampler",
        "given",
        "known",
        "strength",
    ),
    ("step", "num", "prompt", "infill", "condition", "given", "known"),
    _from_keys,
    "{path.parent}/{path.stem}.npy or {path.name} is damaged ({why}): delete both, `d3pm sample` writes them "
    "again",
)
