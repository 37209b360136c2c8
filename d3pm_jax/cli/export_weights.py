"""d3pm export writes the weights of a run as a safetensors file."""

import dataclasses
from pathlib import Path
from typing import Annotated, Literal

import jax

from d3pm_jax.cli.arguments import Checkpoint, name_option, open_named
from d3pm_jax.errors import UsageError, UserError
from d3pm_jax.machine.setup import set_up
from d3pm_jax.runs import exported

SUFFIX = ".safetensors"


@dataclasses.dataclass(frozen=True)
class ExportCommand(Checkpoint):
    """Writes the weights of a run for PyTorch.

    The tensors have the names and layouts of torch_ref.models, in float32, to the bit; the config as JSON and
    the step are in the metadata. torch_ref.runs.exported.denoiser(FILE) is the network of a diffusion in
    PyTorch; safetensors.torch.load_file and `d3pm import` read the tensors. Those of a network of your own
    are named by the same rule, its batch statistics too: see docs/own-parts.md.
    """

    to: Annotated[Literal["torch"] | None, name_option(help_behavior_hint="(required)")] = None
    """whose names and layouts"""
    out: Annotated[Path | None, name_option(metavar="FILE")] = None
    """the file, replaced if there is one (DIR/weights.safetensors)"""
    raw: bool = False
    """the last weights, in place of their moving average"""


def execute(command: ExportCommand, words: list[str]) -> int:
    """Writes the file; returns the exit status."""
    if command.to is None:
        raise UsageError("the following arguments are required: --to")
    path = command.out or command.workdir / f"weights{SUFFIX}"
    if path.suffix != SUFFIX:
        raise UserError(f"--out {path}: the file is one of safetensors, name it FILE{SUFFIX}")
    set_up()
    run = open_named(command, 1, folder=path.parent)
    exported.export(run, path, command.raw)
    weights = "raw" if command.raw else "ema"
    sizes = [x.size for x in jax.tree.leaves(run.params)]  # batch statistics and constants too
    print(f"{weights} weights of step {run.step}, {len(sizes)} tensors, {sum(sizes):,} numbers: {path}")
    return 0
