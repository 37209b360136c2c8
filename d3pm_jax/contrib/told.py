"""Holds what a checkpoint of another program does not say: what a user says of it, and its defaults."""

from typing import Any, NamedTuple

import numpy as np

MOST_STEPS = 2**24


class Told(NamedTuple):
    """Holds what a user says of a file. None: the default of its program."""

    raw: bool = False  # the last weights, in place of their moving average
    num_heads: int | None = None
    input_range: tuple[float, float] | None = None
    max_time: int | float | None = None  # in the unit of the program
    K: int | None = None
    output: str | None = None  # "logits" or "logistic"
    source: str = "--categories"  # of K

    def with_categories(self, K: Any, source: str) -> "Told":
        """Returns the same with a K, if it is a number, where the user says none; source says where from."""
        if self.K is not None or not isinstance(K, int):
            return self
        return self._replace(K=K, source=source)


def choose(given: Any, default: Any, what: str, flag: str, notes: list[str]) -> Any:
    """Returns what a user gave, or the default of the program with a note that it was taken."""
    if given is None:
        notes.append(f"{what} = {default}, the program's default: the file does not say ({flag})")
    return default if given is None else given


def whole(number: int | float, flag: str) -> int:
    """Returns a number of steps.

    Raises:
        ValueError: it is no whole number of at least 1.
    """
    if not (1 <= number <= MOST_STEPS and number == int(number)):
        raise ValueError(f"{flag} {number:g}: it must be a whole number in 1..{MOST_STEPS}")
    return int(number)


def step_of(found: Any) -> int:
    """Returns the number of updates that a checkpoint names, 0 where it names none."""
    number = found.item() if isinstance(found, np.ndarray | np.generic) and found.ndim == 0 else found
    return int(number) if type(number) in (int, float) and 0 <= number < 2**63 else 0


def output_of(
    outputs: int, channels: int, told: Told, logistic_by_default: bool, notes: list[str]
) -> tuple[bool, int]:
    """Says whether the last convolution gives two numbers for each element in place of K logits, and K.

    Args:
        outputs: features that it gives.
        channels: of an image.
        told: by the user.
        logistic_by_default: two numbers are those of the logistic head, where nothing says that K = 2.
        notes: takes what was assumed.

    Raises:
        ValueError: the numbers do not go together.
    """
    each = outputs // channels
    if outputs % channels or each < 2:
        raise ValueError(f"its last convolution gives {outputs} numbers for {channels} channels")
    if told.output == "logistic" and each != 2:
        raise ValueError(f"--output logistic needs 2 numbers for each element, it gives {each}: leave it out")
    logistic = each == 2 and (told.K not in (None, 2) or (told.K is None and logistic_by_default))
    if each == 2:
        kind = choose(told.output, "logistic" if logistic else "logits", "output", "--output", notes)
        logistic = kind == "logistic"
    if logistic:
        return True, choose(told.K, 256, "K", "--categories", notes)
    if told.K not in (None, each):
        raise ValueError(
            f"it gives logits of K = {each} categories, not {told.K} as {told.source} says: change that"
        )
    return False, each
