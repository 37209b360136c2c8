"""Reads the words of a command by tyro, whose own messages of errors are never shown."""

import contextlib
import inspect
import io
import itertools
import shutil
import sys
import textwrap
from collections.abc import Callable, Iterator
from typing import Any, NoReturn, TypeVar

import tyro

from d3pm_jax.config.checks import check_fields, hints_of, in_words
from d3pm_jax.errors import UsageError, one_line
from d3pm_jax.machine.cluster import Address

LIST = "a tuple, each "  # what begins the words for a list
OPTIONS = (tyro.conf.FlagCreatePairsOff, tyro.conf.DisallowNone)

Command = TypeVar("Command")


def read_command(cls: type[Command], words: list[str], name: str) -> tuple[Command, list[str]]:
    """Returns a command with the fields that words give, and the words that are of no field.

    Args:
        cls: the dataclass of the command.
        words: what follows its name.
        name: what it is called.

    Raises:
        UsageError: a value cannot be used, or DIR is missing.
    """
    with contextlib.suppress(SystemExit, ValueError):
        return _parse(cls, words)

    def parse_alone(words: list[str]) -> tuple[Command, list[str]]:
        return _parse(cls, ["DIR", *words])

    failing = first_failing(parse_alone, words)
    if failing is not None:
        flag, values = failing
        if not values:
            raise UsageError(f"argument {flag}: expected a value, got nothing")
        hints = hints_of(cls) | hints_of(Address)
        expected = in_words(hints.get(flag.removeprefix("--").replace("-", "_"), Any))
        expected = expected.removesuffix(" or None")
        if expected.startswith(LIST):  # N,N,...: it is said which number is wrong
            expected = expected.removeprefix(LIST)
            wrong = first_failing(parse_alone, [f"{flag}={number}" for number in values[0].split(",")])
            _, values = wrong or failing
        raise UsageError(f"argument {flag}: expected {expected}, got {quoted(values)}")
    _, unknown = parse_alone(words)
    refuse_unknown(unknown, name)
    raise UsageError("the following arguments are required: DIR")


def print_help(cls: type[Any], usage: str) -> NoReturn:
    """Prints the options of a command, below them the rest of its docstring, and exits."""
    summary, _, more = (inspect.getdoc(cls) or "").partition("\n\n")
    with contextlib.suppress(SystemExit):
        tyro.cli(cls, args=["--help"], prog=usage, description=summary, config=OPTIONS)
    print(textwrap.fill(more, shutil.get_terminal_size().columns))
    sys.exit(0)


def first_failing(parse: Callable[[list[str]], Any], words: list[str]) -> tuple[str, list[str]] | None:
    """Returns the first flag that cannot be parsed alone, and the words after it; None if all can be."""
    starts = [i for i, word in enumerate(words) if word.startswith("--")]
    for begin, end in itertools.pairwise([*starts, len(words)]):
        flag, *values = [*words[begin].split("=", 1), *words[begin + 1 : end]]
        try:
            parse(words[begin:end])
        except (SystemExit, ValueError):
            return flag, values
    return None


@contextlib.contextmanager
def silence() -> Iterator[None]:
    """Prints nothing of what the block prints."""
    nowhere = io.StringIO()
    with contextlib.redirect_stdout(nowhere), contextlib.redirect_stderr(nowhere):
        yield


def quoted(words: list[str]) -> str:
    """Quotes words for a message, cut where they are long."""
    return one_line(repr(" ".join(words)), 80)


def _parse(cls: type[Command], words: list[str]) -> tuple[Command, list[str]]:
    """Raises SystemExit of tyro, or ValueError of a number that is not allowed."""
    with silence():
        command, unknown = tyro.cli(cls, args=words, add_help=False, return_unknown_args=True, config=OPTIONS)
    check_fields("", command)
    return command, unknown


def refuse_unknown(words: list[str], name: str) -> None:
    """Raises UsageError where words are left that a command does not know."""
    if words:
        raise UsageError(f"unknown argument {words[0]}: see d3pm {name} --help")
