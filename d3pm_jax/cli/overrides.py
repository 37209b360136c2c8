"""Makes a config from a Python file, with the fields that the command line overrides."""

import argparse
import difflib

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
    shown = ["--help"] if args.help else []
    config, unknown = tyro.cli(
        Config,
        default=base,
        args=[*overrides, *shown],
        prog=f"d3pm {args.command} {args.config or ''} {usage}",
        description="Fields of the config and their values.",
        config=(tyro.conf.AvoidSubcommands,),
        return_unknown_args=True,
    )
    if unknown:
        raise UserError(_unknown(unknown[0], config))
    config_io.check_values(config)
    return config


def _unknown(name: str, config: Config) -> str:
    if not name.startswith("-"):
        return f"unexpected argument {name!r}: CONFIG comes first, then --field value"
    known = [f"--{field}" for field in config_io.flat(config) if not field.endswith("class")]
    near = difflib.get_close_matches(name, known, n=3, cutoff=0.5)
    return f"no field {name} in this config" + (f": did you mean {' or '.join(near)}?" if near else "")
