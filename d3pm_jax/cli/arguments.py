"""Defines the arguments that commands share, and opens the run that they name."""

import argparse
import contextlib
import dataclasses
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from d3pm_jax.config.checks import Count, Natural, Seed, fits, in_words
from d3pm_jax.errors import UserError, one_line
from d3pm_jax.machine import cluster
from d3pm_jax.machine.cache import keep_programs
from d3pm_jax.machine.devices import use_all_cores
from d3pm_jax.runs.run import Run, open_run
from d3pm_jax.storage.workdir import read_config


def add_workdir(parser: argparse.ArgumentParser, text: str) -> None:
    """Adds --workdir, of a run that is written; text is its help."""
    parser.add_argument("--workdir", type=Path, metavar="DIR", help=text)


def add_checkpoint(parser: argparse.ArgumentParser) -> None:
    """Adds DIR, --step and --config, of a run that is read."""
    parser.add_argument("workdir", type=Path, metavar="DIR", help="the --workdir of `d3pm train`")
    parser.add_argument("--step", type=not_negative, metavar="N", help="the checkpoint of step N (the last)")
    add_own(parser)


def add_own(parser: argparse.ArgumentParser) -> None:
    """Adds --config, of a run with parts of the user's own."""
    parser.add_argument(
        "--config",
        dest="own",
        type=Path,
        metavar="FILE",
        help="of a run with parts of your own: the config file, which defines them",
    )


def add_data_dir(parser: argparse.ArgumentParser) -> None:
    """Adds --data-dir, of a command that reads the data of a run."""
    parser.add_argument(
        "--data-dir", metavar="DIR", help="where data sets lie, if not where the run found them"
    )


def add_steps(parser: argparse.ArgumentParser, parse: Callable[[str], Any], metavar: str, text: str) -> None:
    """Adds --steps and --grid, of a command that can take fewer steps than the process has."""
    parser.add_argument("--steps", type=parse, metavar=metavar, help=text)
    parser.add_argument(
        "--grid",
        choices=("even", "dp"),
        default="even",
        help="which steps --steps takes: evenly spaced (even), or by dynamic programming those with the "
        "lowest bound on held-out or train examples (dp)",
    )


def add_cluster(parser: argparse.ArgumentParser) -> None:
    """Adds --coordinator and what belongs to it, of a command that may run as several processes."""
    group = parser.add_argument_group("several processes, each with its own devices, as one run")
    group.add_argument(
        "--coordinator",
        metavar="HOST:PORT",
        help="where process 0 waits for the others; auto: SLURM, Open MPI, Kubernetes or a TPU pod says so",
    )
    group.add_argument("--num-processes", type=positive, metavar="N", help="how many there are")
    group.add_argument("--process-id", type=not_negative, metavar="I", help="which one this is, from 0 on")
    group.add_argument(
        "--connect-timeout",
        type=positive,
        default=60,
        metavar="S",
        help="seconds in which the processes have to find each other (60)",
    )


def join(args: argparse.Namespace, heartbeat: int, saves: bool) -> None:
    """Joins the processes of the command; see `cluster.join`."""
    address = cluster.Address(args.coordinator, args.num_processes, args.process_id, args.connect_timeout)
    cluster.join(address, args.workdir, heartbeat, saves)


def seed(text: str) -> int:
    """Parses a seed of 32 bits."""
    return _parsed(text, Seed)


def not_negative(text: str) -> int:
    """Parses a whole number of 0 or more."""
    return _parsed(text, Natural)


def positive(text: str) -> int:
    """Parses a whole number of 1 or more."""
    return _parsed(text, Count)


def counts(text: str) -> list[int]:
    """Parses whole numbers of 1 or more, N[,N...], each once."""
    return list(dict.fromkeys(positive(word) for word in text.split(",")))


def _parsed(text: str, hint: Any) -> int:
    with contextlib.suppress(ValueError):
        if fits(value := int(text), hint):
            return value
    raise argparse.ArgumentTypeError(f"expected {in_words(hint)}, got {one_line(repr(text), 80)}")


def take_path(rest: list[str]) -> Path | None:
    """Takes a path from the front of rest, if there is one."""
    return Path(rest.pop(0)) if rest and not rest[0].startswith("-") else None


def print_help(args: argparse.Namespace, path: Path | None) -> bool:
    """Answers --help where no file is named whose fields could be shown; returns whether it did."""
    if args.help and path is None:
        args.parser.print_help()
        return True
    return False


def check_grid(args: argparse.Namespace) -> None:
    """Raises UserError where --grid dp has no number of steps to find the best of."""
    if args.grid == "dp" and args.steps is None:
        raise UserError("--grid dp says which steps --steps takes: pass both, as --steps 20 --grid dp")


def open_named(args: argparse.Namespace, batch_size: int, folder: Path | None = None) -> Run:
    """Opens the run in args.workdir at a checkpoint, with its data where the command says.

    Args:
        args: of the command.
        batch_size: examples at a time.
        folder: where the results go, if not to the run.

    Raises:
        UserError: there is no such run or checkpoint, or the results cannot be written.
    """
    keep_programs()
    if hasattr(args, "coordinator"):
        use_all_cores(batch_size // (args.num_processes or 1))
        join(args, read_config(args.workdir, args.own).mesh.heartbeat, saves=False)
    run = open_run(args.workdir, args.own, args.step, batch_size=batch_size)
    written: Path = args.workdir if folder is None else folder
    if written.is_dir() and not os.access(written, os.W_OK):
        raise UserError(f"{written} cannot be written to, where the results go: change its permissions")
    if not hasattr(args, "data_dir"):
        return run
    if args.data_dir is None:
        run.config.data.check_kept()
        return run
    if "dir" not in run.config.data.places:
        raise UserError(f"--data-dir {args.data_dir}: the data of this run has no folder; leave it out")
    moved = dataclasses.replace(run.config.data, dir=args.data_dir)  # pyright: ignore[reportCallIssue]
    config = dataclasses.replace(run.config, data=moved)
    return dataclasses.replace(run, parts=dataclasses.replace(run.parts, config=config))
