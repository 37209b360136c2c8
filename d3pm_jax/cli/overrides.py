"""Makes a config from a Python file, with the fields that the command line overrides."""

import difflib
import itertools
from pathlib import Path
from typing import Any

import tyro

from d3pm_jax.cli.reading import first_failing, quoted, silence
from d3pm_jax.config import Config, io as config_io
from d3pm_jax.config.checks import hints_of, in_words
from d3pm_jax.errors import UserError, one_line


def from_file(path: Path | None, words: list[str], usage: str) -> Config:
    """Reads the config of a file, with the fields that words override; see `apply`.

    Raises:
        UserError: there is no such file, or `apply` fails.
    """
    if path is None:
        program = usage.partition(" CONFIG")[0]
        raise UserError(
            f"no config: pass a Python file that defines get_config() first, as in {program} CONFIG"
        )
    return apply(config_io.from_file(path), words, usage)


def apply(base: Config, words: list[str], usage: str) -> Config:
    """Returns the config with the fields that words override; for --help prints all fields, and exits.

    Raises:
        UserError: an override names no field of the config, or gives it a value that cannot be used.
    """
    if "--help" in words:
        _parse(base, ["--help"], usage)
    _check_flags(base, words)
    try:
        config, unknown = _parse_quietly(base, words)
    except SystemExit:
        # it is said which override cannot be read: the first that fails alone
        failing = first_failing(lambda alone: _parse_quietly(base, alone), words)
        if failing is None:
            why = f"the overrides {quoted(words)} do not go together: give each field once"
            raise UserError(why) from None
        flag, values = failing
        got = quoted(values) if values else "nothing"
        raise UserError(f"{flag}: expected {in_words(_hint(base, flag))}, got {got}") from None
    if unknown:
        got = quoted(unknown[:1])
        raise UserError(f"unexpected argument {got}: CONFIG comes first, then --field value")
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
            near = difflib.get_close_matches(flag, fields, n=3, cutoff=0.5)
            cure = f": did you mean {' or '.join(near)}?" if near else ""
            raise UserError(f"no field {one_line(flag)} in this config{cure}")
        if _dashed(flag) in switches and (equals or not following.startswith("--")):
            part, name = switches[_dashed(flag)]
            raise UserError(f"{flag} takes no value: write {part}.{name} or {part}.no-{name}")


def _dashed(flag: str) -> str:
    return flag.replace("_", "-")


def _parse(base: Config, words: list[str], usage: str) -> tuple[Config, list[str]]:
    """Returns the config with the overrides, and what names no field of it; exits where a value is wrong."""
    return tyro.cli(
        Config,
        default=base,
        args=words,
        prog=usage,
        description="Fields of the config and their values.",
        config=(tyro.conf.AvoidSubcommands,),
        return_unknown_args=True,
    )


def _parse_quietly(base: Config, words: list[str]) -> tuple[Config, list[str]]:
    with silence():
        return _parse(base, words, "d3pm")


def _hint(part: Any, flag: str) -> Any:
    """Returns the annotation of the field of a config that --part.name is."""
    *parents, name = _dashed(flag).removeprefix("--").replace("-", "_").split(".")
    for parent in parents:
        part = getattr(part, parent)
    return hints_of(type(part)).get(name, Any)
