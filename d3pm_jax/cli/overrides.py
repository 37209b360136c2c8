"""Makes a config from a Python file, with the fields that the command line overrides."""

import argparse
import contextlib
import difflib
import io
import itertools
from typing import Any

import tyro

from d3pm_jax.config import Config
from d3pm_jax.config import io as config_io
from d3pm_jax.config.checks import hints_of, in_words
from d3pm_jax.errors import UserError, one_line


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
        _parse(base, ["--help"], f"d3pm {args.command} {args.config or ''} {usage}")
    _check_flags(base, overrides)
    try:
        config, unknown = _parse_quietly(base, overrides)
    except SystemExit:
        raise UserError(_wrong_value(base, overrides)) from None
    if unknown:
        raise UserError(f"unexpected argument {_got(unknown[0])}: CONFIG comes first, then --field value")
    config_io.check_values(config)
    return config


def _check_flags(base: Config, words: list[str]) -> None:
    """Refuses flags that are no fields, those of tyro among them, and values where a flag says all.

    Raises:
        UserError: naming the flag.
    """
    fields = [f"--{name}" for name in config_io.flat(base) if name.split(".")[-1] != "class"]
    switches = {}
    for field in fields:
        if _hint(base, field) is bool:
            part, _, name = _dashed(field).rpartition(".")
            switches |= dict.fromkeys([f"{part}.{name}", f"{part}.no-{name}"], (part, name))
    known = {*map(_dashed, fields), *switches}
    for word, following in itertools.pairwise([*words, "--"]):
        flag, equals, _ = word.partition("=")
        if not flag.startswith("--"):
            continue
        if _dashed(flag) not in known:
            raise UserError(_unknown(flag, fields))
        if _dashed(flag) in switches and (equals or not following.startswith("--")):
            part, name = switches[_dashed(flag)]
            raise UserError(f"{flag} takes no value: write {part}.{name} or {part}.no-{name}")


def _dashed(flag: str) -> str:
    return flag.replace("_", "-")


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
            found = _got(" ".join(values)) if values else "nothing"
            return f"{flag}: expected {in_words(_hint(base, flag))}, got {found}"
    return f"the overrides {_got(' '.join(overrides))} do not go together: give each field once"


def _got(text: str) -> str:
    return one_line(repr(text), 80)


def _hint(part: Any, flag: str) -> Any:
    """Returns the annotation of the field of a config that --part.name is."""
    *parents, name = _dashed(flag).removeprefix("--").replace("-", "_").split(".")
    for parent in parents:
        part = getattr(part, parent)
    return hints_of(type(part)).get(name, Any)


def _unknown(flag: str, fields: list[str]) -> str:
    near = difflib.get_close_matches(flag, fields, n=3, cutoff=0.5)
    return f"no field {one_line(flag)} in this config" + (
        f": did you mean {' or '.join(near)}?" if near else ""
    )
