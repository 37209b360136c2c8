"""Draws samples of a run that a user's score prefers, in batches by one compiled program."""

import dataclasses
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from d3pm_jax import sampling
from d3pm_jax.checks import values_in_range
from d3pm_jax.config.checks import Count, check_number
from d3pm_jax.errors import UserError, as_user_error
from d3pm_jax.kinds import Given
from d3pm_jax.measure.samples import (
    Options,
    check_key,
    choose_sampler_of,
    draw_samples,
    make_labels,
    plan_sampler,
    read_known_elements,
    rows_of_batch,
    settle_guidance,
)
from d3pm_jax.parts.build import Parts
from d3pm_jax.parts.diffusion import Diffusion
from d3pm_jax.parts.guidance import Guidance
from d3pm_jax.parts.method import PlannedSampler
from d3pm_jax.placing import fetch
from d3pm_jax.sampling import Sampler
from d3pm_jax.sampling.noise import SAMPLING
from d3pm_jax.sampling.steering import choose_best
from d3pm_jax.types import Params

Score = Callable[[Any], Any]  # clean examples [M, *S] -> [M]
CURE_OF_NEVER = "take more, or a score that falls off more gently than to -inf"


class BestSamples(NamedTuple):
    """Holds the best of some candidates for each sample, all of them, and what they cost."""

    x0: np.ndarray  # int32 [n, *S]
    candidates: np.ndarray  # int32 [n, P, *S]
    scores: np.ndarray  # [n, P]
    calls: np.ndarray  # int32 [n], calls of the network for each sample, of all of its candidates
    program_calls: int


class SteeredSamples(NamedTuple):
    """Holds samples that were drawn by particles, all of these, and what they cost."""

    x0: np.ndarray  # int32 [n, *S], one of the particles of each sample, each as likely
    particles: np.ndarray  # int32 [n, P, *S]
    scores: np.ndarray  # [n, P]
    effective_size: np.ndarray  # [R, n], of each row before its selection, in 1..P
    calls: np.ndarray  # int32 [n], calls of the network for each sample, of all of its particles
    program_calls: int


def draw_best(
    parts: Parts,
    key: jax.Array,
    n: int,
    score: Score,
    candidates: int,
    options: Options,
) -> BestSamples:
    """Draws candidates for each of n samples, and returns those of largest score, of equal ones the first.

    Candidate j of sample i is sample i P + j of `draw_samples` with the label, the condition and the known
    elements of sample i.

    Raises:
        UserError: as `draw_samples`; a score cannot be used, or all candidates of a sample have -inf.
    """
    check_number("n", n, Count)
    check_number("candidates", candidates, Count)
    numbers = np.repeat(np.arange(n), candidates)  # of the sample that each is for
    label = options.label
    classes = _classes_of(parts, options.guidance)
    if classes is not None or label is not None:
        label = make_labels(classes, numbers, label)
    condition = parts.convert_condition(options.condition)
    if condition is not None:
        condition = condition[numbers % len(condition)]
    known_elements = read_known_elements(parts, options, is_edited=False)
    if known_elements is not None:
        size = options.shape or parts.description.shape
        known_elements = Given(*(rows_of_batch(array, numbers, size) for array in known_elements))
    of_candidates = dataclasses.replace(
        options, label=label, condition=condition, known_elements=known_elements
    )
    drawn = draw_samples(parts, key, n * candidates, of_candidates)
    x = drawn.x0.reshape(n, candidates, *drawn.x0.shape[1:])
    best = []
    scores = []
    per_batch = max(1, options.batch_size // candidates)
    for start in range(0, n, per_batch):
        with as_user_error():
            of_batch = choose_best(score, jnp.asarray(x[start : start + per_batch]))
        best.append(np.asarray(of_batch[0]))
        scores.append(np.asarray(of_batch[1]))
    scores = np.concatenate(scores)
    _refuse_never(scores, 0, "candidate")
    calls = drawn.calls.reshape(n, candidates).sum(axis=1, dtype=np.int32)
    return BestSamples(np.concatenate(best), x, scores, calls, drawn.program_calls)


def steer_samples(
    parts: Parts,
    key: jax.Array,
    n: int,
    score: Score,
    particles: int,
    options: Options,
) -> SteeredSamples:
    """Draws n samples by particles that a score selects, `sampling.steer`, by a program compiled once.

    Sample i depends on its number, on the key, its label, its condition and its known elements alone.

    Args:
        parts: of a run that is a diffusion.
        key: a typed key.
        n: how many samples.
        score: of clean examples, in JAX: x [M, *S] -> [M], in nats.
        particles: P, how many of each sample.
        options: as for `draw_samples`; a batch is of so many particles, and at least those of one sample.

    Raises:
        UserError: as `draw_samples`; a score cannot be used, or all particles of a sample have -inf.
    """
    diffusion = parts.diffusion
    check_key(key)
    for name, number in (("n", n), ("particles", particles), ("batch_size", options.batch_size)):
        check_number(name, number, Count)
    known_elements = read_known_elements(parts, options, is_edited=False)
    size = options.shape or parts.description.shape
    planned = plan_sampler(parts, choose_sampler_of(parts, options.sampler) or Sampler(), options.shape)
    assert planned is not None
    settled = settle_guidance(parts, options.guidance, planned, options.shape)
    per_batch = _samples_per_batch(n, particles, options.batch_size, parts.mesh.size)
    classes = _classes_of(parts, settled)
    condition = parts.convert_condition(options.condition)

    # A score may have no hash. The program keeps it, so that no other gets its number.
    def make() -> Callable[..., sampling.Steered]:
        return compile_steering(diffusion, score, particles, (per_batch, *size), planned, settled)

    name = ("steer", id(score), particles, per_batch, size, planned, settled)
    steer_batch = parts.once(name, make)
    key = jax.random.fold_in(key, SAMPLING)
    batches = []
    for start in range(0, n, per_batch):
        index = np.arange(start, start + per_batch)
        of_particles = np.repeat(index, particles)
        elements = None
        if known_elements is not None:
            elements = Given(*(rows_of_batch(array, index, size) for array in known_elements))
        conditions = None
        if condition is not None:
            conditions = condition[of_particles % len(condition)]
        labels = make_labels(classes, of_particles, options.label)
        guidance_params = None if settled is None else settled.params
        with as_user_error():
            batch = steer_batch(
                parts.params,
                diffusion.process,
                key,
                np.int32(start),
                labels,
                conditions,
                elements,
                guidance_params,
            )
        options.progress(start)
        batch = fetch(batch)
        if batch.failed_at != 0:
            _explain(diffusion, batch, start)
        batches.append(batch)
    options.progress(n)

    def join(field: str, axis: int = 0) -> np.ndarray:
        joined = np.concatenate([np.asarray(getattr(batch, field)) for batch in batches], axis=axis)
        return joined.take(np.arange(n), axis=axis)

    return SteeredSamples(
        join("x0"),
        join("particles"),
        join("scores"),
        join("effective_size", axis=1),
        join("calls"),
        sum(int(batch.program_calls) for batch in batches),
    )


def compile_steering(
    diffusion: Diffusion,
    score: Score,
    particles: int,
    shape: tuple[int, ...],
    planned: PlannedSampler,
    guidance: Guidance | None,
) -> Callable[..., sampling.Steered]:
    """Makes the jitted function that draws a batch of samples of a shape [N, *S] by particles."""

    # Types and shapes of scores are checked, and what is NaN stops a chain by itself.
    @jax.jit
    @values_in_range()
    def steer_batch(
        params: Params,
        process: Any,
        key: jax.Array,
        start: jax.Array,
        label: Any,
        condition: Any,
        known_elements: Given | None,
        guidance_params: Params | None,
    ) -> sampling.Steered:
        bound_guidance = guidance
        if guidance is not None and guidance_params is not None:
            bound_guidance = guidance.with_params(guidance_params)
        return diffusion.steer(
            params,
            process,
            key,
            score,
            particles,
            start,
            shape,
            label,
            condition,
            known_elements,
            planned,
            bound_guidance,
        )

    return steer_batch


def _classes_of(parts: Parts, guidance: Any) -> int | None:
    """Returns how many labels there are to choose among; None where none has an effect."""
    if isinstance(guidance, Guidance) and guidance.classes is not None:
        return guidance.classes
    return parts.classes


def _samples_per_batch(n: int, particles: int, batch_size: int, devices: int) -> int:
    """Returns how many samples are drawn at a time, whose particles divide evenly among the devices."""
    per_batch = min(n, max(1, batch_size // particles))
    multiple = devices // math.gcd(devices, particles)
    return -(-per_batch // multiple) * multiple


def _explain(diffusion: Diffusion, batch: sampling.Steered, start: int) -> None:
    """Raises UserError for a batch that failed, and says what was NaN or could not be."""
    log_weights = np.asarray(batch.log_weights)  # [R, N, P]
    _refuse_never(log_weights[-1], start, "particle")
    rows, samples, _ = np.nonzero(np.isnan(log_weights) | (log_weights == np.inf))
    if len(rows) and len(log_weights) - rows[0] == batch.failed_at:
        raise UserError(
            f"score(x) is NaN or infinite for sample {start + samples[0]}, with {batch.failed_at} rows left: "
            f"it must be finite, or -inf"
        )
    raise UserError(diffusion.explain_failure(int(batch.failed_at)))


def _refuse_never(scores: np.ndarray, start: int, what: str) -> None:
    """Raises UserError where all scores of a sample are -inf, [N, P]."""
    never = np.flatnonzero((scores == -np.inf).all(axis=1))
    if len(never):
        raise UserError(
            f"all {scores.shape[1]} {what}s of sample {start + never[0]} have score(x) = -inf: "
            f"{CURE_OF_NEVER}"
        )
