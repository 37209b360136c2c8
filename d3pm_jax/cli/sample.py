"""d3pm sample draws samples, as arrays and as their kind wants to be seen; of images, chains end to end."""

import argparse

import jax
import jax.numpy as jnp
import numpy as np

from d3pm_jax import posteriors, show
from d3pm_jax.cli import arguments
from d3pm_jax.files import write_npy
from d3pm_jax.runs import workdir
from d3pm_jax.runs.run import Run
from d3pm_jax.sampling import per_example

SHOWN = 64  # samples in the picture
CHAINS = 4  # examples in the picture of chains
STATES = 10  # states in the picture of chains


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds what the command takes."""
    arguments.add_run(parser)
    parser.add_argument(
        "--num", type=arguments.positive, default=256, metavar="N", help="samples to draw (256)"
    )
    parser.add_argument(
        "--label", type=int, metavar="C", help="of this class; without, sample i is of class i modulo all"
    )
    parser.add_argument(
        "--batch-size", type=arguments.positive, default=128, metavar="B", help="samples at a time (128)"
    )
    parser.add_argument(
        "--seed",
        type=arguments.seed,
        default=0,
        help="of the noise (0); sample i is the same for every N and B",
    )


def execute(args: argparse.Namespace, rest: list[str]) -> int:
    """Samples; returns the exit status."""
    run = arguments.open_named(args, min(args.batch_size, args.num), args.steps)
    T, classes = run.process.T, run.parts.classes
    times = sorted({round(T * (i / (STATES - 1))) for i in range(STATES)})
    key = jax.random.key(args.seed)
    samples, reverse = run.sample(key, args.num, args.label, args.batch_size, times)
    array = args.workdir / "samples.npy"
    write_npy(array, samples)
    of_class = "" if classes is None else f", sample i of class i modulo {classes}"
    of_class = of_class if args.label is None else f", all of class {args.label}"
    print(f"{len(samples)} samples of step {run.step}{of_class}, int32 {samples.shape}: {array}")
    if run.parts.description.kind == "image":
        _pictures(run, samples, reverse, times, args.seed)
    elif run.parts.description.kind == "text":
        path = show.save_examples(args.workdir / "samples", samples, run.parts.description)
        print(f"as text, a line for each: {path}")
    return 0


def _pictures(run: Run, samples: np.ndarray, reverse: np.ndarray, times: list[int], seed: int) -> None:
    """Draws samples beside examples of the data, and both processes from end to end."""
    picture, chains, levels = run.workdir / "samples.png", run.workdir / "chain.png", run.parts.categories
    real = workdir.read_examples(run.workdir, run.parts.description)
    if real is None:  # begun from weights: there is no data to show beside
        columns = round(len(samples[:SHOWN]) ** 0.5)
        show.save_grid(picture, show.to_rgb(samples[:SHOWN], levels), columns)
        print(f"samples: {picture}")
        return
    real = real[: len(samples)]
    show.save_beside(picture, show.to_rgb(samples[:SHOWN], levels), show.to_rgb(real[:SHOWN], levels))
    forward = _forward(run, real[:CHAINS], times, seed)
    show.save_chain(chains, show.to_rgb(forward, levels), show.to_rgb(reverse[:, :CHAINS], levels), times)
    print(f"samples beside test data: {picture}")
    print(f"forward and reverse process: {chains}")


def _forward(run: Run, x0: np.ndarray, times: list[int], seed: int) -> np.ndarray:
    """x_t ~ q(x_t | x_0) at each of the times, [R, N, *S], with one uniform per element for all t."""
    u = per_example(jax.random.key(seed), jnp.arange(len(x0)), x0.shape[1:])(jnp.asarray(0))
    draw = jax.jit(posteriors.q_sample)
    return np.stack([draw(run.process, x0, jnp.asarray(t, jnp.int32), u) for t in times])
