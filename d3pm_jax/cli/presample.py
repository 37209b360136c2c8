"""d3pm presample draws the noise of a run in advance."""

import dataclasses
import shlex
from pathlib import Path
from typing import Annotated

from d3pm_jax.cli import arguments, reading
from d3pm_jax.config.checks import Count
from d3pm_jax.errors import UserError
from d3pm_jax.program.loop import presampled

SUFFIX = ".array_record"
USAGE = "d3pm presample CONFIG"


@dataclasses.dataclass(frozen=True)
class PresampleCommand:
    """Draws the noise of a training in advance.

    CONFIG and the options that override its fields are those of `d3pm train`. For every step, FILE holds the
    t and the uniform numbers that the training would draw. `d3pm train CONFIG --train.noise FILE` uses them
    and ends with the same bits; torch_ref.runs.presampled.read(FILE) yields them to PyTorch. A config with
    timesteps Importance() has no such file, since its t depend on the losses.

    Example: d3pm presample configs/digits_uniform.py --out noise.array_record
    """

    steps: Annotated[Count | None, arguments.name_option(metavar="N")] = None
    """how many training steps to draw noise for (default: train.steps of CONFIG)"""
    out: Annotated[
        Path | None, arguments.name_option(metavar=f"FILE{SUFFIX}", help_behavior_hint="(required)")
    ] = None
    """the file to write, which replaces an older one"""


def execute(command: PresampleCommand, words: list[str]) -> int:
    """Draws and writes; returns the exit status."""
    path = arguments.take_path(words)
    config = reading.read_overridden_config(path, words, USAGE)
    if command.out is None:
        raise UserError(f"no file to write to: pass --out, and name it FILE{SUFFIX}")
    if command.out.suffix != SUFFIX:
        raise UserError(f"--out {command.out}: the noise file is an ArrayRecord file, name it FILE{SUFFIX}")
    steps = presampled.presample_checked(config, command.out, command.steps)
    size = command.out.stat().st_size / 1e6
    print(f"noise of {steps} steps of batch size {config.train.batch_size}, {size:.1f} MB: {command.out}")
    train = [str(path), *words, "--workdir", "DIR", "--train.noise", str(command.out)]
    if command.steps:
        train += ["--train.steps", str(steps)]
    print(f"train with it: d3pm train {shlex.join(train)}")
    return 0
