"""Reads what older versions had, and names the cure where a call still has it."""

from typing import Any

# `first_step` was the rule at t = 1, an argument in the place that `belief` has now.
FIRST_STEPS = ("bayes", "x0")
FIRST_STEP_IS_GONE = (
    'first_step no longer exists: write belief="official" for "x0", and leave "bayes" out, the rule of '
    "all other beliefs"
)


def cure_for_choice(value: Any, options: tuple[Any, ...]) -> str:
    """Returns what to add to the refusal of a value that is none of the options; "" where nothing helps."""
    if "official" in options and isinstance(value, str) and value in FIRST_STEPS:
        return f"; {FIRST_STEP_IS_GONE}"
    return ""


def refuse_first_step(names: tuple[str, ...], args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    """Raises TypeError where a call that does not fit a function with a belief has a first_step.

    Args:
        names: of the parameters of the function.
        args, kwargs: of the call.
    """
    has_value = any(isinstance(x, str) and x in FIRST_STEPS for x in args)
    if "belief" in names and ("first_step" in kwargs or has_value):
        raise TypeError(FIRST_STEP_IS_GONE)


def join_first_step(belief: Any, first_step: Any) -> Any:
    """Returns the belief that stands for a belief and a first_step, which older versions had apart.

    Args:
        belief: as older versions wrote it.
        first_step: the rule at t = 1: "bayes", or "x0" as in the official code, which had an effect for
            "d3pm" alone.

    Raises:
        ValueError: first_step is neither.
    """
    if first_step not in FIRST_STEPS:
        raise ValueError(f"first_step = {first_step!r}: it must be 'bayes' or 'x0'")
    if first_step == "x0" and belief == "d3pm":
        return "official"
    return belief
