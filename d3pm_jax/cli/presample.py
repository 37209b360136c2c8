"""d3pm presample: the noise of a run, drawn in advance."""

import argparse
import shlex

from d3pm_jax.cli import overrides
from d3pm_jax.cli.setup import image_shape, use_all_cores
from d3pm_jax.errors import UserError
from d3pm_jax.training import bank, run

SUFFIX = ".array_record"


def execute(args: argparse.Namespace, rest: list[str]) -> int:
    """Draws and writes; returns the exit status."""
    config = overrides.from_file(args, rest, f"[--steps N] --out FILE{SUFFIX}")
    if args.out is None or args.out.suffix != SUFFIX:
        raise UserError(f"--out {args.out}: the bank is an ArrayRecord file, name it FILE{SUFFIX}")
    use_all_cores(config.train.batch_size)
    parts = run.build(config, image_shape(config), config.train.batch_size)
    steps = args.steps or config.train.steps
    bank.write(parts, steps, args.out)
    size = args.out.stat().st_size / 1e6
    print(f"noise of {steps} steps of batch size {config.train.batch_size}, {size:.1f} MB: {args.out}")
    words = [str(args.config), *rest, "--workdir", "DIR", "--train.noise", str(args.out)]
    words += ["--train.steps", str(steps)] if args.steps else []
    print(f"train with it: d3pm train {shlex.join(words)}")
    return 0
