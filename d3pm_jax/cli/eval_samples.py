"""Measures samples for d3pm eval: how far they are from the training split, and what they have of it."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from d3pm_jax import show
from d3pm_jax.errors import UserError
from d3pm_jax.kinds import features
from d3pm_jax.machine.terminal import Terminal
from d3pm_jax.measure import protocol, quality, text_quality
from d3pm_jax.runs.run import Run

PAIRS = 32  # samples in the picture, each with its nearest example
COLUMNS = 8  # of pairs


def check(args: Any, run: Run) -> None:
    """Raises UserError where samples of a run could not be measured, before anything is computed."""
    description = run.parts.description
    if args.inception is not None and (args.samples is None or description.kind == "text"):
        cure = "say how many, as --samples 5000" if args.samples is None else "leave it out for text"
        raise UserError(f"--inception {args.inception} measures samples of images: {cure}")
    if args.samples is not None:
        if description.kind != "text":
            features.check(description, args.samples, args.inception)
        protocol.read([run.workdir])  # what is damaged there is told before hours of work


def execute(args: Any, runs: Sequence[Run]) -> None:
    """Draws samples of each run, all of one workdir, and measures them, if any are wanted."""
    if args.samples is None:
        return
    measure = _text if runs[0].parts.description.kind == "text" else _images
    measure(args, runs)
    for line in protocol.table(protocol.read([runs[0].workdir])):
        print(line)


def _images(args: Any, runs: Sequence[Run]) -> None:
    reference = quality.prepare(runs[0], args.samples, args.batch_size, args.inception)
    for run in runs:
        with Terminal("sample", args.samples).shown() as terminal:
            found = quality.measure(
                run, reference, args.samples, args.seed, args.batch_size, terminal.advance
            )
        path = protocol.write(run.workdir, found.figures, found.protocol)
        picture = path.with_suffix(".png")
        _save_pairs(picture, found, run)
        print(f"samples, each left of the training example nearest to it: {picture}")
        print(f"figures and their protocol: {path}")


def _text(args: Any, runs: Sequence[Run]) -> None:
    reference = text_quality.prepare(runs[0], args.samples)
    for run in runs:
        with Terminal("sample", args.samples).shown() as terminal:
            found = text_quality.measure(
                run, reference, args.samples, args.seed, args.batch_size, terminal.advance
            )
        path = protocol.write(run.workdir, found.figures, found.protocol)
        copied = found.figures["samples"]["copied"]
        print(f"longest piece of a sample that is in the training split: {copied!r}")
        print(f"figures and their protocol: {path}")
    print(f"compared with the training split: {reference.compared.partition(', sha256')[0]}")


def _save_pairs(path: Path, found: quality.Quality, run: Run) -> None:
    """Draws samples with the training examples nearest to them."""
    pairs = np.stack([found.samples[:PAIRS], found.nearest[:PAIRS]], axis=1)
    images = show.to_rgb(pairs.reshape(-1, *pairs.shape[2:]), run.parts.categories)
    show.save_grid(path, images, 2 * COLUMNS, f"{run.caption}; right of each sample its nearest example")
