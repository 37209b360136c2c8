"""d3pm train: a config, its overrides, and the loop."""

import argparse
import dataclasses
from pathlib import Path

from d3pm_jax import plots
from d3pm_jax.cli import overrides
from d3pm_jax.cli.setup import image_shape, keep_freed_memory, use_all_cores
from d3pm_jax.config import Config
from d3pm_jax.errors import UserError
from d3pm_jax.training import loop, metrics, run

USAGE = "--workdir DIR [--resume]"


def run_config(args: argparse.Namespace, rest: list[str]) -> Config:
    """The config of the file, or of the run to resume, with the overrides."""
    if args.config is None and args.resume and args.workdir is not None:
        return overrides.apply(run.read_config(args.workdir), args, rest, USAGE)
    return overrides.from_file(args, rest, USAGE)


def execute(args: argparse.Namespace, rest: list[str]) -> int:
    """Trains; returns the exit status."""
    config = run_config(args, rest)
    if args.workdir is None:
        raise UserError("no workdir: pass --workdir DIR, where the run is written")
    use_all_cores(config.train.batch_size)
    height, width, _ = image_shape(config)
    keep_freed_memory(config.train.batch_size * height * width * config.model.ch)
    print(_table(config), flush=True)
    if not loop.train(config, args.workdir, args.resume):
        print(f"go on with: d3pm train --workdir {args.workdir} --resume")
        return 130
    rows = metrics.read(args.workdir)
    print(f"trained to step {config.train.steps}; checkpoint in {args.workdir / run.CHECKPOINTS}")
    if rows:
        print(f"loss curve: {_curve(args.workdir, rows)}")
    return 0


def _table(config: Config) -> str:
    """The config, one part per line."""
    lines = []
    for field in dataclasses.fields(config):
        lines.append(f"{field.name:>10} = {getattr(config, field.name)}")
    return "\n".join(lines)


def _curve(workdir: Path, rows: list[dict[str, float | int]]) -> Path:
    """Draws the curves of metrics.jsonl, and says where."""
    path = workdir / "loss.png"
    names = {"bound_bits_per_dim": "bound [bits/dim]", "ce": "cross entropy [nats]", "loss": "loss [nats]"}
    curves = {label: [row[name] for row in rows] for name, label in names.items()}
    plots.save_curves(path, [row["step"] for row in rows], curves, "step")
    return path
