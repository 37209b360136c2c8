"""d3pm report writes a page about runs, for a browser and no network: figures, curves, samples, chains."""

import argparse
from pathlib import Path

from d3pm_jax import report
from d3pm_jax.cli import arguments
from d3pm_jax.report.pages import FILE
from d3pm_jax.runs.run import open_run


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds what the command takes."""
    text = "the --workdir of `d3pm train`; several are compared"
    parser.add_argument("workdirs", type=Path, nargs="+", metavar="DIR", help=text)
    text = "the checkpoint of step N of each (the last)"
    parser.add_argument("--step", type=arguments.not_negative, metavar="N", help=text)
    parser.add_argument("--out", type=Path, metavar="FILE", help=f"where to write ({FILE} in the first DIR)")
    arguments.add_own(parser)


def execute(args: argparse.Namespace, rest: list[str]) -> int:
    """Writes the page; returns the exit status."""
    runs = [open_run(workdir, args.own, args.step) for workdir in args.workdirs]
    print(f"report: {report.write(runs, args.out)}")
    return 0
