"""d3pm sample: samples as arrays and pictures, and both processes from end to end."""

import argparse

import jax
import jax.numpy as jnp
import numpy as np

from d3pm_jax import data, diffusion, plots
from d3pm_jax.cli.setup import open_run
from d3pm_jax.noise import per_example
from d3pm_jax.training import run
from d3pm_jax.training.samples import make_sampler

SHOWN = 64  # samples in the picture
CHAINS = 4  # examples in the picture of chains
STATES = 10  # states in the picture of chains


def execute(args: argparse.Namespace) -> int:
    """Samples; returns the exit status."""
    parts, _, test = open_run(args)
    levels, T = run.num_levels(parts.config), parts.tr.T
    times = sorted({round(T * (i / (STATES - 1))) for i in range(STATES)})
    sampler = make_sampler(parts, min(args.batch_size, args.num), times)
    samples, reverse = sampler(parts.state.ema, args.num, args.seed)
    real, _ = data.read_all(test, levels, SHOWN)

    array, picture, chains = (args.workdir / n for n in ("samples.npy", "samples.png", "chain.png"))
    np.save(array, samples)
    plots.save_beside(picture, plots.to_rgb(samples[:SHOWN], levels), plots.to_rgb(real[: args.num], levels))
    forward = _forward(parts, real[:CHAINS], times, args.seed)
    plots.save_chain(chains, plots.to_rgb(forward, levels), plots.to_rgb(reverse[:, :CHAINS], levels), times)
    print(f"{len(samples)} samples of step {int(parts.state.step)}, int32 {samples.shape}: {array}")
    print(f"samples beside test data: {picture}")
    print(f"forward and reverse process: {chains}")
    return 0


def _forward(parts: run.Parts, x0: np.ndarray, times: list[int], seed: int) -> np.ndarray:
    """x_t ~ q(x_t | x_0) at each of the times, [R, N, H, W, C], with one uniform per element for all t."""
    u = per_example(jax.random.key(seed), jnp.arange(len(x0)), x0.shape[1:])(jnp.asarray(0))
    return np.stack([diffusion.q_sample(parts.tr, jnp.asarray(x0), jnp.asarray(t), u) for t in times])
