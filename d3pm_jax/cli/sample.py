"""d3pm sample draws samples, as arrays and as their kind wants to be seen; of images, chains end to end."""

import argparse

import jax
import numpy as np

from d3pm_jax import show
from d3pm_jax.cli import arguments, results
from d3pm_jax.files import write_npy
from d3pm_jax.runs import workdir
from d3pm_jax.runs.run import Run
from d3pm_jax.runs.samples import draw_forward
from d3pm_jax.runs.terminal import Terminal

SHOWN = 64  # samples in the picture
CHAINS = 4  # examples in the picture of chains
STATES = 10  # states in the picture of chains


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds what the command takes."""
    arguments.add_checkpoint(parser)
    arguments.add_steps(parser, arguments.positive, "N", "take N steps of the process in place of all")
    parser.add_argument(
        "--num", type=arguments.positive, default=256, metavar="N", help="samples to draw (256)"
    )
    parser.add_argument(
        "--label",
        type=arguments.not_negative,
        metavar="C",
        help="of this class; without, sample i is of class i modulo all",
    )
    parser.add_argument(
        "--batch-size", type=arguments.positive, default=128, metavar="B", help="samples at a time (128)"
    )
    parser.add_argument(
        "--seed",
        type=arguments.seed,
        default=0,
        metavar="N",
        help="of the noise (0); sample i is the same for every N and B",
    )


def execute(args: argparse.Namespace, rest: list[str]) -> int:
    """Samples; returns the exit status."""
    arguments.check_grid(args)
    run = arguments.open_named(args, min(args.batch_size, args.num))
    if args.steps is not None:
        run = run.respaced(arguments.grid(args, run, args.steps))
    T, classes = run.process.T, run.parts.classes
    times = sorted({round(T * (i / (STATES - 1))) for i in range(STATES)})
    key = jax.random.key(args.seed)
    with Terminal("sample", args.num).shown() as terminal:
        samples, reverse = run.sample(key, args.num, args.label, args.batch_size, times, terminal.advance)
    suffix = results.suffix(args, "step", "steps", "grid", "seed", "label")
    path = args.workdir / f"samples{suffix}.npy"
    write_npy(path, samples)
    about = {"step": run.step, "num": len(samples), "steps": T, "grid": args.grid}
    about |= {"seed": args.seed, "label": args.label}
    replaced = results.write_json(path.with_suffix(".json"), about, ("step", "num"))
    pictures = _pictures(run, samples, reverse, times, args.seed, suffix)
    of_class = "" if classes is None else f", sample i of class i modulo {classes}"
    of_class = of_class if args.label is None else f", all of class {args.label}"
    print(f"{len(samples)} samples of step {run.step}{of_class}, int32 {samples.shape}: {path}{replaced}")
    for line in pictures:
        print(line)
    return 0


def _pictures(
    run: Run, samples: np.ndarray, reverse: np.ndarray, times: list[int], seed: int, suffix: str
) -> list[str]:
    """Writes samples as their kind wants to be seen, and returns what to print of that.

    Images are drawn beside examples of the data, and both processes from end to end.
    """
    description, levels = run.parts.description, run.parts.categories
    picture, chains = (run.workdir / f"{name}{suffix}.png" for name in ("samples", "chain"))
    if description.kind == "text":
        path = show.save_examples(picture.with_suffix(""), samples, description)
        return [f"as text, a line for each: {path}"]
    if description.kind != "image":
        return []
    real = workdir.read_examples(run.workdir, description)
    if real is None:  # begun from weights: there is no data to show beside
        columns = round(len(samples[:SHOWN]) ** 0.5)
        show.save_grid(picture, show.to_rgb(samples[:SHOWN], levels), columns, run.caption)
        return [f"samples: {picture}"]
    real = real[: len(samples)]
    tiles, real_tiles = (show.to_rgb(x[:SHOWN], levels) for x in (samples, real))
    show.save_beside(picture, tiles, real_tiles, run.caption)
    forward = draw_forward(jax.random.key(seed), run.process, real[:CHAINS], times)
    rows, back = (show.to_rgb(x, levels) for x in (forward, reverse[:, :CHAINS]))
    show.save_chain(chains, rows, back, times, run.caption)
    return [f"samples beside test data: {picture}", f"forward and reverse process: {chains}"]
