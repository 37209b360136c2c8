"""Defines the error that a user can mend, and what goes into its line."""

import inspect
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

__all__ = ["UsageError", "UserError"]


class UserError(Exception):
    """Its message is one line that names the value and the cure; commands print it and exit with a status."""

    status = 1


class UsageError(UserError):
    """Its message is one line about words that a command cannot read."""

    status = 2


LONG_WORD = 20  # characters


def one_line(text: object, most: int = 120) -> str:
    """Returns a text as one line of at most so many characters, without those that cannot be printed.

    A long text loses its middle, as messages often end in a path. An empty one becomes the name of its type.
    """
    words = " ".join(str(text).split())
    line = "".join(filter(str.isprintable, words)) or type(text).__name__
    if len(line) <= most:
        return line
    head, tail = line[: most - 23], line[-18:]
    # Words stay whole, but for long ones, such as paths.
    words, _, part = head.rpartition(" ")
    if line[most - 23] != " " and words and len(part) < LONG_WORD:
        head = words
    part, _, words = tail.partition(" ")
    if line[-19] != " " and words:
        tail = words
    return f"{head.rstrip()} ... {tail.lstrip()}"


@contextmanager
def as_user_error(prefix: str = "") -> Iterator[None]:
    """Turns a ValueError of the block into a UserError, whose message begins with the prefix."""
    try:
        yield
    except ValueError as error:
        raise UserError(f"{prefix}{error}") from error


def wrong_return(method: Callable[..., Any], value: Any, cure: str, case: str = "") -> UserError:
    """Returns the error for a method of the user's own that returns something else than it has to.

    Args:
        method: of a part, which the message names with the place of its `return`.
        value: what it returned.
        cure: what it has to return.
        case: which call it was, as " for 'test'".
    """
    return UserError(
        f"{locate_statement(method, 'return')}: {method.__name__} returns {describe_returned(value)}{case}: "
        f"return {cure}"
    )


def describe_returned(value: Any) -> str:
    """Says what a method returned: the type and shape of an array, those of each field or entry."""
    if value is None:
        return "None"
    if hasattr(value, "dtype") and hasattr(value, "shape"):
        return f"{value.dtype} {list(value.shape)}"
    if hasattr(value, "_fields"):
        fields = (f"{name}={describe_returned(getattr(value, name))}" for name in value._fields)
        return f"{type(value).__name__}({', '.join(fields)})"
    if isinstance(value, tuple | list) and 0 < len(value) <= 3:
        return f"({', '.join(map(describe_returned, value))})"
    return type(value).__name__


def locate_statement(function: Callable[..., Any], beginning: str) -> str:
    """Names the last statement of a function that begins so: "FILE, line N, `STATEMENT`".

    A function without source has its name alone.
    """
    try:
        lines, first_line = inspect.getsourcelines(function)
        file = inspect.getsourcefile(inspect.unwrap(function))
    except (OSError, TypeError):
        return getattr(function, "__qualname__", repr(function))
    statement = lines[0]
    line_number = first_line
    for number, line in enumerate(lines, first_line):
        if line.lstrip().startswith(beginning):
            statement = line
            line_number = number
    return f"{file}, line {line_number}, `{statement.strip()}`"
