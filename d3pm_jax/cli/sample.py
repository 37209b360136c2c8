"""d3pm sample draws samples, as arrays and pictures, and both processes from end to end."""

import argparse

import jax
import jax.numpy as jnp
import numpy as np

from d3pm_jax import data, posteriors, show
from d3pm_jax.cli import arguments
from d3pm_jax.runs.build import Parts
from d3pm_jax.runs.samples import make_sampler
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
        "--batch-size", type=arguments.positive, default=128, metavar="B", help="samples at a time (128)"
    )
    parser.add_argument(
        "--seed", type=int, default=0, help="of the noise (0); sample i is the same for every N and B"
    )


def execute(args: argparse.Namespace, rest: list[str]) -> int:
    """Samples; returns the exit status."""
    parts, _, test = arguments.open_run(args)
    levels, T = parts.config.num_levels, parts.process.T
    times = sorted({round(T * (i / (STATES - 1))) for i in range(STATES)})
    sampler = make_sampler(parts, min(args.batch_size, args.num), times)
    samples, reverse = sampler(parts.state.ema, args.num, args.seed)
    real, _ = data.read_all(test, levels, SHOWN)

    array, picture, chains = (args.workdir / n for n in ("samples.npy", "samples.png", "chain.png"))
    np.save(array, samples)
    show.save_beside(picture, show.to_rgb(samples[:SHOWN], levels), show.to_rgb(real[: args.num], levels))
    forward = _forward(parts, real[:CHAINS], times, args.seed)
    show.save_chain(chains, show.to_rgb(forward, levels), show.to_rgb(reverse[:, :CHAINS], levels), times)
    print(f"{len(samples)} samples of step {int(parts.state.step)}, int32 {samples.shape}: {array}")
    print(f"samples beside test data: {picture}")
    print(f"forward and reverse process: {chains}")
    return 0


def _forward(parts: Parts, x0: np.ndarray, times: list[int], seed: int) -> np.ndarray:
    """x_t ~ q(x_t | x_0) at each of the times, [R, N, H, W, C], with one uniform per element for all t."""
    u = per_example(jax.random.key(seed), jnp.arange(len(x0)), x0.shape[1:])(jnp.asarray(0))
    draw = jax.jit(posteriors.q_sample)
    return np.stack([draw(parts.process, x0, jnp.asarray(t, jnp.int32), u) for t in times])
