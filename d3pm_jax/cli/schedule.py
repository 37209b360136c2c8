"""d3pm schedule shows what the forward process of a config does to one element, without data or a network."""

import argparse
from pathlib import Path

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from d3pm_jax import losses, show
from d3pm_jax.cli import arguments, overrides
from d3pm_jax.config import Config, from_data
from d3pm_jax.errors import UserError, one_line
from d3pm_jax.evaluation.process_effect import effect, half_left, weight
from d3pm_jax.likelihood import bits_per_dim
from d3pm_jax.processes import Process
from d3pm_jax.processes.base import check_elementwise
from d3pm_jax.runs.build import fill_in, name_process

SHOWN = 100  # steps in the picture
WEIGHT = "weight in the bound\n[nats per nat of CE]"
ENTRIES = 2**20  # of the largest array of probabilities


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds what the command takes."""
    parser.usage = "d3pm schedule CONFIG [--out FILE.png] [OVERRIDES]"
    parser.epilog = (
        "CONFIG and OVERRIDES are those of d3pm train. The picture shows, for one element with uniform "
        "p(x_0): how often x_t is still x_0, the part of the information I(x_t; x_0) that is left, and the "
        "weight of the cross entropy in the bound."
    )
    parser.add_argument(
        "--out",
        type=Path,
        default=Path("schedule.png"),
        metavar="FILE.png",
        help="the picture (schedule.png)",
    )


def execute(args: argparse.Namespace, rest: list[str]) -> int:
    """Draws and prints; returns the exit status."""
    args.config = arguments.take_path(rest)
    if arguments.print_help(args, args.config):
        return 0
    config = overrides.from_file(args, rest, "[--out FILE.png]")
    if args.out.suffix != ".png":
        raise UserError(f"--out {args.out}: the picture is a PNG, name it FILE.png")
    if from_data.needs_data(config):
        config = fill_in(config, config.data.describe())
    try:
        process = config.process.build()
        check_elementwise(process, "d3pm schedule shows")
    except (ValueError, TypeError, OverflowError, MemoryError) as error:
        raise UserError(one_line(error, 1000)) from error
    x0 = _categories(config, process)
    _plot(args.out, process, x0, name_process(config, process))
    prior = np.asarray(bits_per_dim(losses.prior_kl(process, x0), 1), np.float64)
    half = half_left(process, x0)
    print(f"process: {config.process}")
    print(f"prior KL(q(x_T | x_0) || p(x_T)): {prior.mean():.3g} bits/dim, at most {prior.max():.3g}")
    where = "never: raise beta or the number of steps" if half is None else f"at t = {half} of {process.T}"
    print(f"half of the information is left {where}")
    print(f"what each step does: {args.out}")
    return 0


def _categories(config: Config, process: Process) -> Array:
    """Returns what the data may be; for a very large K only as many, evenly spread, as fit into `ENTRIES`."""
    levels, K = config.head.data_categories(process.K), process.K
    if levels < 2:
        raise UserError(
            f"process.K = {K} leaves the data a single category: there is no information to remove"
        )
    shown = np.linspace(0, levels - 1, min(levels, max(2, ENTRIES // K)))
    return jnp.asarray(shown.round(), jnp.int32)


def _plot(path: Path, process: Process, x0: Array, caption: str) -> None:
    shown = (
        *np.geomspace(1, process.T, SHOWN // 2),
        *np.linspace(1, process.T, SHOWN // 2),
    )  # early steps matter most
    ts = sorted({round(t) for t in shown})
    at = {t: effect(process, x0, t) for t in sorted({s for t in ts for s in (t - 1, t)})}
    curves = {
        "x_t is still x_0\n[probability]": [at[t].kept for t in ts],
        "information left\nI(x_t; x_0) / H(x_0)": [1 - at[t].lost for t in ts],
        WEIGHT: [weight(at[t - 1], at[t]) for t in ts],
    }
    show.save_curves(path, ts, curves, "t", log=(WEIGHT,), caption=caption)
