"""Reads --sampler NAME and --sampler.FIELD VALUE, which commands that draw samples or read a config take."""

import itertools
from collections.abc import Mapping

from d3pm_jax.cli import arguments
from d3pm_jax.config.samplers import Choice, choose_sampler
from d3pm_jax.errors import UsageError, as_user_error, one_line

OPTION = "--sampler"
TABLE = "help"  # in place of a name


def asks_for_table(words: list[str]) -> bool:
    """Tells whether words of a command ask for the table of all samplers."""
    return f"{OPTION}={TABLE}" in words or (OPTION, TABLE) in itertools.pairwise(words)


def take_name(words: list[str]) -> tuple[list[str], str | None]:
    """Returns the other words, and the name that --sampler NAME has among words; None where there is none.

    Raises:
        UsageError: there is no name after it, or there are two.
    """
    others, options = arguments.take_options(words, lambda flag: flag == OPTION)
    names = [name for _, name in options]
    if "" in names:
        raise UsageError(f"argument {OPTION}: expected a name, got nothing; {OPTION} {TABLE} lists them")
    if len(names) > 1:
        raise UsageError(f"argument {OPTION}: give it once")
    return others, names[0] if names else None


def take_fields(words: list[str]) -> tuple[list[str], list[str]]:
    """Returns the other words, and the fields of a sampler among words, each as --sampler.FIELD=VALUE.

    Raises:
        UsageError: a field has no value.
    """
    others, options = arguments.take_options(words, lambda flag: flag.startswith(f"{OPTION}."))
    for flag, value in options:
        if not value:
            raise UsageError(f"argument {one_line(flag, 80)}: expected a value, got nothing")
    return others, [f"{flag}={value}" for flag, value in options]


def choose(name: str | None, field_words: list[str]) -> Choice | None:
    """Returns the sampler that a command names; None where it names none.

    Args:
        name: of --sampler.
        field_words: of `take_fields`.

    Raises:
        UsageError: there are fields, and no sampler that they are of.
        UserError: there is no such sampler, or a field of it cannot be used.
    """
    fields = _read_fields(field_words)
    if name is None:
        if fields:
            flag = field_words[0].partition("=")[0]
            raise UsageError(f"argument {one_line(flag, 80)}: say of which sampler, as {OPTION} ancestral")
        return None
    with as_user_error():
        return choose_sampler(name, fields)


def _read_fields(field_words: list[str]) -> Mapping[str, str]:
    """Returns the values of fields by their names."""
    fields: dict[str, str] = {}
    for word in field_words:
        flag, _, value = word.partition("=")
        field = flag.removeprefix(f"{OPTION}.").replace("-", "_")
        if field in fields:
            raise UsageError(f"argument {one_line(flag, 80)}: give it once")
        fields[field] = value
    return fields
