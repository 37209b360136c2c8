"""Draws samples that a user's score prefers: the best of some, or by particles that are selected on the way.

    best = best_of(key, score, 16, denoiser, shape=(8, 64))
    steered = steer(key, score, 16, denoiser, shape=(8, 64))

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
from functools import partial
from typing import Annotated, NamedTuple

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Int, Key

from d3pm_jax.checks import CATEGORIES, INDEX, NOISE, SCORES, Called, at_least, declared, marked_as
from d3pm_jax.numerics import inverse_cdf
from d3pm_jax.numerics.logspace import at_least_float32
from d3pm_jax.processes import expand_trailing, promote
from d3pm_jax.projection import require_array
from d3pm_jax.sampling import laws
from d3pm_jax.sampling.chain import Chain
from d3pm_jax.sampling.denoiser import Denoiser
from d3pm_jax.sampling.noise import CLEAN, SELECT, per_example
from d3pm_jax.sampling.plans import Plan, check_start, read_plan
from d3pm_jax.sampling.run import (
    PRIOR_STEP,
    AroundStep,
    PreparedChain,
    check_examples,
    prepare,
    run_rows,
    sample,
    see_logits,
)
from d3pm_jax.sampling.sampler import Sampler
from d3pm_jax.sampling.steps import Known, Memory, Step, Taken, View

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
def resample(log_weights: Float[Array, "N n"], u: Float[Array, " N"]) -> Int[Array, "N n"]:
    """Draws P of P particles by their weights: number j at (j + u) / P of their sum (systematic resampling).

    So a particle with a share w of the weights is drawn floor(P w) or ceil(P w) times, and all of them once
    where they weigh alike. The order of additions is fixed, as in `inverse_cdf`.

    Args:
        log_weights: of n = P particles, in nats, not normalised.
        u: one uniform for all particles of a sample.

    Returns:
        Which particle each is drawn from, in rising order; -1 where there is nothing to draw from (all -inf,
        or NaN).
    """
    P = log_weights.shape[-1]
    # In 16 bits a sum of many weights would be rounded by whole particles.
    log_weights = at_least_float32(log_weights)
    u = at_least_float32(u)
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
def effective_size(log_weights: Float[Array, "N n"]) -> Float[Array, " N"]:
    """(sum w)^2 / sum w^2: how many particles of equal weight these are worth; 0 where there is no weight.

    Args:
        log_weights: of n particles, in nats, not normalised.
    """
    log_weights = at_least_float32(log_weights)
    top = jnp.max(log_weights, axis=-1, keepdims=True)
    is_zero = top == -jnp.inf  # [N, 1]
    weights = jnp.exp(log_weights - jnp.where(is_zero, 0.0, top))
    size = jnp.sum(weights, axis=-1) ** 2 / jnp.sum(weights**2, axis=-1)
    return jnp.where(is_zero[:, 0], 0.0, size)


@declared(score=SCORES)
def choose_best(
    score: Score, candidates: Int[Array, "N n *S"]
) -> tuple[Int[Array, " N *S"], Float[Array, "N n"]]:
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
    flat = candidates.reshape(N * P, *candidates.shape[2:])
    scores = marked_as(Float[Array, " M"], score)(flat).reshape(N, P)
    best = jnp.argmax(jnp.where(jnp.isnan(scores), -jnp.inf, scores), axis=-1)
    x0 = candidates[jnp.arange(N), best]
    # The largest is NaN where one is.
    is_possible = jnp.max(scores, axis=-1) > -jnp.inf
    return jnp.where(expand_trailing(is_possible, x0.shape), x0, -1), scores


@declared(score=SCORES, n=PARTICLES, shape=at_least(0, 2**31 - 1), first=INDEX, known=CATEGORIES)
def best_of(
    key: Key[Array, ""],
    score: Score,
    n: int,
    denoiser: Denoiser,
    shape: tuple[int, ...],
    sampler: Sampler = Sampler(),
    *,
    first: int | Int[Array, ""] = 0,
    known: Known | None = None,
    plan: Plan | None = None,
) -> Best:
    """Draws n candidates for each sample, and returns the one of largest score, the first among equals.

    Candidate j of sample i is example i n + j of `sample` with the same key.

    Args:
        key: a typed key.
        score: of clean examples, x [M, *S] -> [M]; -inf where a sample must never be that.
        n: how many candidates.
        denoiser: the process, and the network, which is called with n of each sample.
        shape: (N, *S), how many samples of which shape.
        sampler: its slots, or one of `sampling.named`.
        first: the number of the first sample; sample i is the same whatever the batch it is drawn in.
        known: places of each sample that stay as they are; none by default.
        plan: the rows to take, of `make_plan` by default.

    Returns:
        `Best`. Look at `failed_at` before using it.

    Raises:
        ValueError: the sampler is not for this process, a plan not for it, or a score is NaN or +inf.
    """
    N, *S = _check_shape(shape)
    check_examples("known", known, shape)
    known = _of_particles(known, n)
    chain = sample(key, denoiser, (N * n, *S), sampler, first=first * n, known=known, plan=plan)
    candidates = chain.x0.reshape(N, n, *S)
    best, scores = choose_best(score, candidates)
    failed_at = jnp.where((chain.failed_at == 0) & jnp.any(best < 0), 1, chain.failed_at)
    return Best(best, candidates, scores, failed_at, _sum_calls(chain, n), chain.program_calls)


@declared(score=SCORES, particles=PARTICLES, shape=at_least(0, 2**31 - 1), first=INDEX, known=CATEGORIES)
def steer(
    key: Key[Array, ""],
    score: Score,
    particles: int,
    denoiser: Denoiser,
    shape: tuple[int, ...],
    sampler: Sampler = Sampler(),
    *,
    first: int | Int[Array, ""] = 0,
    known: Known | None = None,
    plan: Plan | None = None,
) -> Steered:
    """Draws samples of p(x_0) exp(score(x_0)) / Z by particles, in the limit of many: see the module.

    Particle j of sample i begins as example i P + j of `sample` with the same key does, and stays it where
    all scores are equal. A score of -inf means never; of a draw on the way it says nothing.

    Args:
        key: a typed key.
        score: of clean examples, x [M, *S] -> [M], in nats: it is called once a row, with all particles.
        particles: P, how many of each sample.
        denoiser: the process, and the network, which is called with P of each sample.
        shape: (N, *S), how many samples of which shape.
        sampler: its slots, or one of `sampling.named`.
        first: the number of the first sample; sample i is the same whatever the batch it is drawn in.
        known: places of each sample that stay as they are; none by default.
        plan: the rows to take, of `make_plan` by default.

    Returns:
        `Steered`. Look at `failed_at` before using it: a row where a score or the network was NaN, say.

    Raises:
        ValueError: the sampler is not for this process, a plan not for it, or there is nothing to draw.
    """
    N, *S = _check_shape(shape)
    check_examples("known", known, shape)
    known = _of_particles(known, particles)
    if 0 in shape:
        raise ValueError(f"shape = {shape}: there is no place to draw; pass sizes from 1 on")
    if plan is not None:
        plan = read_plan(plan)
        check_start(plan, denoiser.process)
    numbers = first * particles + jnp.arange(N * particles, dtype=jnp.int32)
    noise = per_example(key, numbers, tuple(S))
    xT = denoiser.process.draw_prior(noise(jnp.asarray(PRIOR_STEP, jnp.int32)))
    prepared = prepare(denoiser, xT, noise, sampler, known, plan)
    chain = run_rows(prepared, Selecting(prepared, marked_as(Float[Array, " M"], score), particles))
    of_samples = chain.x0.reshape(N, particles, *S)
    u = _of_samples(prepared.noise(jnp.asarray(PRIOR_STEP, jnp.int32), SELECT), N)
    chosen = jnp.minimum((u * particles).astype(jnp.int32), particles - 1)
    selections: Selection = chain.seen
    return Steered(
        of_samples[jnp.arange(N), chosen],
        of_samples,
        selections.scores[-1],
        selections.log_weights,
        selections.ancestors,
        selections.effective_size,
        chain.failed_at,
        _sum_calls(chain, particles),
        chain.program_calls,
    )


class Selecting(AroundStep[Step]):
    """Takes a row by a step, and then selects particles by how much their scores have risen."""

    def __init__(self, prepared: PreparedChain, score: Callable[[Array], Array], particles: int) -> None:
        """Keeps what the chain is run on, the score, and the number of particles of each sample."""
        super().__init__(prepared.step)
        self.prepared = prepared
        self.score = score
        self.particles = particles

    def start(self, view: View) -> Memory:
        scores = jnp.zeros(view.x.shape[:1], view.process.log_prior().dtype)
        return self.step.start(view) | {SCORE: scores}

    def take(self, view: View) -> Taken:
        P = self.particles
        N = len(view.x) // P
        before = view.memory[SCORE]
        memory = {name: values for name, values in view.memory.items() if name != SCORE}
        taken = self.step.take(
            view._replace(memory=memory, see=see_logits(view, partial(require_array, user="steering")))
        )
        if taken.seen is None:
            raise TypeError(
                f"{type(self.prepared.sampler.step).__name__} returned no Taken.seen, of which x_0 is "
                f"drawn to be scored: return Taken(x, memory, view.see(answer))"
            )
        scores = self.score(self._draw_clean(view, taken)).astype(before.dtype)
        is_called = jnp.full(before.shape, view.row.s <= view.row.t)
        if taken.calls is not None:
            is_called = taken.calls > 0

        # On the way -inf says nothing: a draw of the belief is not what a particle will be, and one that is
        # dropped for it would be missing among those that turn out well.
        is_last = view.row.number == 1
        counts = is_last | (is_called & (scores != -jnp.inf))
        scores = jnp.where(counts, scores, before)
        log_weights = (scores - before).reshape(N, P)
        ancestors = resample(log_weights, _of_samples(view.noise(SELECT), N))

        # A sample that one particle failed in has failed, as in any batch.
        is_broken = (taken.x < 0) | (view.x < 0)
        failed = (ancestors[:, 0] < 0) | jnp.any(is_broken.reshape(N, -1), axis=1)  # [N]
        index = (jnp.arange(N, dtype=jnp.int32)[:, None] * P + jnp.maximum(ancestors, 0)).reshape(N * P)
        x = jnp.where(expand_trailing(jnp.repeat(failed, P), taken.x.shape), -1, taken.x[index])
        scores = scores[index]
        memory = {name: values[index] for name, values in taken.memory.items()} | {SCORE: scores}
        size = jnp.where(failed, 0.0, effective_size(log_weights))
        seen = Selection(scores.reshape(N, P), log_weights, ancestors, size)
        return taken._replace(x=x, memory=memory, seen=seen)

    def _draw_clean(self, view: View, taken: Taken) -> Array:
        """Draws x_0 of what the network said in a row, given the x_s that was drawn; x_s itself at s = 0."""
        process = view.process
        x = taken.x
        u = view.noise(CLEAN)
        said = taken.seen  # by `see_logits`
        answer = self.prepared.sampler.shape(self.prepared.denoiser.answer(said, view.x, view.t))
        if self.prepared.sampler.needs_extra_mask:
            drawn = inverse_cdf.categorical(answer.log_denoiser, u)
            clean = jnp.where(x == laws.mask_of(process), drawn, x)
        else:
            # p(x_0 | x_s, x_t) of independent places: leave-one-out logits do not hold the evidence of x_t,
            # and that of x_s is all to add. Where a corrector has moved x to what they rule out, it alone
            # counts.
            evidence = process.log_q_x0(x, view.s)  # [B, *S, K]
            log_p = promote(process, answer.logits_loo) + evidence
            is_ruled_out = jnp.max(log_p, axis=-1, keepdims=True) == -jnp.inf
            drawn = inverse_cdf.categorical(jnp.where(is_ruled_out, evidence, log_p), u)
            clean = jnp.where(view.row.s == 0, x, drawn)
        known = self.prepared.known
        if known is not None:
            clean = jnp.where(known.mask, known.x0, clean)
        # A sample that failed has no categories, and a score need not know of that.
        return jnp.maximum(clean, 0)


def _check_shape(shape: tuple[int, ...]) -> tuple[int, ...]:
    if not shape:
        raise ValueError("shape = (): it must be (N, *S), the number of samples and the shape of each")
    return shape


def _of_particles(known: Known | None, P: int) -> Known | None:
    """Returns the known places of N samples for the P particles of each, [N P, ..]; None for None."""
    if known is None:
        return None
    return Known(*(jnp.repeat(x, P, axis=0) for x in known))


def _of_samples(u: Array, N: int) -> Array:
    """Returns the uniform of the first place of the first particle of each of N samples, [N]."""
    return u.reshape(N, -1)[:, 0]


def _sum_calls(chain: Chain, particles: int) -> Array:
    """Returns the calls of the network for each sample, of all of its particles."""
    return jnp.sum(chain.calls.reshape(-1, particles), axis=-1, dtype=jnp.int32)
