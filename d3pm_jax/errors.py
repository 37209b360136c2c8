"""Defines the error that a user can mend, and what goes into its line."""

from collections.abc import Iterator
from contextlib import contextmanager


class UserError(Exception):
    """Its message is one line that names the value and the cure; commands print it and exit with a status."""

    status = 1


class UsageError(UserError):
    """Its message is one line about words that a command cannot read."""

    status = 2


def one_line(text: object, most: int = 120) -> str:
    """Returns a text as one line of at most so many characters, without those that cannot be printed.

    A long text loses its middle, as messages often end in a path. An empty one becomes the name of its type.
    """
    words = " ".join(str(text).split())
    line = "".join(filter(str.isprintable, words)) or type(text).__name__
    if len(line) <= most:
        return line
    return f"{line[: most - 23]} ... {line[-18:]}"


@contextmanager
def as_user_error(prefix: str = "") -> Iterator[None]:
    """Turns a ValueError of the block into a UserError, whose message begins with the prefix."""
    try:
        yield
    except ValueError as error:
        raise UserError(f"{prefix}{error}") from error
