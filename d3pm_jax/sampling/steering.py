"""Draws samples that a user's score prefers: the best of some, or by particles that are selected on the way.

    best = best_of(key, score, 16, sampler, denoise, process, shape=(8, 64))
    steered = steer(key, score, 16, sampler, denoise, process, shape=(8, 64))

Both call the network 16 times for a sample where plain sampling does once. `steer` aims at the *tilted* law
p(x_0) exp(score(x_0)) / Z, where p is the law of what the sampler draws, by sequential Monte Carlo: P
chains of a sample, its particles, are drawn side by side. In each row, when x_s is drawn, one x_0 is drawn
of what the network believes, given x_s, and scored. A particle is weighted by exp of how much its score has
risen since the last row, and P particles go on that are drawn by these weights. At the last row x_0 is what
was drawn itself, so that along the line of a particle the weights multiply to exp(score(x_0)), whatever the
scores on the way: these decide which particles go on, not which law is aimed at. With more particles the
law of each comes closer to it.
"""

from collections.abc import Callable
from typing import Annotated, NamedTuple

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float, Int, Key

from d3pm_jax.beliefs import Belief
from d3pm_jax.checks import CATEGORIES, INDEX, NOISE, SCORES, Called, at_least, declared, marked
from d3pm_jax.numerics import inverse_cdf
from d3pm_jax.processes.base import Process, promote
from d3pm_jax.processes.tables import expand_trailing
from d3pm_jax.sampling import laws
from d3pm_jax.sampling.chain import Chain, Row, State, run_plan
from d3pm_jax.sampling.denoise import Denoise
from d3pm_jax.sampling.noise import CLEAN, SELECT, Streams, per_example
from d3pm_jax.sampling.sampler import (
    PRIOR_STEP,
    Plan,
    Problem,
    Sampler,
    Seen,
    check_start,
    count_calls,
    prepare,
    read_plan,
    sample_by,
    shape_logits,
)

# Beside what `sampling` has by its name.
__all__ = ["choose_best", "effective_size", "resample"]

CURE_OF_SCORES = "return one number for each example, larger for what you prefer; -inf where it must never be"
# A user's score of clean examples.
Score = Annotated[Callable[[Int[Array, " M *S"]], Float[Array, " M"]], Called("x", CURE_OF_SCORES)]
PARTICLES = at_least(1, 2**20)

SCORE = "score"  # what a particle had when it was last selected, among what a chain remembers


class Best(NamedTuple):
    """Holds the best of some candidates for each sample, and all of them."""

    x0: Int[Array, " N *S"]  # -1 where no candidate may be
    candidates: Int[Array, "N P *S"]
    scores: Float[Array, "N P"]
    failed_at: Int[Array, ""]  # as of a `Chain`; 1 where no candidate of a sample may be
    calls: Int[Array, " N"]  # calls of the network for each sample, of all of its candidates
    program_calls: Int[Array, ""]


class Steered(NamedTuple):
    """Holds what was drawn by particles, and how it came about: R rows, N samples of P particles each."""

    x0: Int[Array, " N *S"]  # one of the particles, each as likely
    particles: Int[Array, "N P *S"]  # after the last selection, so that all count alike
    scores: Float[Array, "N P"]
    log_weights: Float[Array, "R N P"]  # before the selection of each row
    ancestors: Int[Array, "R N P"]  # the number of the particle that each was before it
    effective_size: Float[Array, "R N"]  # (sum w)^2 / sum w^2 of these weights, in 1..P; 0 where it failed
    failed_at: Int[Array, ""]  # as of a `Chain`; 1 where no particle of a sample may be
    calls: Int[Array, " N"]  # calls of the network for each sample, of all of its particles
    program_calls: Int[Array, ""]


class Selection(NamedTuple):
    """Holds what the selection of one row saw, [N, P]."""

    scores: Array  # after it
    log_weights: Array
    ancestors: Array
    effective_size: Array  # [N]


@declared(u=NOISE)
def resample(log_weights: Float[Array, "N P"], u: Float[Array, " N"]) -> Int[Array, "N P"]:
    """Draws P of P particles by their weights: number j at (j + u) / P of their sum (systematic resampling).

    So a particle with a share w of the weights is drawn floor(P w) or ceil(P w) times, and all of them once
    where they weigh alike. The order of additions is fixed, as in `inverse_cdf`.

    Args:
        log_weights: in nats, not normalised.
        u: one uniform for all particles of a sample.

    Returns:
        Which particle each is drawn from, in rising order; -1 where there is nothing to draw from (all -inf,
        or NaN).
    """
    P = log_weights.shape[-1]
    _check_any("log_weights", P)
    top = jnp.max(log_weights, axis=-1, keepdims=True)
    has_law = jnp.isfinite(top)  # [N, 1]
    weights = jnp.exp(log_weights - jnp.where(has_law, top, 0.0))
    ends = lax.associative_scan(jnp.add, weights, axis=-1)  # [N, P]
    total = ends[:, -1:]

    # Number j lies before an end at P w, in units of a particle, if j + u < P w. That sum would round u away
    # behind many particles: so whole numbers are compared first, and u with what is left, which is exact.
    scaled = ends * (P / total)  # exact for equal weights
    whole = jnp.floor(scaled)
    has_next = u[:, None] < scaled - whole
    drawn = whole.astype(jnp.int32) + has_next.astype(jnp.int32)  # how many are drawn up to each
    drawn = jnp.where(ends >= total, P, jnp.minimum(drawn, P))
    numbers = jnp.arange(P, dtype=jnp.int32)[None]

    def is_before(k: Array) -> Array:
        return jnp.take_along_axis(drawn, k, axis=-1) <= numbers

    return jnp.where(has_law, inverse_cdf.find_first(is_before, P, log_weights.shape), -1)


@declared()
def effective_size(log_weights: Float[Array, "N P"]) -> Float[Array, " N"]:
    """(sum w)^2 / sum w^2: how many particles of equal weight these are worth; 0 where there is no weight.

    Args:
        log_weights: in nats, not normalised.
    """
    _check_any("log_weights", log_weights.shape[-1])
    top = jnp.max(log_weights, axis=-1, keepdims=True)
    is_zero = top == -jnp.inf  # [N, 1]
    weights = jnp.exp(log_weights - jnp.where(is_zero, 0.0, top))
    size = jnp.sum(weights, axis=-1) ** 2 / jnp.sum(weights**2, axis=-1)
    return jnp.where(is_zero[:, 0], 0.0, size)


@declared(score=SCORES)
def choose_best(
    score: Score, candidates: Int[Array, "N P *S"]
) -> tuple[Int[Array, " N *S"], Float[Array, "N P"]]:
    """Returns the candidate of largest score for each sample, the first among equals, and all scores.

    Args:
        score: of clean examples.
        candidates: P for each sample.

    Returns:
        The best, -1 where all scores are -inf, or one is NaN that only a program knows; and the scores.

    Raises:
        ValueError: a score is NaN or +inf.
    """
    N, P = candidates.shape[:2]
    _check_any("candidates", P)
    flat = candidates.reshape(N * P, *candidates.shape[2:])
    scores = _marked(score)(flat).reshape(N, P)
    best = jnp.argmax(jnp.where(jnp.isnan(scores), -jnp.inf, scores), axis=-1)
    x0 = candidates[jnp.arange(N), best]
    # The largest is NaN where one is.
    is_possible = jnp.max(scores, axis=-1) > -jnp.inf
    return jnp.where(expand_trailing(is_possible, x0.shape), x0, -1), scores


@declared(score=SCORES, n=PARTICLES, shape=at_least(0, 2**31 - 1), start=INDEX, x0=CATEGORIES)
def best_of(
    key: Key[Array, ""],
    score: Score,
    n: int,
    sampler: Sampler,
    denoise: Denoise,
    process: Process,
    shape: tuple[int, ...],
    start: int | Int[Array, ""] = 0,
    belief: Belief = "d3pm",
    x0: Int[Array, " N *S"] | None = None,
    known: Bool[Array, " N *S"] | None = None,
    plan: Plan | None = None,
) -> Best:
    """Draws n candidates for each sample, and returns the one of largest score, the first among equals.

    Candidate j of sample i is example i n + j of `sample_by` with the same key.

    Args:
        key: a typed key.
        score: of clean examples, x [M, *S] -> [M]; -inf where a sample must never be that.
        n: how many candidates.
        sampler: its slots, or one of `sampling.named`.
        denoise: the network, (x, process.time[t]) -> logits of x_0; it is called with n of each sample.
        process: the forward process.
        shape: (N, *S), how many samples of which shape.
        start: the number of the first sample; sample i is the same whatever the batch it is drawn in.
        belief: what the logits of x_0 are (see `beliefs`).
        x0: what known places hold; any category elsewhere.
        known: which places stay as they are in x0; none by default.
        plan: the rows to take, of `make_plan` by default.

    Returns:
        `Best`. Look at `failed_at` before using it.

    Raises:
        ValueError: a slot is not for this process, a plan not for the sampler, or a score is NaN or +inf.
    """
    N, *S = _check_shape(shape)
    _check_known(x0, N)
    x0 = _of_particles(x0, n)
    known = _of_particles(known, n)
    chain = sample_by(
        key, sampler, denoise, process, (N * n, *S), start * n, (), belief, x0=x0, known=known, plan=plan
    )
    candidates = chain.x0.reshape(N, n, *S)
    best, scores = choose_best(score, candidates)
    failed_at = jnp.where((chain.failed_at == 0) & jnp.any(best < 0), 1, chain.failed_at)
    return Best(best, candidates, scores, failed_at, _sum_calls(chain, n), chain.program_calls)


@declared(score=SCORES, xT=CATEGORIES, noise=NOISE, x0=CATEGORIES)
def run_steered(
    score: Score,
    sampler: Sampler,
    denoise: Denoise,
    process: Process,
    xT: Int[Array, "N P *S"],
    noise: Streams,
    belief: Belief = "d3pm",
    x0: Int[Array, " N *S"] | None = None,
    known: Bool[Array, " N *S"] | None = None,
    plan: Plan | None = None,
) -> Steered:
    """Runs a sampler with particles that a score selects, noise given: see `steer`.

    Args:
        score: of clean examples, x [M, *S] -> [M].
        sampler: its slots.
        denoise: the network, (x, process.time[t]) -> logits of x_0.
        process: the forward process.
        xT: where the particles of each sample start.
        noise: (row, stream) -> uniforms [N P, *S], of all particles: see `sampling.noise`. Where one counts
            for a sample it is that of the first place of its first particle.
        belief: what the logits of x_0 are (see `beliefs`).
        x0, known: of the samples, as for `run_sampler`.
        plan: the rows to take, of `make_plan` by default.

    Returns:
        `Steered`. Look at `failed_at` before using it.

    Raises:
        ValueError: a slot is not for this process, a plan not for the sampler, or there is nothing to draw.
    """
    N, P, *S = xT.shape
    if xT.size == 0:
        raise ValueError(f"xT has shape {list(xT.shape)}, without a place to draw: pass sizes from 1 on")
    flat = xT.reshape(N * P, *S)
    x0 = _of_particles(x0, P)
    known = _of_particles(known, P)

    def noise_of_all(row: Array, stream: int | Array) -> Array:
        u = noise(row, stream)
        if len(u) != N * P:
            raise ValueError(
                f"noise(row, stream) has shape {u.shape}, expected {[N * P, *S]} as in xT: return a uniform "
                f"for each place of each particle"
            )
        return u

    prepared = prepare(
        sampler, denoise, process, flat, noise_of_all, belief, x0, known, plan, is_watched=True
    )
    marked_noise = prepared.problem.noise
    call_score = _marked(score)
    dtype = process.log_prior().dtype
    memory = prepared.memory | {SCORE: jnp.zeros(N * P, dtype)}

    def take_row(state: State, row: Row) -> tuple[State, Selection]:
        before = state.memory[SCORE]
        state = state._replace(memory={k: x for k, x in state.memory.items() if k != SCORE})
        after, seen = prepared.take_row(state, row)
        scores = call_score(_draw_clean(prepared.problem, seen, after.x, row)).astype(dtype)
        is_called = jnp.full(before.shape, row.s <= row.t)
        if sampler.reveal is not None:
            is_called = after.calls > state.calls

        # On the way -inf says nothing: a draw of the belief is not what a particle will be, and one that is
        # dropped for it would be missing among those that turn out well.
        is_last = row.number == 1
        counts = is_last | (is_called & (scores != -jnp.inf))
        scores = jnp.where(counts, scores, before)
        log_weights = (scores - before).reshape(N, P)
        ancestors = resample(log_weights, _of_samples(marked_noise(row.number, SELECT), N))

        # A sample that one particle failed in has failed, as in any batch.
        is_broken = (after.x < 0) | (state.x < 0)
        failed = (ancestors[:, 0] < 0) | jnp.any(is_broken.reshape(N, -1), axis=1)  # [N]
        index = (jnp.arange(N, dtype=jnp.int32)[:, None] * P + jnp.maximum(ancestors, 0)).reshape(N * P)
        x = jnp.where(expand_trailing(jnp.repeat(failed, P), after.x.shape), -1, after.x[index])
        scores = scores[index]
        memory = {name: values[index] for name, values in after.memory.items()} | {SCORE: scores}
        size = jnp.where(failed, 0.0, effective_size(log_weights))
        selection = Selection(scores.reshape(N, P), log_weights, ancestors, size)
        return after._replace(x=x, memory=memory), selection

    chain, selections = run_plan(take_row, prepared.plan, prepared.x, memory)
    chain = count_calls(chain, prepared)
    of_samples = chain.x0.reshape(N, P, *S)
    u = _of_samples(marked_noise(jnp.asarray(PRIOR_STEP, jnp.int32), SELECT), N)
    chosen = jnp.minimum((u * P).astype(jnp.int32), P - 1)
    return Steered(
        of_samples[jnp.arange(N), chosen],
        of_samples,
        selections.scores[-1],
        selections.log_weights,
        selections.ancestors,
        selections.effective_size,
        chain.failed_at,
        _sum_calls(chain, P),
        chain.program_calls,
    )


@declared(score=SCORES, particles=PARTICLES, shape=at_least(0, 2**31 - 1), start=INDEX, x0=CATEGORIES)
def steer(
    key: Key[Array, ""],
    score: Score,
    particles: int,
    sampler: Sampler,
    denoise: Denoise,
    process: Process,
    shape: tuple[int, ...],
    start: int | Int[Array, ""] = 0,
    belief: Belief = "d3pm",
    x0: Int[Array, " N *S"] | None = None,
    known: Bool[Array, " N *S"] | None = None,
    plan: Plan | None = None,
) -> Steered:
    """Draws samples of p(x_0) exp(score(x_0)) / Z by particles, in the limit of many: see the module.

    Particle j of sample i begins as example i P + j of `sample_by` with the same key does, and stays it
    where all scores are equal. A score of -inf means never; of a draw on the way it says nothing.

    Args:
        key: a typed key.
        score: of clean examples, x [M, *S] -> [M], in nats: it is called once a row, with all particles.
        particles: P, how many of each sample.
        sampler: its slots, or one of `sampling.named`.
        denoise: the network, (x, process.time[t]) -> logits of x_0; it is called with P of each sample.
        process: the forward process.
        shape: (N, *S), how many samples of which shape.
        start: the number of the first sample; sample i is the same whatever the batch it is drawn in.
        belief: what the logits of x_0 are (see `beliefs`).
        x0: what known places hold; any category elsewhere.
        known: which places stay as they are in x0; none by default.
        plan: the rows to take, of `make_plan` by default.

    Returns:
        `Steered`. Look at `failed_at` before using it: a row where a score or the network was NaN, say.

    Raises:
        ValueError: a slot is not for this process, or a plan not for the sampler.
    """
    N, *S = _check_shape(shape)
    _check_known(x0, N)
    if plan is not None:
        plan = read_plan(plan)
        check_start(plan, process)
    numbers = start * particles + jnp.arange(N * particles, dtype=jnp.int32)
    noise = per_example(key, numbers, tuple(S))
    xT = process.draw_prior(noise(jnp.asarray(PRIOR_STEP, jnp.int32)))
    xT = xT.reshape(N, particles, *S)
    return run_steered(score, sampler, denoise, process, xT, noise, belief, x0, known, plan)


def _check_shape(shape: tuple[int, ...]) -> tuple[int, ...]:
    if not shape:
        raise ValueError("shape = (): it must be (N, *S), the number of samples and the shape of each")
    return shape


def _marked(score: Callable[[Array], Array]) -> Callable[[Array], Array]:
    """Returns a score that is NaN where it was NaN or +inf, and only a program knows."""

    @marked
    def call(x: Array) -> Float[Array, " M"]:
        return score(x)

    return call


def _draw_clean(problem: Problem, seen: Seen | None, x: Array, row: Row) -> Array:
    """Draws x_0 of what the network said in a row, given the x_s that was drawn then; x itself at s = 0."""
    assert seen is not None
    process = problem.process
    t = jnp.broadcast_to(row.t, x.shape[:1])
    s = jnp.broadcast_to(row.s, x.shape[:1])
    u = problem.noise(row.number, CLEAN)
    logits, belief = shape_logits(problem, seen.logits, seen.x, t)
    if problem.sampler.needs_extra_mask:
        drawn = inverse_cdf.categorical(laws.denoiser_of(process, logits, seen.x, t, belief), u)
        clean = jnp.where(x == laws.mask_of(process), drawn, x)
    else:
        # p(x_0 | x_s, x_t) of independent places: leave-one-out logits do not hold the evidence of x_t, and
        # that of x_s is all to add. Where a corrector has moved x to what they rule out, it alone counts.
        evidence = process.log_q_x0(x, s)  # [B, *S, K]
        logits_loo = laws.leave_one_out_of(process, logits, seen.x, t, belief)
        log_p = promote(process, logits_loo) + evidence
        is_ruled_out = jnp.max(log_p, axis=-1, keepdims=True) == -jnp.inf
        drawn = inverse_cdf.categorical(jnp.where(is_ruled_out, evidence, log_p), u)
        clean = jnp.where(row.s == 0, x, drawn)
    if problem.unknown is not None and problem.x0 is not None:
        clean = jnp.where(problem.unknown, clean, problem.x0)
    # A sample that failed has no categories, and a score need not know of that.
    return jnp.maximum(clean, 0)


def _check_any(name: str, P: int) -> None:
    """Raises ValueError where there are no particles."""
    if P == 0:
        raise ValueError(f"{name} has P = 0 particles for each sample: pass at least 1")


def _check_known(x0: Array | None, N: int) -> None:
    """Raises ValueError where known places are not of N samples."""
    if x0 is not None and len(x0) != N:
        raise ValueError(f"x0 and known are of {len(x0)} samples, but shape says {N}: pass one for each")


def _of_particles(x: Array | None, P: int) -> Array | None:
    """Returns what samples have for the P particles of each, [N P, ..]; None for None."""
    if x is None:
        return None
    return jnp.repeat(x, P, axis=0)


def _of_samples(u: Array, N: int) -> Array:
    """Returns the uniform of the first place of the first particle of each of N samples, [N]."""
    return u.reshape(N, -1)[:, 0]


def _sum_calls(chain: Chain, particles: int) -> Array:
    """Returns the calls of the network for each sample, of all of its particles."""
    return jnp.sum(chain.calls.reshape(-1, particles), axis=-1, dtype=jnp.int32)
