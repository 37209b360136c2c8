"""Times calls in turn, and writes what was found as rows of a Markdown table: what is wrong gets no time."""

import math
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

Calls = Mapping[str, Callable[[], Any]]
HEAD = ("what", "ours", "the other side", "ratio", "share", "memory", "correct?")


class Check(NamedTuple):
    """Says whether a result is right, and by what."""

    ok: bool
    words: str


class Row(NamedTuple):
    """A line of the table, in words."""

    what: str
    ours: str = ""
    other: str = ""
    ratio: str = ""  # how many times as fast ours is, in the same round
    share: str = ""  # of the bandwidth of a copy, or of the peak
    memory: str = ""
    correct: str = ""
    ok: bool = True


def judged(what: str, checks: Sequence[Check], measure: Callable[[], Row]) -> Row:
    """Measures if every check holds; says which do not hold in place of a time."""
    wrong = [check.words for check in checks if not check.ok]
    if wrong:
        return Row(what, correct="WRONG: " + "; ".join(wrong), ok=False)
    return measure()._replace(what=what, correct="yes: " + "; ".join(check.words for check in checks))


def attempted(what: str, find: Callable[[], Row]) -> Row:
    """A row that cannot be found, for want of memory say, says so and lets the others be."""
    try:
        return find()
    except Exception as error:
        first = next(iter(str(error).splitlines()), "")[:200]
        return Row(what, correct=f"DID NOT RUN: {type(error).__name__}: {first}", ok=False)


def in_turn(calls: Calls, rounds: int, least: float = 0.0) -> dict[str, np.ndarray]:
    """Seconds of a call, by side and round: as many calls in a row as take `least` seconds, after one more.

    That one is not timed: the caches, the free pages and the clock are a side's own, not those of the side
    before. Results are waited for once, after the last call.
    """
    repeats = {}
    for name, call in calls.items():
        jax.block_until_ready(call())
        repeats[name] = max(1, math.ceil(least / max(_seconds(call, 1), 1e-6)))
    found: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(rounds):
        for name, call in calls.items():
            jax.block_until_ready(call())
            found[name].append(_seconds(call, repeats[name]))
    return {name: np.array(seconds) for name, seconds in found.items()}


def _seconds(call: Callable[[], Any], repeats: int) -> float:
    start = time.perf_counter()
    for _ in range(repeats):
        result = call()
    jax.block_until_ready(result)
    return (time.perf_counter() - start) / repeats


def times(ratios: np.ndarray) -> str:
    """The median of ratios, and their range."""
    return f"{np.median(ratios):.2f} ({ratios.min():.2f} to {ratios.max():.2f})"


def table(rows: Sequence[Row]) -> str:
    """One Markdown table."""
    lines = [HEAD, ("---",) * len(HEAD), *(row[: len(HEAD)] for row in rows)]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)
