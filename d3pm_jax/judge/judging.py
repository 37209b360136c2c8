"""Judges samplers: draws, counts, and says what the samples tell of their law."""

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import numpy as np

from d3pm_jax.checks import Count, Epsilon, Seed, check_value
from d3pm_jax.errors import UserError, as_user_error, one_line
from d3pm_jax.judge.figures import BINS, compute_figures, count, with_errors
from d3pm_jax.judge.subjects import Subject, fit_steps, read_subject
from d3pm_jax.judge.targets import (
    NETWORK,
    NETWORK_CATEGORIES,
    NETWORK_LENGTH,
    Target,
    claimed_target,
    known_target,
    list_states,
    make_process,
)
from d3pm_jax.judge.verdicts import (
    bound_above,
    bound_below,
    describe_bounds,
    describe_course,
    gather_samples,
)
from d3pm_jax.keys import make_key
from d3pm_jax.oracles import Oracle
from d3pm_jax.program.measure.record import Format, Record, check_numbers
from d3pm_jax.sampler_laws import TooMany

LEAST_CALLS = 30  # of a function, for errors
REFERENCE = 4  # times as many exact samples as samples bound the probability of an event
LEVEL = 1e-4
# What exact samples are for.
FLOOR = 0
BOUND = 1


def check_record(record: Record) -> None:
    """Raises where a record has no rows of figures."""
    for row in record["rows"]:
        check_numbers((row["calls"], row["tv_at_least"], row["tv_at_most"]))
        for figure in row["figures"].values():
            check_numbers(figure.values())


JUDGED = Format(
    "judged",
    check_record,
    compared=("target", "num", "level"),
    replaced=("sampler", "target"),
    damaged="{path} is damaged ({why}): delete it, `d3pm judge` writes it again",
)


# Of the fields of a `Protocol`.
PROTOCOL_HINTS = {"calls": tuple[Count, ...], "num": Count, "batches": Count, "seed": Seed, "level": Epsilon}


class Protocol(NamedTuple):
    """Says by how much a sampler is judged."""

    calls: Sequence[int] = (8, 16, 32, 64)
    """numbers of network calls; a sampler that takes as many as it takes is judged once"""
    num: int = 3000
    """samples with each number of calls, rounded up to a multiple of the batches"""
    batches: int = LEAST_CALLS
    """calls of the function that they are drawn in, at least 30, each with a seed of its own"""
    seed: int = 0
    """of these, and of exact samples"""
    level: float = LEVEL
    """the probability, at most, that a sampler with the true law is said to have another, of each number of
    calls"""

    def check(self) -> None:
        """Raises UserError for what is no number, and for too few samples or calls."""
        with as_user_error():
            for name, hint in PROTOCOL_HINTS.items():
                check_value(name, getattr(self, name), hint)
        if self.batches < LEAST_CALLS:
            raise UserError(
                f"batches = {self.batches}: errors need at least {LEAST_CALLS} calls of the function"
            )
        if self.num < self.batches:
            raise UserError(
                f"num = {self.num}: draw at least {self.batches} samples, one for each call of the function"
            )
        if self.level == 1:
            raise UserError("level = 1: it must be below 1")
        if not self.calls:
            raise UserError("calls = (): name at least one number of calls, from 1 on")


DEFAULT = Protocol()


def judge(
    subject: Subject | str, target: Oracle | str, protocol: Protocol = DEFAULT, name: str | None = None
) -> Record:
    """Judges a sampler by what it draws with each number of network calls.

    Args:
        subject: of `sampler_subject` or `function_subject`, or words as `read_subject` takes them.
        target: a law of `oracles`, or "network" for a random network and the law of what the subject claims.
        protocol: how many samples and calls.
        name: of the law, in the record; by default that of the class of the oracle.

    Returns:
        "verdict" over all calls, "levels" of a claimed sampler that has some, and "rows": for each number of
        calls its verdict, "tv_at_least" (0 if not told apart) and "tv_at_most" with what it is of, and
        "figures", each with "error", "floor" and "floor_error".

    Raises:
        UserError: it is told something else, there are too few samples or calls, the function returns or asks
            for something wrong, or it claims to be nothing that can be enumerated.
    """
    if not isinstance(protocol, Protocol):
        raise UserError(f"protocol = {_shorten(protocol)}: pass a judge.Protocol")
    protocol.check()
    if isinstance(subject, str):
        subject = read_subject(subject)
    if not isinstance(subject, Subject):
        raise UserError(
            f"subject = {_shorten(subject)}: pass sampler_subject(name, sampler), function_subject(name, f) "
            f"or words as read_subject takes them"
        )
    if not isinstance(target, Oracle) and not (isinstance(target, str) and target == NETWORK):
        raise UserError(
            f"target = {_shorten(target)}: pass one of d3pm_jax.oracles, as read_target('chain') returns, or "
            f"'{NETWORK}'"
        )
    all_calls = sorted(set(protocol.calls)) if subject.follows_calls else [max(protocol.calls)]
    aims = [make_target(subject, target, calls, protocol.seed) for calls in all_calls]
    rows = [judge_calls(subject, aim, calls, protocol) for aim, calls in zip(aims, all_calls, strict=True)]
    aim = aims[0]
    content = {
        "sampler": subject.name,
        "levels": describe_levels(subject, target, all_calls[0]),
        "target": name or aim.name,
        "num": rows[0]["num"],
        "verdict": describe_course([row["tv_at_least"] for row in rows]),
        "rows": rows,
        "protocol": {
            "target": name or aim.name,
            "K": aim.K,
            "length": aim.length,
            "noise": aim.noise,
            "num": rows[0]["num"],
            "batches": protocol.batches,
            "seed": protocol.seed,
            "level": protocol.level,
        },
    }
    return Record(JUDGED, content)


def _shorten(value: object) -> str:
    return one_line(repr(value), 80)


def make_target(subject: Subject, target: Oracle | str, calls: int, seed: int) -> Target:
    """Makes the target of a subject with so many calls.

    Raises:
        UserError: it claims to be no sampler, or one that cannot be enumerated.
    """
    if isinstance(target, Oracle):
        return known_target(target, subject.noise)
    if subject.claim is None:
        raise UserError(
            f"{subject.name} does not say which sampler it is: write claims = 'random_order', or another "
            f"name, into its file"
        )
    sampler = subject.claim(calls)
    steps = fit_steps(sampler, subject.noise, (NETWORK_CATEGORIES, NETWORK_LENGTH), calls)
    alphas = None
    if subject.alphas is not None and has_levels(subject, target, calls):
        alphas = subject.alphas(steps)
    try:
        with as_user_error(f"{subject.name}: "):
            process = make_process(subject.noise, NETWORK_CATEGORIES, steps, alphas)
            return claimed_target(sampler, process, subject.noise, seed)
    except TooMany as error:
        raise UserError(
            f"{subject.name} with {calls} calls remembers too much to be enumerated: take fewer calls"
        ) from error


def has_levels(subject: Subject, target: Oracle | str, calls: int) -> bool:
    """Whether it is held against a sampler that goes by levels, not by masks."""
    if isinstance(target, Oracle) or subject.claim is None:
        return False
    return not subject.claim(calls).step.goes_by_masks


def describe_levels(subject: Subject, target: Oracle | str, calls: int) -> str | None:
    """Says which levels the sampler has that it is held against; None where that goes by masks."""
    if not has_levels(subject, target, calls):
        return None
    if subject.alphas is not None:
        return "alpha(t) of the file, at evenly spaced t"
    return "alpha(t) = 1 - t, at evenly spaced t; those of another schedule are taken from alpha(t) of a file"


def judge_calls(subject: Subject, target: Target, calls: int, protocol: Protocol) -> dict[str, Any]:
    """Returns the row of one number of calls, see `judge`."""
    seed = protocol.seed
    batches = protocol.batches
    size = -(-protocol.num // batches)
    first_seed = seed * batches
    drawn = [subject.draw(target, size, first_seed + batch, calls) for batch in range(batches)]
    again, _ = subject.draw(target, size, first_seed, calls)
    _check_seeds(subject.name, [x for x, _ in drawn], again, first_seed)

    exact = list(draw_exact(target, size, (seed, FLOOR), batches))
    edges = choose_edges(-target.log_prob(np.concatenate(exact)))
    reference = partial(draw_exact, target, size, (seed, BOUND), REFERENCE * batches)
    shares = share_bins(target, edges, reference)
    figures_of = partial(compute_figures, target=target, bins=shares)
    counts = [count(x, target, edges) for x, _ in drawn]
    values, errors = with_errors(counts, figures_of)
    floors, floor_errors = with_errors([count(x, target, edges) for x in exact], figures_of)

    x = np.concatenate([x for x, _ in drawn])
    half = batches // 2
    tested = [gather_samples(of_call, target) for of_call, _ in drawn[half:]]
    halves = gather_samples(x[: half * size], target), tested
    true = gather_samples(np.concatenate(exact), target)
    if target.law is not None:
        true = true._replace(times=target.law)
    at_least, event = bound_below(halves, target, true, reference, protocol.level)
    at_most, of = bound_above(counts, target, protocol.level)
    taken = [number for _, number in drawn if number is not None]
    return {
        "calls": calls,
        "calls_taken": float(np.mean(taken)) if taken else None,
        "num": len(x),
        "verdict": describe_bounds(at_least, at_most, of, len(x)),
        "tv_at_least": at_least,
        "event": event,
        "tv_at_most": at_most,
        "tv_at_most_of": of,
        "figures": {
            name: {
                "value": value,
                "error": errors[name],
                "floor": floors[name],
                "floor_error": floor_errors[name],
            }
            for name, value in values.items()
        },
    }


def _check_seeds(name: str, drawn: Sequence[np.ndarray], again: np.ndarray, seed: int) -> None:
    """Raises UserError where samples are not a function of the seed, or the same function for all seeds."""
    first, *others = drawn
    if not np.array_equal(first, again):
        raise UserError(f"{name} drew other samples when called again with seed = {seed}: draw all by `seed`")
    # A law of one state has the same ones too, and so may have one of few.
    is_peaked = (first == first[:1]).all()
    if not is_peaked and all(np.array_equal(first, x) for x in others):
        raise UserError(
            f"{name} drew the same samples with all seeds from {seed} to {seed + len(others)}: draw all by "
            f"`seed`"
        )


def draw_exact(target: Target, size: int, seeds: tuple[int, int], batches: int) -> Iterator[np.ndarray]:
    """Draws batches of exact samples, others for each purpose, the second of two seeds."""
    seed, purpose = seeds
    key = jax.random.fold_in(make_key(seed), purpose)
    for batch in range(batches):
        yield target.draw(jax.random.fold_in(key, batch), size)


def choose_edges(nats: np.ndarray) -> np.ndarray:
    """Returns edges of bins of -log p that have about as many exact samples each."""
    return np.unique(np.quantile(nats, np.arange(1, BINS) / BINS))


def share_bins(
    target: Target, edges: np.ndarray, reference: Callable[[], Iterator[np.ndarray]]
) -> np.ndarray:
    """Returns the probability of each bin of -log p under the true law, which is estimated if need be."""
    weights = target.law
    if weights is not None:
        nats = -target.log_prob(list_states(target.K, target.length))
    else:
        nats = np.concatenate([-target.log_prob(x) for x in reference()])
        weights = np.full(len(nats), 1 / len(nats))
    return np.bincount(np.searchsorted(edges, nats), weights, minlength=len(edges) + 1)
