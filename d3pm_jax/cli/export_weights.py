"""d3pm export writes the weights of a run as a safetensors file."""

import dataclasses
from pathlib import Path
from typing import Annotated, Literal

import jax

from d3pm_jax.cli.arguments import Checkpoint, list_own_options_first, name_option, open_named
from d3pm_jax.errors import UsageError, UserError
from d3pm_jax.program.machine.setup import set_up
from d3pm_jax.runs import exported

SUFFIX = ".safetensors"


@list_own_options_first
@dataclasses.dataclass(frozen=True)
class ExportCommand(Checkpoint):
    """Writes the weights of a run to a file for PyTorch.

    FILE holds the tensors under the names and in the layouts of torch_ref.models, in float32, to the bit. Its
    metadata holds the step, and the config as JSON. In PyTorch, torch_ref.runs.exported.denoiser(FILE)
    returns the network of a diffusion, and safetensors.torch.load_file(FILE) the tensors. `d3pm import FILE`
    begins a run from it. A network of your own, with its batch statistics, is exported by the same rule of
    names: see docs/how-to/move-network.md.

    Example: d3pm export runs/digits --to torch
    """

    to: Annotated[Literal["torch"] | None, name_option(help_behavior_hint="(required)")] = None
    """the framework whose names and layouts the tensors get"""
    out: Annotated[Path | None, name_option(metavar="FILE")] = None
    """the file to write, which replaces an older one (default: DIR/weights.safetensors)"""
    raw: bool = False
    """write the last weights instead of their moving average"""


def execute(command: ExportCommand, words: list[str]) -> int:
    """Writes the file; returns the exit status."""
    if command.to is None:
        raise UsageError("the following arguments are required: --to")
    path = command.out or command.workdir / f"weights{SUFFIX}"
    if path.suffix != SUFFIX:
        raise UserError(f"--out {path}: a safetensors file is written, so name it FILE{SUFFIX}")
    set_up()
    run = open_named(command, 1, folder=path.parent)
    exported.export(run, path, command.raw)
    weights = "raw" if command.raw else "ema"
    sizes = [x.size for x in jax.tree.leaves(run.params)]  # batch statistics and constants too
    print(f"{weights} weights of step {run.step}, {len(sizes)} tensors, {sum(sizes):,} numbers: {path}")
    return 0
