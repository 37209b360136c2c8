"""Measures samples for d3pm eval: how far they are from the training split, and what they have of it."""

import argparse
from collections.abc import Sequence
from pathlib import Path

from d3pm_jax.cli import arguments
from d3pm_jax.errors import UserError
from d3pm_jax.machine.terminal import Terminal
from d3pm_jax.measure import protocol
from d3pm_jax.runs import quality
from d3pm_jax.runs.run import Run


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds what the measure takes."""
    parser.add_argument(
        "--samples",
        type=arguments.positive,
        metavar="N",
        help="draw N samples and measure how far they are from the training split (2000 for a start); of "
        "text, whether they are of its words and what they copy",
    )
    parser.add_argument(
        "--inception",
        type=Path,
        metavar="FILE",
        help="measure them in features of these weights of Inception, not of a classifier of the data",
    )


def check(args: argparse.Namespace, run: Run) -> None:
    """Raises UserError where samples of a run could not be measured, before anything is computed."""
    if args.samples is not None:
        run.parts.kind.check_quality(args.samples, args.inception)
        protocol.read([run.workdir])  # what is damaged there is told before hours of work
    elif args.inception is not None:
        cure = "say how many, as --samples 5000"
        raise UserError(f"--inception {args.inception} measures samples of images: {cure}")


def execute(args: argparse.Namespace, runs: Sequence[Run]) -> None:
    """Draws samples of each run, all of one workdir, and measures them, if any are wanted."""
    if args.samples is None:
        return
    kind = runs[0].parts.kind
    reference = quality.prepare(runs[0], args.samples, args.batch_size, args.inception)
    for run in runs:
        with Terminal("sample", args.samples).shown() as terminal:
            found = quality.measure(
                run, reference, args.samples, args.seed, args.batch_size, terminal.advance
            )
        path = protocol.write(run.workdir, found.figures, found.protocol)
        shown = kind.show_quality(path, found.samples, found.measured, run.parts.categories, run.caption)
        if shown is not None:
            print(shown)
        print(f"figures and their protocol: {path}")
    closing = kind.closing_words(reference)
    if closing is not None:
        print(closing)
    for line in protocol.table(protocol.read([runs[0].workdir]), kind.quality):
        print(line)
