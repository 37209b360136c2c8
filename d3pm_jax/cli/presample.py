"""d3pm presample draws the noise of a run in advance."""

import argparse
import shlex
from pathlib import Path

from d3pm_jax.cli import arguments, overrides
from d3pm_jax.errors import UserError
from d3pm_jax.loop import presampled

SUFFIX = ".array_record"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds what the command takes."""
    parser.usage = "d3pm presample CONFIG [--steps N] --out FILE.array_record [OVERRIDES]"
    parser.epilog = (
        "CONFIG and OVERRIDES are those of d3pm train. For every step, FILE holds the t and the uniforms "
        "that training would draw: with --train.noise FILE it ends with the same bits, and "
        "torch_ref.runs.presampled.read gives them to PyTorch. Not for Importance(), whose t depend on the "
        "losses."
    )
    parser.add_argument("--steps", type=arguments.positive, metavar="N", help="of the training (train.steps)")
    parser.add_argument(
        "--out", type=Path, metavar="FILE.array_record", help="the file, replaced if there is one"
    )


def execute(args: argparse.Namespace, rest: list[str]) -> int:
    """Draws and writes; returns the exit status."""
    args.config = arguments.take_path(rest)
    if arguments.print_help(args, args.config):
        return 0
    config = overrides.from_file(args, rest, f"[--steps N] --out FILE{SUFFIX}")
    if args.out is None or args.out.suffix != SUFFIX:
        raise UserError(f"--out {args.out}: the noise file is an ArrayRecord file, name it FILE{SUFFIX}")
    steps = presampled.presample(config, args.out, args.steps)
    size = args.out.stat().st_size / 1e6
    print(f"noise of {steps} steps of batch size {config.train.batch_size}, {size:.1f} MB: {args.out}")
    words = [str(args.config), *rest, "--workdir", "DIR", "--train.noise", str(args.out)]
    words += ["--train.steps", str(steps)] if args.steps else []
    print(f"train with it: d3pm train {shlex.join(words)}")
    return 0
