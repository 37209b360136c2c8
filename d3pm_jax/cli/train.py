"""d3pm train: a config, its overrides, and the loop."""

import argparse
import dataclasses
import difflib
from pathlib import Path

import tyro

from d3pm_jax import config_io, plots
from d3pm_jax.cli.setup import use_all_cores
from d3pm_jax.config import Config
from d3pm_jax.errors import UserError
from d3pm_jax.training import loop, metrics, run


def run_config(args: argparse.Namespace, overrides: list[str]) -> Config:
    """The config of the file, or of the run to resume, with the overrides."""
    if args.config is not None:
        base = config_io.from_file(args.config)
    elif args.resume and args.workdir is not None:
        base = run.read_config(args.workdir)
    else:
        raise UserError(
            "no config: pass a Python file that defines get_config() first, as in d3pm train CONFIG"
        )
    shown = ["--help"] if args.help else []
    config, unknown = tyro.cli(
        Config,
        default=base,
        args=[*overrides, *shown],
        prog=f"d3pm train {args.config or ''} --workdir DIR [--resume]",
        description="Fields of the config and their values.",
        config=(tyro.conf.AvoidSubcommands,),
        return_unknown_args=True,
    )
    if unknown:
        raise UserError(_unknown(unknown[0], config))
    return config


def _unknown(name: str, config: Config) -> str:
    if not name.startswith("-"):
        return f"unexpected argument {name!r}: CONFIG comes first, then --field value"
    known = [f"--{field}" for field in config_io.flat(config) if not field.endswith("class")]
    near = difflib.get_close_matches(name, known, n=3, cutoff=0.5)
    return f"no field {name} in this config" + (f": did you mean {' or '.join(near)}?" if near else "")


def execute(args: argparse.Namespace, overrides: list[str]) -> int:
    """Trains; returns the exit status."""
    config = run_config(args, overrides)
    if args.workdir is None:
        raise UserError("no workdir: pass --workdir DIR, where the run is written")
    use_all_cores(config.train.batch_size)
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
