"""Makes a config from a Python file, with the fields that the command line overrides."""

import argparse
import contextlib
import difflib
import io
import itertools
import typing
from typing import Any

import tyro

from d3pm_jax.config import Config
from d3pm_jax.config import io as config_io
from d3pm_jax.errors import UserError


def from_file(args: argparse.Namespace, overrides: list[str], usage: str) -> Config:
    """Reads the config of args.config, with the overrides; see `apply`.

    Raises:
        UserError: there is no such file, or `apply` fails.
    """
    if args.config is None:
        raise UserError(
            f"no config: pass a Python file that defines get_config() first, as in d3pm {args.command} CONFIG"
        )
    return apply(config_io.from_file(args.config), args, overrides, usage)


def apply(base: Config, args: argparse.Namespace, overrides: list[str], usage: str) -> Config:
    """Returns the config with the overrides; prints its fields and exits where args.help is set.

    Raises:
        UserError: an override names no field of the config, or gives it a value that cannot be used.
    """
    if args.help:
        prog = f"d3pm {args.command} {args.config or ''} {usage}"
        _parse(base, [*overrides, "--help"], prog)
    try:
        config, unknown = _parse_quietly(base, overrides)
    except SystemExit:
        raise UserError(_wrong_value(base, overrides)) from None
    if unknown:
        raise UserError(_unknown(unknown[0], config))
    config_io.check_values(config)
    return config


def _parse(base: Config, words: list[str], prog: str) -> tuple[Config, list[str]]:
    """Returns the config with the overrides, and what names no field of it; exits where a value is wrong."""
    return tyro.cli(
        Config,
        default=base,
        args=words,
        prog=prog,
        description="Fields of the config and their values.",
        config=(tyro.conf.AvoidSubcommands,),
        return_unknown_args=True,
    )


def _parse_quietly(base: Config, words: list[str]) -> tuple[Config, list[str]]:
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        return _parse(base, words, "d3pm")


def _wrong_value(base: Config, overrides: list[str]) -> str:
    """Says which override cannot be read: the first that fails alone."""
    starts = [i for i, word in enumerate(overrides) if word.startswith("--")]
    for begin, end in itertools.pairwise([*starts, len(overrides)]):
        flag, *values = [*overrides[begin].split("=", 1), *overrides[begin + 1 : end]]
        try:
            _parse_quietly(base, overrides[begin:end])
        except SystemExit:
            found = repr(" ".join(values)) if values else "nothing"
            return f"{flag}: expected {_in_words(_hint(base, flag))}, got {found}"
    return f"the overrides {' '.join(overrides)!r} do not go together: give each field once"


def _hint(part: Any, flag: str) -> Any:
    """Returns the type of the field of a config that --part.name is."""
    *parents, name = flag.removeprefix("--").replace("-", "_").split(".")
    for parent in parents:
        part = getattr(part, parent)
    return typing.get_type_hints(type(part))[name]


def _in_words(hint: Any) -> str:
    """Names a type as people do."""
    inner = typing.get_args(hint)
    if typing.get_origin(hint) is tuple:
        return f"a list, each {_in_words(inner[0])}"
    if typing.get_origin(hint) is typing.Literal:
        return " or ".join(map(str, inner))
    if inner:
        return " or ".join(map(_in_words, inner))
    return {int: "a whole number", float: "a number", str: "text", type(None): "None"}.get(hint, str(hint))


def _unknown(name: str, config: Config) -> str:
    if not name.startswith("-"):
        return f"unexpected argument {name!r}: CONFIG comes first, then --field value"
    known = [f"--{field}" for field in config_io.flat(config) if not field.endswith("class")]
    near = difflib.get_close_matches(name, known, n=3, cutoff=0.5)
    return f"no field {name} in this config" + (f": did you mean {' or '.join(near)}?" if near else "")
