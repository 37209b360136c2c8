"""Reads the words of a command, and the config that they name, by tyro, whose errors are never shown."""

import contextlib
import dataclasses
import difflib
import inspect
import io
import itertools
import shutil
import sys
import textwrap
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, NoReturn, TypeVar, Union, get_args, get_origin

import tyro
from tyro.constructors import ConstructorRegistry, PrimitiveConstructorSpec

from d3pm_jax.cli import arguments, samplers
from d3pm_jax.config import Config, io as config_io
from d3pm_jax.config.checks import check_fields, describe_hint, hints_of
from d3pm_jax.config.data import move_data
from d3pm_jax.config.samplers import choose_sampler, describe_sampler
from d3pm_jax.errors import UsageError, UserError, one_line
from d3pm_jax.sampling import Sampler

# The beginnings of what `describe_hint` says of tuples, of which a command line has none.
LIST = "a tuple, each "
PAIR = "a tuple ("
# Where the data lies, of whatever kind: a field of some data, and an option for all other.
DATA_FOLDER = "--data.dir"
CONFIG_HELP = """Fields of the config, with their values as defaults.

--data.dir DIR names the folder of the data. Without CONFIG, --help lists the other options.
"""
OPTIONS = (tyro.conf.FlagCreatePairsOff, tyro.conf.DisallowNone)
# Tyro has no public name for what `arg` returns, which holds the name of an option.
OPTION_NAME: type[Any] = type(tyro.conf.arg(name="option"))

# A sampler is one word to tyro, and not the fields of its slots.
SLOTS = ConstructorRegistry()


@SLOTS.primitive_rule
def _name_sampler(type_info: Any) -> PrimitiveConstructorSpec[Any] | None:
    if type_info.type is not Sampler:
        return None
    return PrimitiveConstructorSpec(
        nargs=1,
        metavar="NAME",
        instance_from_str=lambda words: choose_sampler(words[0]).sampler,
        is_instance=lambda value: isinstance(value, Sampler),
        str_from_instance=lambda sampler: [describe_sampler(sampler)],
    )


AnyCommand = TypeVar("AnyCommand")


def read_command(cls: type[AnyCommand], words: list[str], name: str) -> tuple[AnyCommand, list[str]]:
    """Returns a command with the fields that words give, and the words that are of no field.

    Args:
        cls: the dataclass of the command.
        words: what follows its name.
        name: what it is called.

    Raises:
        UsageError: a value cannot be used, or DIR is missing.
    """
    hints = hints_of(cls)
    _check_switches(hints, words)
    _check_spelling(cls, words)
    with contextlib.suppress(SystemExit, ValueError):
        return _parse(cls, words)

    # Tyro's own message is not shown. The flag to blame is found by parsing each alone, with a DIR before it,
    # as its absence should not make all of them fail.
    def parse_alone(words: list[str]) -> tuple[AnyCommand, list[str]]:
        return _parse(cls, ["DIR", *words])

    failing = first_failing(parse_alone, words)
    if failing is not None:
        flag, values = failing
        if not values:
            raise UsageError(f"argument {flag}: expected a value, got nothing")
        hint = hints.get(_field_name(flag), Any)
        expected = describe_hint(hint).removesuffix(" or None")
        if expected.startswith(LIST) and values[0].endswith(","):
            raise UsageError(f"argument {flag}: write {''.join(values)} without spaces")
        if expected.startswith(LIST):
            # Of N,N,... the message names the number that is wrong.
            expected = expected.removeprefix(LIST)
            wrong = first_failing(parse_alone, [f"{flag}={number}" for number in values[0].split(",")])
            _, values = wrong or failing
        elif expected.startswith(PAIR):
            items = expected.removeprefix(PAIR).removesuffix(")").split(", ")
            expected = " and ".join(items)
        elif not _is_tuple(hint):
            # The option takes one word, and the words after that are of no option.
            values = values[:1]
        raise UsageError(f"argument {flag}: expected {expected}, got {quote_words(values)}")

    _, unknown = parse_alone(words)
    refuse_unknown(unknown, name)
    raise UsageError("the following arguments are required: DIR")


def _check_switches(hints: Mapping[str, Any], words: list[str]) -> None:
    """Refuses a switch with a value, as --resume=3, of which tyro would take the value for the next word.

    Raises:
        UsageError: naming the switch.
    """
    for before, word in itertools.pairwise(["", *words]):
        flag, equals, value = word.partition("=")
        if not equals or not flag.startswith("--") or hints.get(_field_name(flag)) is not bool:
            continue
        # In `--prompt --gif=1` the option before the switch lacks its value, and is to blame.
        if before.startswith("--") and hints.get(_field_name(before), bool) is not bool:
            return
        raise UsageError(f"argument {flag}: expected no value, got {quote_words([value])}")


def _check_spelling(cls: type[Any], words: list[str]) -> None:
    """Refuses an option that is not one of a command, and nearly is.

    An option without a dot is no field of a config either, where one may follow.

    Raises:
        UsageError: naming the option, and those that it may stand for.
    """
    options = _list_options(cls)
    for word in words:
        flag = word.partition("=")[0]
        if _hyphenate(f"-{flag}") in options:
            raise UsageError(f"unknown argument {flag}: did you mean -{flag}?")
        if not flag.startswith("--") or "." in flag or _hyphenate(flag) in options:
            continue
        near = difflib.get_close_matches(_hyphenate(flag), options, cutoff=0.75)
        if near:
            raise UsageError(f"unknown argument {one_line(flag, 80)}: did you mean {' or '.join(near)}?")


def _list_options(cls: type[Any]) -> list[str]:
    """Lists the options of a command, as --num."""
    hints = hints_of(cls)
    options = []
    for field in dataclasses.fields(cls):
        marks = get_args(hints[field.name])
        if tyro.conf.Positional in marks:
            continue
        names = [mark.name for mark in marks if isinstance(mark, OPTION_NAME) and mark.name is not None]
        option = names[0] if names else field.name
        options.append(f"--{_hyphenate(option)}")
    return options


def _is_tuple(hint: Any) -> bool:
    """Says whether an annotation allows tuples, be they restricted or not."""
    origin = get_origin(hint)
    if origin is Annotated:
        return _is_tuple(get_args(hint)[0])
    if origin in (Union, UnionType):
        return any(map(_is_tuple, get_args(hint)))
    return origin is tuple


def _field_name(flag: str) -> str:
    return flag.removeprefix("--").replace("-", "_").replace(".", "_")


def print_help(cls: type[Any], usage: str) -> NoReturn:
    """Prints the options of a command, below them the rest of its docstring, and exits."""
    summary, _, more = (inspect.getdoc(cls) or "").partition("\n\n")
    with contextlib.suppress(SystemExit):
        tyro.cli(cls, args=["--help"], prog=usage, description=summary, config=OPTIONS)
    wrapper = textwrap.TextWrapper(shutil.get_terminal_size().columns, break_on_hyphens=False)
    print("\n\n".join(map(wrapper.fill, filter(None, more.split("\n\n")))))
    sys.exit(0)


def first_failing(parse: Callable[[list[str]], Any], words: list[str]) -> tuple[str, list[str]] | None:
    """Returns the first flag that cannot be parsed alone, and the words after it; None if all can be."""
    starts = [i for i, word in enumerate(words) if word.startswith("--")]
    for begin, end in itertools.pairwise([*starts, len(words)]):
        try:
            parse(words[begin:end])
        except (SystemExit, ValueError):
            flag, *values = words[begin].split("=", 1)
            return flag, [*values, *words[begin + 1 : end]]
    return None


@contextlib.contextmanager
def silence_output() -> Iterator[None]:
    """Drops all that the block prints."""
    nowhere = io.StringIO()
    with contextlib.redirect_stdout(nowhere), contextlib.redirect_stderr(nowhere):
        yield


def quote_words(words: list[str]) -> str:
    """Quotes words for a message, cut where they are long."""
    return one_line(repr(" ".join(words)), 80)


def _parse(cls: type[AnyCommand], words: list[str]) -> tuple[AnyCommand, list[str]]:
    """Parses words to a command and the words that it has no field for.

    Raises:
        SystemExit: of tyro, a word cannot be parsed, or one is missing.
        ValueError: a number is not allowed.
    """
    with silence_output():
        command, unknown = tyro.cli(cls, args=words, add_help=False, return_unknown_args=True, config=OPTIONS)
    check_fields("", command)
    return command, unknown


def refuse_unknown(words: list[str], name: str) -> None:
    """Raises UsageError where words are left that a command does not know."""
    if not words:
        return
    if words[0].partition("=")[0] == "--workdir":
        raise UsageError(f"unknown argument --workdir: pass the folder alone, as in d3pm {name} DIR")
    word = one_line(words[0], 80)
    if not words[0].startswith("-"):
        raise UsageError(f"unexpected argument {word}: d3pm {name} takes one DIR, followed by options")
    raise UsageError(f"unknown argument {word}: see d3pm {name} --help")


def read_overridden_config(path: Path | None, words: list[str], usage: str) -> Config:
    """Reads the config of a file, with the fields that words override; see `apply_overrides`.

    Raises:
        UserError: there is no such file, or `apply_overrides` fails.
    """
    if path is None:
        program = usage.partition(" CONFIG")[0]
        raise UserError(
            f"no config: pass a Python file that defines get_config() first, as in {program} CONFIG"
        )
    return apply_overrides(config_io.read_config_file(path), words, usage)


def apply_overrides(base: Config, words: list[str], usage: str) -> Config:
    """Returns the config with the fields that words override; for --help prints all fields, and exits.

    Raises:
        UserError: an override names no field of the config, or gives it a value that cannot be used.
    """
    base, words = _move_data(base, words)
    if "--help" in words:
        _parse_config(base, ["--help"], usage)
    base, words = _choose_sampler(base, words)
    _check_flags(base, words)
    try:
        config, unknown = _parse_overrides(base, words)
    except SystemExit:
        # Tyro's own message is not shown. The override to blame is the first that fails alone.
        failing = first_failing(lambda alone: _parse_overrides(base, alone), words)
        if failing is None:
            why = f"the overrides {quote_words(words)} do not go together: give each field once"
            raise UserError(why) from None
        flag, values = failing
        got = "nothing"
        if values:
            got = quote_words(values)
        raise UserError(f"{flag}: expected {describe_hint(_hint(base, flag))}, got {got}") from None
    if unknown:
        got = quote_words(unknown[:1])
        raise UserError(f"unexpected argument {got}: CONFIG comes first, then --field value")
    config_io.check_config(config)
    return config


def _move_data(base: Config, words: list[str]) -> tuple[Config, list[str]]:
    """Returns a config with its data where --data.dir says, and the other words.

    Where the data has a field `dir` the words are left as they are, since the flag is that of the field.

    Raises:
        UserError: no folder is named, or the data has no folder or is not there.
    """
    if "dir" in {field.name for field in dataclasses.fields(base.data)}:
        return base, words
    words, options = arguments.take_options(words, lambda flag: flag == DATA_FOLDER)
    folders = [folder for _, folder in options]
    if "" in folders:
        raise UserError(f"{DATA_FOLDER}: expected a folder, got nothing")
    if folders:
        base = dataclasses.replace(base, data=move_data(base.data, folders[-1]))
    return base, words


def _choose_sampler(base: Config, words: list[str]) -> tuple[Config, list[str]]:
    """Returns a config with the sampler that --sampler NAME --sampler.FIELD VALUE names, and the other words.

    Raises:
        UsageError, UserError: as `samplers.choose`.
    """
    words, name = samplers.take_name(words)
    words, field_words = samplers.take_fields(words)
    choice = samplers.choose(name, field_words)
    if choice is not None:
        base = dataclasses.replace(base, sampler=choice.sampler)
    return base, words


def _check_flags(base: Config, words: list[str]) -> None:
    """Refuses flags that are no fields, those of tyro among them, and values of fields that are switches.

    Raises:
        UserError: naming the flag.
    """
    # A field that is true or false is a switch: --part.name is true, and --part.no-name is false.
    fields = []
    for name in config_io.flatten_config(base):
        # The words of a sampler have been taken.
        if name.split(".")[-1] != "class" and not name.startswith("sampler."):
            fields.append(f"--{name}")
    switches = {}
    for field in fields:
        if _hint(base, field) is bool:
            part, _, name = _hyphenate(field).rpartition(".")
            pair = f"{part}.{name}", f"{part}.no-{name}"
            switches |= dict.fromkeys(pair, pair)
    known_flags = {*map(_hyphenate, fields), *switches}

    for word, following in itertools.pairwise([*words, "--"]):
        flag, equals, _ = word.partition("=")
        if not flag.startswith("--"):
            continue
        if _hyphenate(flag) not in known_flags:
            near = _near_fields(_hyphenate(flag), [*map(_hyphenate, fields)])
            cure = "--help after CONFIG lists them all"
            if near:
                cure = f"did you mean {' or '.join(near)}?"
            if near and near[0].startswith(f"{_hyphenate(flag)}."):
                raise UserError(
                    f"{flag} is a part, whose class is chosen in the file CONFIG: edit it there, or set its "
                    f"fields here, as {' or '.join(near)}"
                )
            raise UserError(f"no field {one_line(flag)} in this config: {cure}")
        has_value = equals or not following.startswith("--")
        if has_value and _hyphenate(flag) in switches:
            on, off = switches[_hyphenate(flag)]
            raise UserError(f"{flag} takes no value: write {on} or {off}")


def _near_fields(flag: str, fields: list[str]) -> list[str]:
    """Lists up to three fields that a flag may stand for: the last part of their names is that of the flag.

    The last part counts over all parts of the config, as --train.lr is --optimizer.lr. Where no field has
    it, fields count whose last part is nearly the same. A flag that is a part stands for the fields in it.
    """
    fields_inside = [field for field in fields if field.startswith(f"{flag}.")]
    if fields_inside:
        return fields_inside[:3]
    last_parts = {field: field.removeprefix("--").rpartition(".")[2] for field in fields}
    # Comparing texts takes the square of their length, and this one may have any.
    flag = flag[:100]
    near_parts = [flag.removeprefix("--").rpartition(".")[2]]
    if near_parts[0] not in last_parts.values():
        near_parts = difflib.get_close_matches(
            near_parts[0], [*dict.fromkeys(last_parts.values())], cutoff=0.6
        )
    near = [field for field in fields if last_parts[field] in near_parts]

    def likeness(field: str) -> float:
        return difflib.SequenceMatcher(None, field, flag).ratio()

    return sorted(near, key=likeness, reverse=True)[:3]


def _hyphenate(flag: str) -> str:
    return flag.replace("_", "-")


def _parse_config(base: Config, words: list[str], usage: str) -> tuple[Config, list[str]]:
    """Returns the config with the overrides, and what names no field of it; exits where a value is wrong."""
    return tyro.cli(
        Config,
        default=base,
        args=words,
        prog=usage,
        description=CONFIG_HELP,
        config=(tyro.conf.AvoidSubcommands,),
        registry=SLOTS,
        return_unknown_args=True,
    )


def _parse_overrides(base: Config, words: list[str]) -> tuple[Config, list[str]]:
    with silence_output():
        return _parse_config(base, words, "d3pm")


def _hint(part: Any, flag: str) -> Any:
    """Returns the annotation of the field of a config that --part.name is."""
    *parents, name = _hyphenate(flag).removeprefix("--").replace("-", "_").split(".")
    for parent in parents:
        part = getattr(part, parent)
    return hints_of(type(part)).get(name, Any)
