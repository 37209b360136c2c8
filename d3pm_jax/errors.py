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
    """Returns a text as one line without what cannot be printed, its middle left out where it is long."""
    line = "".join(filter(str.isprintable, " ".join(str(text).split()))) or type(text).__name__
    return line if len(line) <= most else f"{line[: most - 23]} ... {line[-18:]}"


@contextmanager
def as_user_error(prefix: str = "") -> Iterator[None]:
    """Makes a ValueError of the block a UserError, whose message begins with the prefix."""
    try:
        yield
    except ValueError as error:
        raise UserError(f"{prefix}{error}") from error
