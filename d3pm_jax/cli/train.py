"""d3pm train reads a config and its overrides, and runs the loop."""

import argparse
import dataclasses
import math
import shlex
import shutil
import textwrap
from pathlib import Path

from d3pm_jax import show
from d3pm_jax.cli import arguments, overrides
from d3pm_jax.config import Config
from d3pm_jax.config import io as config_io
from d3pm_jax.config.model import features
from d3pm_jax.cpu.malloc import keep_freed_memory
from d3pm_jax.errors import UserError
from d3pm_jax.loop import cost, loop, metrics
from d3pm_jax.loop.wandb_run import check_installed
from d3pm_jax.machine.cache import keep_programs
from d3pm_jax.machine.devices import use_all_cores
from d3pm_jax.parts.begin import Weights, weights_of
from d3pm_jax.runs.run import open_run
from d3pm_jax.storage import names, workdir

USAGE = "--workdir DIR [--resume | --from RUN] [--profile] | --dry-run"
EPILOG = (
    "CONFIG is a Python file that defines get_config(); it comes first. Every field of the config can "
    "be overridden, for example --train.steps 200 --process.steps 50; `d3pm train CONFIG --help` lists "
    "them. A run is resumed with `d3pm train --workdir DIR --resume`."
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds what the command takes."""
    parser.usage = f"d3pm train CONFIG {USAGE} [OVERRIDES]"
    parser.epilog = EPILOG
    arguments.add_workdir(parser, "where everything is written")
    arguments.add_own(parser)
    arguments.add_cluster(parser)
    parser.add_argument(
        "--resume", action="store_true", help="go on with the run in DIR from its last checkpoint"
    )
    parser.add_argument(
        "--from",
        dest="start",
        type=Path,
        metavar="RUN",
        help="begin with the averaged weights of the run in this folder, as step 0 of a new one",
    )
    _add_looks(parser)


def _add_looks(parser: argparse.ArgumentParser) -> None:
    """Adds the ways to look at a training."""
    parser.add_argument(
        "--wandb",
        metavar="PROJECT",
        help="log to this project of Weights & Biases too, under the name of DIR; WANDB_MODE=offline sends "
        "nothing",
    )
    parser.add_argument(
        "--dry-run",
        action="store_true",
        help="train nothing and write nothing, but for data that is not prepared: compile a step, and say "
        "what memory and work it takes",
    )
    parser.add_argument(
        "--profile", action="store_true", help="write a trace of a few steps to DIR/profile, for TensorBoard"
    )


def run_config(args: argparse.Namespace, rest: list[str]) -> Config:
    """Returns the config of the file, or of the run to resume, with the overrides."""
    if args.config is not None and args.own is not None and args.start is None:
        raise UserError(f"--config {args.own} is for a run that is resumed without CONFIG: leave one out")
    if args.resume and args.start is not None:
        raise UserError("--from begins a new run, --resume goes on with one: leave one out")
    if args.config is None and args.resume and args.workdir is not None:
        config = overrides.apply(workdir.read_config(args.workdir, args.own), args, rest, USAGE)
        if not any(word.partition("=")[0] == "--data.dir" for word in rest):
            config.data.check_kept()
        return config
    return overrides.from_file(args, rest, USAGE)


def execute(args: argparse.Namespace, rest: list[str]) -> int:
    """Trains; returns the exit status."""
    args.config = arguments.take_path(rest)
    if arguments.print_help(args, args.config):
        return 0
    config = run_config(args, rest)
    if args.dry_run:
        return _dry_run(args, config)
    if args.workdir is None:
        raise UserError("no workdir: pass --workdir DIR, where the run is written")
    if args.wandb is not None:
        check_installed()
    _set_up(args, config)
    more = {"wandb": args.wandb, "profile": args.profile}
    if not loop.train(config, args.workdir, args.resume, _start(args, config), **more):
        own = f" --config {args.workdir / names.OWN}" if config_io.own_file(config) else ""
        own += f" --wandb {shlex.quote(args.wandb)}" if args.wandb is not None else ""
        print(f"go on with: d3pm train --workdir {args.workdir} --resume{own}")
        return 130
    _tell_end(args, config)
    return 0


def _dry_run(args: argparse.Namespace, config: Config) -> int:
    """Builds the run and compiles its step, without a folder, and says what the step costs."""
    if args.coordinator is not None:
        raise UserError("--dry-run is of one process: leave out --coordinator, or --dry-run")
    _set_up(args, config)
    parts, _ = loop.built(config)
    print(cost.in_words(cost.measure(parts)[0], parts))
    return 0


def _tell_end(args: argparse.Namespace, config: Config) -> None:
    """Draws the curves of a training that is done, and says what there is."""
    rows = metrics.read(args.workdir)
    curve = _curve(args.workdir, rows, type(config.process).__name__) if rows else None
    print(f"trained to step {config.train.steps}; checkpoint in {args.workdir / names.CHECKPOINTS}")
    if curve is not None:
        print(f"loss curve: {curve}")
    if args.profile:
        print(f"trace of some steps: {args.workdir / 'profile'}; tensorboard --logdir shows it")


def _set_up(args: argparse.Namespace, config: Config) -> None:
    """Does what comes before the first computation, joins the other processes, and prints the config."""
    keep_programs()
    part = config.train.batch_size // config.train.accumulate // (args.num_processes or 1)
    use_all_cores(part, config.mesh.fsdp)
    elements = math.prod(config.data.describe().shape)
    keep_freed_memory(config.train.batch_size * elements * features(config.model))
    arguments.join(args, config.mesh.heartbeat, saves=True)
    print(_table(config), flush=True)


def _start(args: argparse.Namespace, config: Config) -> Weights | None:
    """Reads the weights to begin with, if they are those of a run."""
    if args.start is None:
        return None
    run = open_run(args.start, args.own or args.config, batch_size=config.train.batch_size)
    print(f"begins with the averaged weights of step {run.step} in {args.start}", flush=True)
    return weights_of(run.parts)


def _table(config: Config) -> str:
    """Lists the config, each part from a line of its own on, no wider than the terminal or 80 columns."""
    fit = textwrap.TextWrapper(shutil.get_terminal_size().columns, subsequent_indent=" " * 13)
    fit.break_long_words = fit.break_on_hyphens = False
    parts = ((field.name, getattr(config, field.name)) for field in dataclasses.fields(config))
    return "\n".join(fit.fill(f"{name:>10} = {part}") for name, part in parts)


def _curve(folder: Path, rows: list[dict[str, float | int]], process: str) -> Path:
    """Draws the curves of metrics.jsonl, and says where."""
    path = folder / "loss.png"
    names = {"bound_bits_per_dim": "bound [bits/dim]", "ce": "cross entropy [nats]", "loss": "loss [nats]"}
    curves = {label: [row[name] for row in rows] for name, label in names.items()}
    caption = f"{folder.resolve().name}: {process}"
    show.save_curves(path, [row["step"] for row in rows], curves, "step", caption=caption)
    return path
