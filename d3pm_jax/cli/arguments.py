"""Defines the arguments that commands share, and opens what they name: a run, or the config of a file."""

import argparse
import dataclasses
import os
from pathlib import Path

from d3pm_jax import data
from d3pm_jax.config import Config
from d3pm_jax.errors import UserError
from d3pm_jax.runs import build, workdir
from d3pm_jax.runs.devices import use_all_cores


def add_workdir(parser: argparse.ArgumentParser, text: str) -> None:
    """Adds --workdir, of a run that is written; text is its help."""
    parser.add_argument("--workdir", type=Path, metavar="DIR", help=text)


def add_checkpoint(parser: argparse.ArgumentParser) -> None:
    """Adds DIR, --step and --data-dir, of a run that is read."""
    parser.add_argument("workdir", type=Path, metavar="DIR", help="the --workdir of `d3pm train`")
    parser.add_argument("--step", type=int, metavar="STEP", help="which checkpoint (the last)")
    parser.add_argument(
        "--data-dir", metavar="DIR", help="where data sets lie, if not where the run found them"
    )


def add_run(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments of `open_run`."""
    add_checkpoint(parser)
    parser.add_argument(
        "--steps",
        type=positive,
        metavar="N",
        help="take N evenly spaced steps of the process in place of all",
    )


def positive(text: str) -> int:
    """Parses a whole number of at least 1."""
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{value} is not at least 1")
    return value


def take_path(rest: list[str]) -> Path | None:
    """Takes a path from the front of rest, if there is one."""
    return Path(rest.pop(0)) if rest and not rest[0].startswith("-") else None


def print_help(args: argparse.Namespace, path: Path | None) -> bool:
    """Answers --help where no file is named whose fields could be shown; returns whether it did."""
    if args.help and path is None:
        args.parser.print_help()
        return True
    return False


def open_run(args: argparse.Namespace) -> tuple[build.Parts, data.ImageSource, data.ImageSource]:
    """Opens the run in args.workdir at a checkpoint, and its train and test splits.

    Raises:
        UserError: there is no such run, checkpoint or data.
    """
    config = read_config(args)
    if not os.access(args.workdir, os.W_OK):
        raise UserError(f"{args.workdir} cannot be written to, where the results go: change its permissions")
    use_all_cores(args.batch_size)
    spec = config.data
    train, test = (
        data.open_split(spec.name, split, spec.dir) for split in (spec.train_split, spec.test_split)
    )
    parts = build.build(config, train[0]["image"].shape, args.batch_size, args.steps)
    return build.restore(args.workdir, parts, args.step), train, test


def read_config(args: argparse.Namespace) -> Config:
    """Reads the config of the run in args.workdir, with its data where the command says.

    Raises:
        UserError: there is no such run.
    """
    config = workdir.read_config(args.workdir)
    if args.data_dir is None:
        return config
    return dataclasses.replace(config, data=dataclasses.replace(config.data, dir=args.data_dir))


def image_shape(config: Config) -> tuple[int, int, int]:
    """Returns the shape (H, W, C) of the images of a config.

    Raises:
        UserError: the data cannot be read.
    """
    return data.open_split(config.data.name, config.data.train_split, config.data.dir)[0]["image"].shape
