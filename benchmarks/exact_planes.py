"""Exact likelihoods of points of the plane as 32 bits, beside the entropy, and how far samples are from them.

    python benchmarks/exact_planes.py spirals [--workdir runs/planes_spirals] [--seed 0] [--steps 12000]

Of points of `data.plane`, in [-4, 4) both, each coordinate has 16 bits of a Gray code: the last ones are
nearly random. It trains configs/plane_gray.py with a network of 256 units on 500,000 points, unless there is
a run, and prints

- -log p of test points in nats, by the chain rule in 16 orders that all points share, the mean over orders
  and the mixture of all 16; and how far that is above the exact -log p of the same points, by quadrature, of
  which the mean is an estimate of the entropy;
- MMD^2 of samples against new points, unbiased, with the kernel exp(-0.1 x bits that differ), of 4,000 each;
  and that of new points against others. Both are means of ten, with their standard error.
"""

import argparse
from dataclasses import replace
from pathlib import Path
from typing import get_args

import jax
import jax.numpy as jnp
import numpy as np
from exact import ORDERS, count_minutes, measure_orders
from scipy.special import logsumexp

from d3pm_jax import likelihood, orders, runs
from d3pm_jax.config import Arrays, Config, io as config_io
from d3pm_jax.data import plane
from d3pm_jax.sampling import named

CONFIG = Path(__file__).parents[1] / "configs" / "plane_gray.py"
BITS = 16  # of a coordinate
CELL = 2 * plane.EXTENT / 2**BITS
TRAIN, TEST = 500_000, 4000  # points
SAMPLES = 4000
REPEATS = 10


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("density", choices=get_args(plane.Density))
    parser.add_argument("--workdir", type=Path, help="the folder of the run (runs/planes_DENSITY)")
    parser.add_argument("--seed", type=int, default=0, help="of points, training, orders and samples")
    parser.add_argument("--steps", type=int, default=12_000)
    args = parser.parse_args()
    workdir = args.workdir or Path("runs") / f"planes_{args.density}"
    rng = np.random.default_rng(args.seed)
    points = plane.draw_points(args.density, TRAIN + TEST, rng)
    if not (workdir / "checkpoints").exists():
        config = make_config(encode(points), workdir, args.seed, args.steps)
        runs.train(config, workdir)
        print(f"trained in {count_minutes():.1f} core minutes", flush=True)
    run = runs.open(workdir)

    test = points[TRAIN:]
    nats = measure_orders(run, encode(test), rng.random((ORDERS, 2 * BITS), np.float32))  # [M, N]
    exact = -log_density(args.density, test) - 2 * np.log(CELL)
    mixture = np.asarray(orders.mixture(jnp.asarray(nats)).nats)
    print_mean("-log p, exact", exact)
    print_mean("mean over 16 orders", nats.mean(0))
    print_mean("mixture of 16 orders", mixture)
    print_mean("mean - exact", nats.mean(0) - exact)
    print_mean("mixture - exact", mixture - exact)

    sampled, floor = [], []
    for repeat in range(REPEATS):
        draw = runs.Draw(sampler=named.random_order())
        samples = run.sample(jax.random.key(repeat), SAMPLES, draw, batch_size=SAMPLES).x0
        new, other = (encode(plane.draw_points(args.density, SAMPLES, rng)) for _ in range(2))
        sampled.append(compute_mmd(samples, new))
        floor.append(compute_mmd(other, new))
    print_mean("MMD^2 of samples", np.array(sampled), "{:.2e}")
    print_mean("MMD^2 of new points", np.array(floor), "{:.2e}")


def print_mean(name: str, values: np.ndarray, form: str = "{:.4f}") -> None:
    """Prints a mean with its standard error."""
    mean, error = map(float, likelihood.mean_and_se(jnp.asarray(values, jnp.float32)))
    print(f"  {name:22} {form.format(mean)} ± {form.format(error)}", flush=True)


def make_config(bits: np.ndarray, workdir: Path, seed: int, steps: int) -> Config:
    """Returns the config of a training, whose points it writes beside the folder of the run."""
    workdir.parent.mkdir(parents=True, exist_ok=True)
    files = {}
    for split, part in {"train": bits[:TRAIN], "test": bits[TRAIN:]}.items():
        file = workdir.parent / f"{workdir.name}_{split}.npy"
        np.save(file, part)
        files[split] = str(file)
    config = config_io.read_config_file(CONFIG)
    return replace(
        config,
        data=Arrays(**files, categories=2),
        model=replace(config.model, width=256, num_layers=4),
        optimizer=replace(config.optimizer, decay_steps=steps),
        head=replace(config.head, residual=False),
        train=replace(config.train, seed=seed, steps=steps, sample_every=0, checkpoint_every=steps),
    )


def encode(points: np.ndarray) -> np.ndarray:
    """Returns the 32 bits of points [N, 2], those of x first, the highest first; int8 [N, 32]."""
    cells = np.clip(np.floor((points + plane.EXTENT) / CELL), 0, 2**BITS - 1).astype(np.int64)
    codes = cells ^ (cells >> 1)
    bits = codes[..., None] >> np.arange(BITS)[::-1] & 1  # [N, 2, 16]
    return bits.reshape(len(points), 2 * BITS).astype(np.int8)


def log_density(density: plane.Density, points: np.ndarray) -> np.ndarray:
    """Computes the log of a density at points [N, 2]; a cell is so small that it is constant there."""
    if density == "checkerboard":
        return np.full(len(points), -np.log(2 * plane.EXTENT**2))
    if density == "eight_gaussians":
        angle = np.arange(8) * np.pi / 4
        centres = plane.CIRCLE_RADIUS * np.stack([np.cos(angle), np.sin(angle)], axis=1)
        weights, deviation = np.full(8, 1 / 8), plane.GAUSSIAN_NOISE
    else:
        # Of both spirals, at evenly spread u: theta = 3 pi sqrt(u).
        theta = plane.TURN * np.sqrt((np.arange(2000) + 0.5) / 2000)
        radius = plane.SPIRAL_RADIUS * theta / plane.TURN
        spiral = np.stack([radius * np.cos(theta), radius * np.sin(theta)], axis=1)
        centres = np.concatenate([spiral, -spiral])
        weights, deviation = np.full(len(centres), 1 / len(centres)), plane.SPIRAL_NOISE
    squares = ((points[:, None] - centres) ** 2).sum(-1)  # [N, centres]
    log_terms = -squares / (2 * deviation**2) - np.log(2 * np.pi * deviation**2)
    return np.asarray(logsumexp(log_terms, axis=1, b=weights))


def compute_mmd(x: np.ndarray, y: np.ndarray) -> float:
    """Computes the unbiased MMD^2 of rows of bits, with the kernel exp(-0.1 x how many bits differ)."""
    spins = [2 * rows.astype(np.float32) - 1 for rows in (x, y)]

    def mean_kernel(a: np.ndarray, b: np.ndarray, is_same: bool) -> float:
        differing = (a.shape[1] - a @ b.T) / 2
        total = np.exp(-0.1 * differing).sum(dtype=np.float64)
        # The N pairs of a row with itself are left out.
        return (total - len(a) * is_same) / (len(a) * (len(b) - is_same))

    x, y = spins
    return mean_kernel(x, x, True) + mean_kernel(y, y, True) - 2 * mean_kernel(x, y, False)


if __name__ == "__main__":
    main()
