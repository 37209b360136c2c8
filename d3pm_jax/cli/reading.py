"""Reads the words of a command, and the fields of a config that they override, by the hints of fields."""

import contextlib
import dataclasses
import difflib
import inspect
import itertools
import re
import shutil
import sys
import textwrap
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, NamedTuple, NoReturn, TypeVar, get_args

import tyro
from tyro.constructors import ConstructorRegistry, PrimitiveConstructorSpec, PrimitiveTypeInfo

from d3pm_jax.config import (
    Choice,
    Config,
    NonEmptyStr,
    choose_sampler,
    describe_hint,
    describe_sampler,
    hints_of,
    io as config_io,
    matches_hint,
    move_data,
)
from d3pm_jax.errors import UsageError, UserError, as_user_error, one_line
from d3pm_jax.sampling import Sampler

# Of the words of a command these are flags. A number below 0, a dash alone and a text with spaces are values.
FLAG = re.compile(r"-(?![\d.])[^\s=]+(=.*)?", re.DOTALL)
LIST = "a tuple written as 10,50, each "  # begins the words of numbers with commas between them
FOLDERS = "DIR"  # stands for the flag of a positional field, which has none
SAMPLER = "--sampler"
# Where the data lies, of whatever kind: a field of some data, and an option for all other.
DATA_FOLDER = "--data.dir"
CONFIG_HELP = """Fields of the config, with their values as defaults.

--data.dir DIR names the folder of the data. Without CONFIG, --help lists the other options.
"""
OPTIONS = (tyro.conf.FlagCreatePairsOff, tyro.conf.DisallowNone)
# Tyro has no public name for what `arg` returns, which holds the name of an option.
OPTION_NAME: type[Any] = type(tyro.conf.arg(name="option"))

# In its help, a sampler is one word to tyro, and not the fields of its slots.
SLOTS = ConstructorRegistry()


@SLOTS.primitive_rule
def _name_sampler(type_info: Any) -> PrimitiveConstructorSpec[Any] | None:
    if type_info.type not in (Sampler, Choice | None):
        return None
    return PrimitiveConstructorSpec(
        nargs=1,
        metavar="NAME",
        instance_from_str=lambda words: choose_sampler(words[0]),
        is_instance=lambda value: isinstance(value, Sampler),
        str_from_instance=lambda sampler: [describe_sampler(sampler) if sampler else "None"],
    )


class Option(NamedTuple):
    """Says of an option which field it sets, and to what."""

    field: str  # by its dotted name
    hint: Any  # the annotation of the field
    expected: str  # the same in words
    switch: bool | None = None  # what it sets the field to where it takes no value
    repeats: bool = False  # whether each time that it is given adds a text to the field


AnyCommand = TypeVar("AnyCommand")


def read_command(cls: type[AnyCommand], words: list[str], name: str) -> tuple[AnyCommand, list[str]]:
    """Returns a command with the fields that words give, and the words that are left for a config.

    Args:
        cls: the dataclass of the command; with a positional field, as DIR, it takes no config.
        words: what follows its name.
        name: what it is called.

    Raises:
        UsageError: a value cannot be used, a word is of no field, or DIR is missing.
    """
    # An option of a command is None, or a switch false, where it is left out.
    options = {
        flag: option._replace(
            hint=Annotated[option.hint, tyro.conf.DisallowNone],
            expected=option.expected.removesuffix(" or None"),
        )
        for flag, option in _list_options(cls, cls).items()
        if option.switch is not False
    }
    folders = options.pop(FOLDERS, None)
    try:
        values, others = _read_values(options, words)
    except ValueError as error:
        raise UsageError(f"argument {error}") from error
    unknown_flags = [word.partition("=")[0] for word in others if FLAG.fullmatch(word)]
    for flag in unknown_flags:
        # An option without a dot is no field of a config either, where one may follow.
        near = _near_flags(flag, options)
        if near and "." not in flag:
            raise UsageError(f"unknown argument {one_line(flag, 80)}: did you mean {' or '.join(near)}?")
    if folders is None:
        return cls(**values), others

    positional = _name_positional(folders)
    if "--workdir" in unknown_flags and positional == FOLDERS:
        raise UsageError(f"unknown argument --workdir: pass the folder alone, as in d3pm {name} DIR")
    if unknown_flags:
        raise UsageError(f"unknown argument {one_line(unknown_flags[0], 80)}: see d3pm {name} --help")
    if not others:
        raise UsageError(f"the following arguments are required: {positional}")
    values[folders.field], others = _read_value(positional, others, folders)
    if others:
        word = one_line(others[0], 80)
        raise UsageError(f"unexpected argument {word}: d3pm {name} takes one DIR, followed by options")
    return cls(**values), others


def _name_positional(option: Option) -> str:
    """Returns what stands for the words of a positional field: the first word of its metavar."""
    metavars = [mark.metavar for mark in get_args(option.hint) if isinstance(mark, OPTION_NAME)]
    return metavars[0].split()[0]


def _list_options(cls: type[Any], defaults: Any, prefix: str = "") -> dict[str, Option]:
    """Returns the options that set the fields of a command, or of a part of a config, by their flags.

    Args:
        cls: its class.
        defaults: has the values of its fields: the part, or the class of a command.
        prefix: of the fields of a part.
    """
    options = {}
    hints = hints_of(cls)
    for field in dataclasses.fields(cls):
        value = getattr(defaults, field.name, None)
        hint = hints.get(field.name, Any)
        if hint is Any:
            # A class of the user's own may have annotations that cannot be evaluated.
            hint = type(value)
        marks = get_args(hint)
        names = [mark.name for mark in marks if isinstance(mark, OPTION_NAME) and mark.name is not None]
        flag = _hyphenate(f"--{prefix}{[*names, field.name][0]}")
        option = Option(f"{prefix}{field.name}", hint, describe_hint(hint))
        if tyro.conf.Positional in marks:
            options[FOLDERS] = option
        elif flag == SAMPLER:
            options[flag] = option._replace(hint=str, expected=f"a name, as {SAMPLER} help lists them")
        elif dataclasses.is_dataclass(value) and not isinstance(value, type):
            options |= _list_options(type(value), value, f"{option.field}.")
        elif hint is bool:
            options[flag] = option._replace(switch=True)
            options[_hyphenate(f"--{prefix}no-{field.name}")] = option._replace(switch=False)
        elif tyro.conf.UseAppendAction in marks:
            options[flag] = option._replace(hint=NonEmptyStr, expected="COLUMN=VALUE", repeats=True)
        elif field.init:
            options[flag] = option
    return options


def _read_values(options: Mapping[str, Option], words: list[str]) -> tuple[dict[str, Any], list[str]]:
    """Returns the values of fields that words give, by dotted name, and the words that are of no option.

    Raises:
        ValueError: a value cannot be used; the message begins with its flag.
        UsageError, UserError: no sampler is named, or it has no such field.
    """
    values: dict[str, Any] = {}
    # A flag has the words up to the next one. Its option takes as many as its hint says; the rest is left.
    boundaries = [i for i, word in enumerate(words) if FLAG.fullmatch(word)] + [len(words)]
    others = words[: boundaries[0]]
    for begin, end in itertools.pairwise(boundaries):
        flag, equals, text = words[begin].partition("=")
        value_words = words[begin + 1 : end]
        if equals:
            value_words.insert(0, text)
        option = options.get(_hyphenate(flag))
        flag = one_line(flag, 80)
        if flag.startswith(f"{SAMPLER}.") and SAMPLER in options:
            option = Option(flag.removeprefix("--").replace("-", "_"), str, "a value")
        if option is None:
            others += words[begin:end]
            continue
        if option.field.startswith("sampler") and option.field in values:
            raise ValueError(f"{flag}: give it once")
        earlier_texts = values.get(option.field, ())
        values[option.field] = option.switch
        if option.switch is None:
            value, value_words = _read_value(flag, value_words, option)
            values[option.field] = (*earlier_texts, value) if option.repeats else value
        elif equals or value_words[:1] in (["True"], ["False"]):
            # A switch is set by its flag alone, and a word after it may be DIR; these two are meant for it.
            pair = [name for name, other in options.items() if other.field == option.field]
            raise ValueError(f"{flag} takes no value: write {' or '.join(pair)}")
        others += value_words

    of_sampler = [name for name in values if name.startswith("sampler.")]
    fields = {name.removeprefix("sampler."): values.pop(name) for name in of_sampler}
    if "sampler" in values:
        with as_user_error():
            values["sampler"] = choose_sampler(values["sampler"], fields)
    elif fields:
        flag = one_line(_hyphenate(f"--{of_sampler[0]}"), 80)
        raise UsageError(f"argument {flag}: say of which sampler, as {SAMPLER} ancestral")
    return values, others


def _read_value(flag: str, words: list[str], option: Option) -> tuple[Any, list[str]]:
    """Returns what an option is set to by the first of the words after it, and the other words.

    Raises:
        ValueError: they stand for no value that is allowed; the message says what is expected.
    """
    spec = ConstructorRegistry.get_primitive_spec(PrimitiveTypeInfo.make(option.hint, set()))
    if not isinstance(spec, PrimitiveConstructorSpec):
        raise ValueError(f"{flag}: expected {option.expected}, which no words stand for: set it in Python")
    most = len(words)
    if isinstance(spec.nargs, int):
        most = spec.nargs
    elif isinstance(spec.nargs, tuple):
        # Of a value that may be None or a pair, 1 and 2.
        most = max(spec.nargs)
    expected = option.expected.removeprefix(LIST).replace("a tuple (", "(")

    def convert(value_words: list[str]) -> Any:
        # What tyro raises where there are too few words, or a word is none of some choices, differs.
        with contextlib.suppress(ValueError, LookupError, StopIteration, AssertionError):
            value = spec.instance_from_str(value_words)
            if matches_hint(value, option.hint):
                return value
        got = quote_words(value_words) if value_words else "nothing"
        raise ValueError(f"{flag}: expected {expected}, got {got}")

    if option.expected.startswith(LIST) and words:
        if words[0].endswith(",") and words[1:]:
            raise ValueError(f"{flag}: write {one_line(''.join(words), 80)} without spaces")
        # Each is read alone first, so that the message names the number that is wrong.
        for number in words[0].split(","):
            convert([number])
    return convert(words[:most]), words[most:]


def _hyphenate(flag: str) -> str:
    return flag.replace("_", "-")


def quote_words(words: list[str]) -> str:
    """Quotes words for a message, cut where they are long."""
    return one_line(repr(" ".join(words)), 80)


def _near_flags(flag: str, flags: Iterable[str]) -> list[str]:
    """Lists up to three flags that one may stand for: the last part of their names is that of the flag.

    The last part counts over all parts of a config, as --train.lr is --optimizer.lr. Where no flag has it,
    flags count whose last part is nearly the same.
    """
    # Comparing texts takes the square of their length, and this one may have any.
    flag = _hyphenate(flag)[:100]
    last_parts = {other: other.lstrip("-").rpartition(".")[2] for other in flags}
    near_parts = [flag.lstrip("-").rpartition(".")[2]]
    if near_parts[0] not in last_parts.values():
        near_parts = difflib.get_close_matches(near_parts[0], dict.fromkeys(last_parts.values()), cutoff=0.65)
    near = [other for other in flags if last_parts[other] in near_parts]
    return difflib.get_close_matches(flag, near, cutoff=0.0)


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
    return apply_overrides(config_io.load_config(path), words, usage)


def apply_overrides(base: Config, words: list[str], usage: str) -> Config:
    """Returns the config with the fields that words override; for --help prints all fields, and exits.

    The config is checked once, with these fields.

    Raises:
        UserError: an override names no field of the config, or a value cannot be used.
    """
    if "--help" in words:
        config_io.check_config(base)
        tyro.cli(
            Config,
            default=base,
            args=["--help"],
            prog=usage,
            description=CONFIG_HELP,
            config=(tyro.conf.AvoidSubcommands,),
            registry=SLOTS,
        )
    try:
        config = _override_fields(base, words)
    except Exception:
        # What is in the file may be to blame, and is named before the words after it.
        config_io.check_config(base)
        raise
    config_io.check_config(config)
    return config


def _override_fields(base: Config, words: list[str]) -> Config:
    """Returns the config with the fields that words override, before it is checked."""
    options_by_flag = _list_options(Config, base)
    # Where no field has this flag, it stands in values under the flag itself, which no field name equals.
    options_by_flag.setdefault(DATA_FOLDER, Option(DATA_FOLDER, NonEmptyStr, "a folder"))
    with as_user_error():
        values, others = _read_values(options_by_flag, words)
    if others:
        _refuse_word(others[0], options_by_flag)
    folder = values.pop(DATA_FOLDER, None)
    if folder is not None:
        base = dataclasses.replace(base, data=move_data(base.data, folder))
    if "sampler" in values:
        values["sampler"] = values["sampler"].sampler
    with as_user_error():
        return _replace_fields(base, values)


def _refuse_word(word: str, options: Mapping[str, Option]) -> NoReturn:
    """Raises UserError for a word that names no field of a config."""
    if not FLAG.fullmatch(word):
        raise UserError(f"unexpected argument {quote_words([word])}: CONFIG comes first, then --field value")
    flag = word.partition("=")[0]
    inside = [name for name in options if name.startswith(f"{_hyphenate(flag)}.")]
    if inside:
        raise UserError(
            f"{flag} is a part, whose class is chosen in the file CONFIG: edit it there, or set its "
            f"fields here, as {' or '.join(inside[:3])}"
        )
    cure = "--help after CONFIG lists them all"
    near = _near_flags(flag, options)
    if near:
        cure = f"did you mean {' or '.join(near)}?"
    raise UserError(f"no field {one_line(flag)} in this config: {cure}")


def _replace_fields(part: Any, values: Mapping[str, Any]) -> Any:
    """Returns a part with other values of fields, which are also fields of the parts in it, as beta.start."""
    changes = {}
    for field in dataclasses.fields(part):
        prefix = f"{field.name}."
        inside = {name.removeprefix(prefix): x for name, x in values.items() if name.startswith(prefix)}
        if inside:
            changes[field.name] = _replace_fields(getattr(part, field.name), inside)
        elif field.name in values:
            changes[field.name] = values[field.name]
    return dataclasses.replace(part, **changes)


def print_help(cls: type[Any], usage: str) -> NoReturn:
    """Prints the options of a command, below them the rest of its docstring, and exits."""
    # Python -OO drops docstrings, and a dataclass without one gets its signature there.
    docstring = "" if sys.flags.optimize > 1 else inspect.getdoc(cls) or ""
    summary, _, more = docstring.partition("\n\n")
    with contextlib.suppress(SystemExit):
        tyro.cli(cls, args=["--help"], prog=usage, description=summary, config=OPTIONS, registry=SLOTS)
    wrapper = textwrap.TextWrapper(shutil.get_terminal_size().columns, break_on_hyphens=False)
    print("\n\n".join(map(wrapper.fill, filter(None, more.split("\n\n")))))
    sys.exit(0)
