"""Times calls in turn, and writes rows of a Markdown table: what is wrong gets no time."""

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

Calls = Mapping[str, Callable[[], Any]]
# What a row is of, and how it is computed.
Rows = Iterator[tuple[str, Callable[[], "Row"]]]
ROUNDS = 9
LEAST = 0.02  # seconds of a side in a round
HEAD = ("what", "ours", "the other side", "ratio", "share", "memory", "correct?")


class Check(NamedTuple):
    """Says whether a result is right, and by what."""

    ok: bool
    words: str


class Row(NamedTuple):
    """A line of the table behind what it is of, in words."""

    ours: str = ""
    other: str = ""
    ratio: str = ""  # how many times as fast ours is, in the same round
    share: str = ""  # of the bandwidth of a copy, or of the peak
    memory: str = ""
    correct: str = ""
    ok: bool | None = None  # None: left out


def within(name: str, **errors: tuple[float, float]) -> Check:
    """Checks that each error is at most the one that it may be; NaN is not."""
    words = ", ".join(f"{error:.0e} in {what} ({most:.0e})" for what, (error, most) in errors.items())
    return Check(all(error <= most for error, most in errors.values()), f"{name} {words}")


def judged(
    checks: Sequence[Check],
    calls: Calls,
    speed: Callable[[float], str],
    share: Callable[[float], str] = lambda seconds: "",
    memory: str = "",
) -> Row:
    """Times ours and the other side, if every check holds; says which do not hold in place of a time."""
    wrong = [check.words for check in checks if not check.ok]
    if wrong:
        return Row(correct="WRONG: " + "; ".join(wrong), ok=False)
    seconds_by_side = list(in_turn(calls, ROUNDS, LEAST).values())  # ours first
    medians = [float(np.median(seconds)) for seconds in seconds_by_side]
    speeds = [speed(seconds) for seconds in medians]
    row = Row(*speeds, share=share(medians[0]), memory=memory, ok=True)
    if len(medians) > 1:
        ratios = seconds_by_side[1] / seconds_by_side[0]
        row = row._replace(ratio=f"{np.median(ratios):.2f} ({ratios.min():.2f} to {ratios.max():.2f})")
    return row._replace(correct="yes: " + "; ".join(check.words for check in checks))


def attempted(find: Callable[[], Row]) -> Row:
    """Computes a row; one that cannot be, for want of memory say, says so and lets the others be."""
    try:
        return find()
    except Exception as error:
        return failed(error)


def failed(error: Exception) -> Row:
    """Returns the row that says why there is none."""
    first = next(iter(str(error).splitlines()), "")[:200]
    return Row(correct=f"DID NOT RUN: {type(error).__name__}: {first}", ok=False)


def in_time(seconds: float, end: float, find: Callable[[], Row]) -> Row:
    """Leaves a row out that takes more than the seconds which are left until `end` by the monotonic clock."""
    left = max(0.0, end - time.monotonic())
    if left >= seconds:
        return find()
    return Row(correct=f"NOT COMPARED: no time, some {seconds:.0f} s needed, {left:.0f} s left; --minutes 30")


def in_turn(calls: Calls, rounds: int, least: float = 0.0) -> dict[str, np.ndarray]:
    """Times calls by side and round: as many calls in a row as take `least` seconds, after one more.

    That one is not timed: the caches, the free pages and the clock are a side's own, not those of the side
    before. Results are waited for once, after the last call.
    """
    repeats = {}
    for name, call in calls.items():
        jax.block_until_ready(call())
        repeats[name] = max(1, math.ceil(least / max(_seconds(call, 1), 1e-6)))
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(rounds):
        for name, call in calls.items():
            jax.block_until_ready(call())
            seconds[name].append(_seconds(call, repeats[name]))
    return {name: np.array(of_side) for name, of_side in seconds.items()}


def _seconds(call: Callable[[], Any], repeats: int) -> float:
    start = time.perf_counter()
    for _ in range(repeats):
        result = call()
    jax.block_until_ready(result)
    return (time.perf_counter() - start) / repeats


def temporaries(compiled: Any) -> str:
    """Returns the memory of a program besides its inputs and outputs."""
    return f"{compiled.memory_analysis().temp_size_in_bytes / 1e6:,.1f} MB"


def line(cells: Sequence[str]) -> str:
    """Returns a line of a Markdown table."""
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"
